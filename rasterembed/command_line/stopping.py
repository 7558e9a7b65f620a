"""Stop a command by signals: the first one lets it finish what is under way, the second one ends it at once."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from rasterembed.command_line.quick_stop import INTERRUPTED, SIGNALS, say
from rasterembed.store.lease import DURATION_S

STAYS = "finished work stays in the store"
"""Words about an interrupted command that writes to the store."""

_NOTICE_S = 0.5
"""Seconds after the first signal until a person is told how to stop at once. Most commands have ended by then."""

_AGAIN_S = 0.01
"""Seconds until KeyboardInterrupt is raised again, if Python could not raise it."""

_END = b"\0"
"""Byte that ends the thread which wakes the main thread. No signal has the number 0."""

_WAKE_S = 0.05
"""Seconds between two attempts to wake the main thread after a signal."""


class Stop:
    """Tells whether a signal has come. See `stoppable`."""

    def __init__(self, keeps_work: bool) -> None:
        self.awake = False
        """Whether the main thread has noticed the last signal."""
        self.ended = False
        """Whether the block has ended."""
        self._keeps_work = keeps_work
        self._since: float | None = None
        self._told = False
        self._lost = False
        self._show = sys.unraisablehook

    @property
    def asked(self) -> bool:
        """Whether a signal has come."""
        return self._since is not None

    def on_stop(self, number: int, frame: FrameType | None) -> None:
        """Raise KeyboardInterrupt after the first signal, and end the process after the second one."""
        if self._since is None:
            self._since = time.monotonic()
            signal.setitimer(signal.ITIMER_REAL, _NOTICE_S)
            raise KeyboardInterrupt
        if time.monotonic() - self._since < _NOTICE_S:
            return  # `timeout -s INT` sends its signal twice, and nobody was told yet what a second signal does.
        waits = f"; run the same command again to continue, it waits up to {DURATION_S:g} s for the lease of this run"
        say(f"error: stopped at once{f': {STAYS}{waits}' if self._keeps_work else ''}")
        os._exit(INTERRUPTED)

    def on_alarm(self, number: int, frame: FrameType | None) -> None:
        """Raise KeyboardInterrupt again if it was lost. Otherwise, tell a person how to stop at once, if it is time."""
        self.awake = True
        if self._lost:
            self._lost = False
            signal.setitimer(signal.ITIMER_REAL, _NOTICE_S)
            raise KeyboardInterrupt
        if self._told or self._since is None or time.monotonic() - self._since < _NOTICE_S:
            return  # `_wake_main_thread` sent this signal.
        self._told = True
        first = "what is being computed is finished first; " if self._keeps_work else ""
        say(f"stopping: {first}press Ctrl-C again to stop at once")

    def on_unraisable(self, unraisable: sys.UnraisableHookArgs) -> None:
        """Notice that Python could not raise KeyboardInterrupt, for example because a finaliser was running.

        Python would print a traceback, and the command would go on.
        """
        if self.asked and issubclass(unraisable.exc_type, KeyboardInterrupt):
            self._lost = True
            signal.setitimer(signal.ITIMER_REAL, _AGAIN_S)
        else:
            self._show(unraisable)


@contextmanager
def stoppable(*, keeps_work: bool = True) -> Iterator[Stop]:
    """Let Ctrl-C and SIGTERM stop the block.

    The first signal raises KeyboardInterrupt in the main thread, so the block can clean up. PyTorch cannot be
    interrupted within a batch of tiles, which can take minutes. If the block has not ended soon, a line on standard
    error says so. The second signal ends the process with status `INTERRUPTED`, without cleaning up: everything in a
    store appears whole or not at all, so nothing has to be cleaned up there. Python is not shut down, because PyTorch's
    threads would then print texts of their own.

    Call it in the main thread.

    Args:
        keeps_work: whether the block writes work to a store, which stays after a signal.
    """
    stop = Stop(keeps_work)
    before = {number: signal.signal(number, stop.on_stop) for number in SIGNALS}
    before[signal.SIGALRM] = signal.signal(signal.SIGALRM, stop.on_alarm)
    sys.unraisablehook = stop.on_unraisable
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    before_writing = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    waker = threading.Thread(target=_wake_main_thread, args=(reading, stop), name="signals", daemon=True)
    waker.start()
    try:
        yield stop
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        sys.unraisablehook = stop._show
        # The other thread sends signals to the handlers, so it ends before they go.
        signal.set_wakeup_fd(before_writing)
        stop.ended = True
        os.write(writing, _END)
        waker.join()
        os.close(writing)
        if not stop.asked:  # After a signal, the process ends. A second signal may still hurry it.
            for number, handler in before.items():
                signal.signal(number, handler)


def _wake_main_thread(reading: int, stop: Stop) -> None:
    """Wake the main thread after each signal, until it has noticed the signal.

    Python notices a signal only in the main thread, and not while this thread waits for a lock. The system interrupts
    the wait, but not if the signal came just before the wait began, or if another thread received the signal. Without
    this function, the command would then go on until the wait ends, which can take as long as a whole shard.

    Args:
        reading: pipe with a byte for each signal: its number. After `_END`, the function closes the pipe and returns.
        stop: object with the handlers of the signals.
    """
    with open(reading, "rb", buffering=0) as numbers:
        while (number := numbers.read(1)) != _END:
            stop.awake = number[0] not in SIGNALS
            while not (stop.awake or stop.ended):
                # The handlers of all signals that have come run together.
                signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGALRM)
                time.sleep(_WAKE_S)
