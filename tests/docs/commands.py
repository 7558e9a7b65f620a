"""The commands of the documentation's shell blocks: run here, or read by the same parser without running."""

from __future__ import annotations

import importlib
import importlib.util
import re
import runpy
import shlex
import sys
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from flows.command import run as run_flow
from rasterembed.command_line.command_app import command_app
from rasterembed.commands.main import app
from tests.conftest import PROJECT

STANDS_FOR = {
    "DATASET": "scene",
    "URI": "embeddings",
    "ROOT": "embeddings",
    "RASTER": "scene.tif",
    "TILE": "r000012_c000034",
}
"""Words in capitals that a page leaves to its reader, and what they are in the prepared folder."""

_SEPARATORS = {"&&", "||", ";", "|"}
_ASSIGNMENT = re.compile(r"[A-Z_][A-Z0-9_]*=")


@dataclass(frozen=True)
class Command:
    """One command of a shell block."""

    environment: dict[str, str]
    """Variables that stand before the command, or are exported by it."""
    words: list[str]
    """The program and its arguments."""

    @property
    def module(self) -> str | None:
        """Module that `python -m` runs; None for other programs."""
        program = self.words[0].rsplit("/", 1)[-1] if self.words else ""
        return self.words[2] if program.startswith("python") and self.words[1:2] == ["-m"] else None

    @property
    def is_rasterembed(self) -> bool:
        """Whether this is the console command."""
        return bool(self.words) and self.words[0].rsplit("/", 1)[-1] == "rasterembed"


def commands(text: str) -> Iterator[Command]:
    """Split a shell block into its commands, in the order in which they are written."""
    for line in text.replace("\\\n", " ").splitlines():
        words: list[str] = []
        for word in [*_words(line), ";"]:
            if word in _SEPARATORS:
                if words:
                    yield _command(words)
                words = []
            else:
                words.append(STANDS_FOR.get(word, word))


def _words(line: str) -> list[str]:
    reader = shlex.shlex(line, posix=True, punctuation_chars=";&|")
    reader.whitespace_split = True
    return list(reader)


def _command(words: list[str]) -> Command:
    environment = {}
    rest = words[1:] if words[0] == "export" else words
    while rest and _ASSIGNMENT.match(rest[0]):
        name, _, value = rest.pop(0).partition("=")
        environment[name] = value
    return Command(environment, rest)


def execute(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run a command in this process, and fail the test if it does not end well."""
    for name, value in command.environment.items():
        monkeypatch.setenv(name, value)
    if not command.words:
        return
    try:
        if command.module and command.module.startswith("flows."):
            run_flow(_flow(command.module), command.words[3:])
        elif command.module and command.module.startswith("examples."):
            monkeypatch.setattr(sys, "argv", [command.module, *command.words[3:]])
            runpy.run_module(command.module, run_name="__main__")
        elif command.is_rasterembed:
            monkeypatch.setattr(sys, "argv", command.words)
            _console()()
        else:
            pytest.fail(f"{shlex.join(command.words)}: not known here; put `<!-- not executed: why -->` before it")
    except SystemExit as end:
        if end.code:
            pytest.fail(f"{shlex.join(command.words)} ended with {end.code}")


def check(command: Command) -> None:
    """Check the names that a command uses, without running it: modules, options, targets of the Makefile."""
    if command.module and command.module.startswith("flows."):
        _parse(command.module, command.words[3:])
    elif command.is_rasterembed:
        app.parse_args(command.words[1:], print_error=False, exit_on_error=False)
    elif command.module and command.module.split(".")[0] in {"benchmarks", "examples", "services", "tests", "airflow"}:
        assert importlib.util.find_spec(command.module), f"there is no module {command.module}"
    elif command.words[:1] == ["make"]:
        targets = re.findall(r"^([.a-z0-9-]+):.*##", (PROJECT / "Makefile").read_text(), re.MULTILINE)
        assert {word for word in command.words[1:] if not _ASSIGNMENT.match(word)} <= set(targets)


def _parse(module: str, words: Sequence[str]) -> None:
    """Read the options of a flow's command line, which fails for an option that the flow does not have."""
    flow = _flow(module)
    command_app(module, flow.fn).parse_args(words, print_error=False, exit_on_error=False)


def _flow(module: str) -> Any:
    from prefect import Flow

    members = vars(importlib.import_module(module)).values()
    (flow,) = [member for member in members if isinstance(member, Flow) and member.fn.__module__ == module]
    return flow


def _console() -> Any:
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    module, _, function = project["scripts"]["rasterembed"].partition(":")
    return getattr(importlib.import_module(module), function)
