"""Work that is repeated in a thread while something else runs."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import copy_context


@contextmanager
def repeated(action: Callable[[], object], every_s: float) -> Iterator[None]:
    """Call a function in a thread again and again, until the end of the block.

    Args:
        action: the function. It has the context variables of the caller.
        every_s: seconds before the first call, and between two calls.
    """
    ended = threading.Event()

    def follow() -> None:
        while not ended.wait(every_s):
            action()

    thread = threading.Thread(target=copy_context().run, args=(follow,), name="progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
