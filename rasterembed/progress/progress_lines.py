"""The lines that tell the progress of a command whose standard error is no terminal, such as a file or a pipe."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from rasterembed.progress.repeating import repeated

LINES_EVERY_S = 60.0
"""Seconds between two lines. A file that collects the lines of a long run stays small."""


@contextmanager
def progress_lines(describe: Callable[[float], str]) -> Iterator[None]:
    """Print a line about once a minute on standard error until the end of the block, unless it is a terminal.

    A terminal shows a progress bar. Without these lines, a long run whose output goes to a file would look as if it
    stood still.

    Args:
        describe: function that returns the line. It is called with the time of a monotonic clock in seconds, at the
            beginning of the block and for each line, from one thread at a time.
    """
    stream, every = sys.stderr, LINES_EVERY_S
    if stream is None or stream.closed or stream.isatty():
        yield
        return
    describe(time.monotonic())  # The rate needs a first measurement.

    def print_line() -> None:
        # Nobody may read the pipe any more, or the stream may be closed. The run goes on.
        with suppress(OSError, ValueError):
            print(f"progress: {describe(time.monotonic())}", file=stream, flush=True)

    with repeated(print_line, every):
        yield
