"""Standard output and standard error of a command, also if nobody reads them any more, as after `| head`."""

from __future__ import annotations

import os
import select
import sys
from contextlib import suppress
from typing import NoReturn, TextIO

from rasterembed.escape import escape_terminal

CLOSED_PIPE = 141
"""Exit status if nobody read the result: that of a program which the signal SIGPIPE ends (128 + 13)."""


def print_message(text: str) -> None:
    """Print a line on standard error. If nobody reads it any more, the command goes on.

    Args:
        text: the line. Its control characters become visible codes.
    """
    with suppress(BrokenPipeError):
        sys.stderr.write(f"{escape_terminal(text)}\n")  # One call, because several threads may print.


def print_result(text: str | None) -> NoReturn:
    """Print the result of a command, and end the process.

    Args:
        text: the result, escaped for a terminal. None if the command has no result.

    Raises:
        SystemExit: with status 0, or `CLOSED_PIPE` if nobody reads the result any more.
    """
    with suppress(BrokenPipeError):  # The next line notices it.
        if text is not None:
            print(text)
    sys.exit(0 if flush_outputs() else CLOSED_PIPE)


def flush_outputs() -> bool:
    """Write everything that was printed, and return whether somebody can still read both outputs.

    Python writes the rest at its end. Without a reader, it would then print an error of its own.
    """
    read = True
    for stream in filter(None, (sys.stdout, sys.stderr)):
        with suppress(BrokenPipeError):
            stream.flush()
        if _has_no_reader(stream):
            read = False
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    return read


def _has_no_reader(stream: TextIO) -> bool:
    """Return whether a stream is a pipe whose other end was closed."""
    with suppress(OSError):  # A stream may have no file.
        poll = select.poll()
        poll.register(stream.fileno(), 0)
        return any(event & select.POLLERR for _, event in poll.poll(0))
    return False
