"""Stop a command by signals: the first one lets it finish what is under way, the second one ends it at once."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from rasterembed.store.lease import DURATION_S

INTERRUPTED = 130
"""Exit status after Ctrl-C or SIGTERM."""

STAYS = ": finished work stays in the store; run the same command again to continue"
"""End of the message about an interrupted command that writes to the store."""

_NOTICE_S = 0.5
"""Seconds after the first signal until a person is told how to stop at once. Most commands have ended by then."""


@contextmanager
def stoppable(*, keeps_work: bool = True) -> Iterator[None]:
    """Let Ctrl-C and SIGTERM stop the block. Service managers and Prefect's workers send SIGTERM.

    The first signal raises KeyboardInterrupt in the main thread, so the block can clean up. PyTorch cannot be
    interrupted within a batch of tiles, which can take minutes. If the block has not ended soon, a line on standard
    error says so. The second signal ends the process with status `INTERRUPTED`, without cleaning up: everything in a
    store appears whole or not at all, so nothing has to be cleaned up there. Python is not shut down, because PyTorch's
    threads would then print texts of their own.

    Call it in the main thread.

    Args:
        keeps_work: whether the block writes work to a store, which stays after a signal.
    """
    stop = _Stop(keeps_work)
    before = {number: signal.signal(number, stop.on_stop) for number in (signal.SIGINT, signal.SIGTERM)}
    before[signal.SIGALRM] = signal.signal(signal.SIGALRM, stop.on_alarm)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        if not stop.asked:  # After a signal, the process ends. A second signal may still hurry it.
            for number, handler in before.items():
                signal.signal(number, handler)


class _Stop:
    def __init__(self, keeps_work: bool) -> None:
        self._keeps_work = keeps_work
        self.asked = False
        """Whether a signal has come."""

    def on_stop(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            waits = f", it waits up to {DURATION_S:g} s for the lease of this run"
            _say(f"error: stopped at once{STAYS + waits if self._keeps_work else ''}")
            os._exit(INTERRUPTED)
        self.asked = True
        signal.setitimer(signal.ITIMER_REAL, _NOTICE_S)
        raise KeyboardInterrupt

    def on_alarm(self, number: int, frame: FrameType | None) -> None:
        first = "what is being computed is finished first; " if self._keeps_work else ""
        _say(f"stopping: {first}press Ctrl-C again to stop at once")


def _say(text: str) -> None:
    """Write a line on standard error. A signal can come while another line is written, so no buffer is used."""
    line = f"{text}\n"
    if sys.stderr.isatty():  # The cursor may be behind a progress bar or `^C`.
        line = f"\n{line}"
    os.write(2, line.encode())
