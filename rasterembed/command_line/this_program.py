"""How a shell starts the command `rasterembed` of this Python environment."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from shlex import quote

PROGRAM = "rasterembed"
"""Name of the console command."""


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
    return quote(str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path))


def as_typed(command: str) -> str:
    """Return a command of the library, such as `rasterembed qa scene`, as a shell in the current folder starts it."""
    return f"{this_program()}{command.removeprefix(PROGRAM)}"
