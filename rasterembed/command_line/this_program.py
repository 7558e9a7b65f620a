"""How a shell starts the command `rasterembed` of this Python environment."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from shlex import quote

PROGRAM = "rasterembed"
"""Name of the console command."""

_PYTHON = "python"
"""Name with which the library writes the Python interpreter in a command."""


def this_program() -> str:
    """Return how a shell in the current folder starts the `rasterembed` of this Python environment.

    It is the plain name if the shell finds this program by its name. Otherwise it is a path, relative to the current
    folder if the program is inside it.
    """
    path = Path(sys.executable).with_name(PROGRAM)
    if not path.is_file():
        return f"{quote(sys.executable)} -m {PROGRAM}"
    found = shutil.which(PROGRAM)
    if found and os.path.samefile(found, path):
        return PROGRAM
    return _from_here(path)


def as_typed(command: str) -> str:
    """Return a command of the library as a shell in the current folder starts it.

    Args:
        command: a command such as `rasterembed qa scene` or `python -m flows.qa_report scene`.
    """
    program, space, words = command.partition(" ")
    here = {PROGRAM: this_program, _PYTHON: _this_python}.get(program)
    return f"{here()}{space}{words}" if here else command


def _this_python() -> str:
    """Return how a shell in the current folder starts the Python of this environment."""
    path, found = Path(sys.executable), shutil.which(_PYTHON)
    # The Python of an environment may be a link to that of the system, so the folders are compared.
    return _PYTHON if found and Path(found).parent == path.parent else _from_here(path)


def _from_here(path: Path) -> str:
    """Return a path for a shell, relative to the current folder if it is inside this folder."""
    return quote(str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path))
