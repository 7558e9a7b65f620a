"""Ask a person before a command deletes something."""

from __future__ import annotations

import sys

from rasterembed.errors import UsageError
from rasterembed.escape import escape_terminal


def confirmed(what: str, place: str) -> bool:
    """Ask on the terminal whether something may be deleted, and return whether the answer is `yes`.

    Args:
        what: kind and name of the thing, such as `dataset 'a'`.
        place: root of the store.

    Raises:
        UsageError: if the command does not run in a terminal.
    """
    if not sys.stdin.isatty():
        raise UsageError(f"nothing was deleted: give --yes to delete {what} without a question")
    print(escape_terminal(f"Delete {what} in {place}? Type yes: "), end="", flush=True)
    return sys.stdin.readline().strip().lower() == "yes"
