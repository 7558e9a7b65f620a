"""Run `prefect deploy`, and print one line for each deployment instead of about twenty."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

_HINTS = (
    "Deploying ",
    "Your Prefect workers will attempt to load your flow from",
    "Running deployment build steps",
    "View Deployment in UI",
    "To execute flow runs from these deployments",
    "To schedule a run for this deployment",
    "$ prefect ",
)
"""Beginnings of lines that Prefect repeats for each deployment. If a new version of Prefect has other lines, they are
printed."""

_SHELL_STEP = "> Running run_shell_script step"
"""Line before the output of the steps that find out version and revision."""

_WIDE = "400"
"""Width of the output in letters. In a narrow output, Prefect breaks its lines."""


def without_hints(lines: Iterable[str]) -> Iterator[str]:
    """Yield the lines of `prefect deploy` that say what was done. Build steps of images stay.

    Args:
        lines: the output of `prefect deploy` in a wide window.

    Example:
        >>> list(without_hints(["│ Deployment 'a/b' successfully created with id '1'. │", "\\t$ prefect init"]))
        ["Deployment 'a/b' successfully created with id '1'."]
    """
    in_shell_step = False
    for line in lines:
        text = line.strip(" \t\r\n│╭╮╰╯─")
        if not text or text.startswith((_SHELL_STEP, *_HINTS)):
            # A frame or another line of Prefect ends the output of a step.
            in_shell_step = text.startswith(_SHELL_STEP)
        elif text.startswith("> Running ") or line.startswith("│"):
            in_shell_step = False
            yield text
        elif not in_shell_step:
            yield line.rstrip()


def run_without_hints(command: Sequence[str], folder: Path) -> int:
    """Run `prefect deploy` in a folder, and return its exit status. If it failed, print all of its output.

    Args:
        command: the program and its arguments.
        folder: folder with prefect.yaml.
    """
    environment = os.environ | {"COLUMNS": _WIDE, "PYTHONUNBUFFERED": "1"}
    everything = []

    def lines(output: Iterable[str]) -> Iterator[str]:
        for line in output:
            everything.append(line.rstrip())
            yield line

    with subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None  # It is a pipe.
        for text in without_hints(lines(process.stdout)):
            print(text, flush=True)
    if process.returncode:
        print("the command failed. This is its whole output:", *everything, sep="\n", flush=True)
    return process.returncode
