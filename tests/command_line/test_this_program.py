"""How a shell starts the command of this Python environment."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from rasterembed.command_line.this_program import as_typed, this_program


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder of programs of a Python environment in the current folder, which PATH does not name."""
    programs = tmp_path / "my project" / "venv" / "bin"
    programs.mkdir(parents=True)
    program = programs / "rasterembed"
    program.write_text("#!/bin/sh\necho here\n")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(programs / "python"))
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    monkeypatch.chdir(programs.parent.parent)
    return programs


def _runs(command: str) -> bool:
    return subprocess.run(command, shell=True, capture_output=True, check=False).stdout == b"here\n"


def test_an_environment_that_is_not_active_is_named_by_its_path(
    environment: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert this_program() == "venv/bin/rasterembed"
    assert as_typed("python -m flows.qa_report a") == "venv/bin/python -m flows.qa_report a"
    assert _runs(this_program())
    monkeypatch.chdir(tmp_path.parent)
    assert _runs(this_program())


def test_in_an_active_environment_the_name_is_enough(environment: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{environment}:/usr/bin:/bin")
    assert this_program() == "rasterembed"
    (environment / "python").symlink_to(environment / "rasterembed")
    assert as_typed("python -m flows.qa_report a") == "python -m flows.qa_report a"


def test_another_rasterembed_of_the_shell_is_not_taken(
    environment: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "rasterembed").write_text("#!/bin/sh\necho other\n")
    (other / "rasterembed").chmod(0o755)
    monkeypatch.setenv("PATH", f"{other}:/usr/bin:/bin")
    assert _runs(this_program())


def test_without_the_program_the_module_is_started(environment: Path) -> None:
    (environment / "rasterembed").unlink()
    assert this_program() == f"'{environment / 'python'}' -m rasterembed"
