"""Which tests run in the same process: see `tests/conftest.py`."""

from __future__ import annotations

import ast

from tests.conftest import PROJECT, WITH_FORKED_RUNS

FORKING = {"run", "start", "elsewhere", "exit_code_of"}
"""Functions of `tests.support.runs` that start its server process."""


def test_modules_that_fork_runs_are_listed() -> None:
    forking = {
        str(path.relative_to(PROJECT))
        for path in PROJECT.glob("tests/**/test_*.py")
        if "tests.support.runs" in (text := path.read_text())
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.ImportFrom) and node.module == "tests.support.runs"
        if FORKING & {alias.name for alias in node.names}
    }
    assert forking == set(WITH_FORKED_RUNS)
