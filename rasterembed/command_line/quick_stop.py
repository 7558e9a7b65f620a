"""Stop the process by a signal while no command runs: during the imports before it, and at the end of the process.

This module imports only what Python has imported already, so that it is in use before the imports that take long.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
from contextlib import suppress
from types import FrameType

INTERRUPTED = 130
"""Exit status after Ctrl-C or SIGTERM."""

SIGNALS = (signal.SIGINT, signal.SIGTERM)
"""Signals that stop a command. Service managers and Prefect's workers send SIGTERM."""


_interrupted = False
"""Whether a command of this process was interrupted."""


def stop_at_once() -> None:
    """Let Ctrl-C and SIGTERM end the process from now on, with one line on standard error and status `INTERRUPTED`.

    Python itself would raise KeyboardInterrupt wherever it is. In an import or at the end of the process, nobody
    catches this exception, and Python prints a traceback. Call it in the main thread, while there is nothing to clean
    up.
    """
    if signal.getsignal(signal.SIGINT) is not _end:  # The function of the first call is called last, as it must be.
        atexit.register(_leave)
    for number in SIGNALS:
        signal.signal(number, _end)


def note_interruption() -> None:
    """Let the process end with the status `INTERRUPTED`, whatever an interrupted library left behind.

    If a library runs Python code, and KeyboardInterrupt ends this code, then Python sends itself SIGINT at its end. It
    does so also if the exception was caught.
    """
    global _interrupted
    _interrupted = True


def _leave() -> None:
    if _interrupted:
        os._exit(INTERRUPTED)


def _end(number: int, frame: FrameType | None) -> None:
    say("error: interrupted")
    os._exit(INTERRUPTED)


def say(text: str) -> None:
    """Write a line on standard error. A signal can come while another line is written, so no buffer is used."""
    line = f"{text}\n"
    if sys.stderr is not None and sys.stderr.isatty():  # The cursor may be behind a progress bar or `^C`.
        line = f"\n{line}"
    with suppress(OSError):  # Nobody may read it any more.
        os.write(2, line.encode())
