"""Run a generator in a thread of its own, a little ahead of its consumer."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

_T = TypeVar("_T")


def read_ahead(items: Generator[_T]) -> Generator[_T]:
    """Yield the items of a generator that runs in a thread of its own.

    While the consumer works on one item, the thread prepares the next two. The thread also closes the generator, when
    it ends or when the consumer stops early: GDAL's settings belong to the thread that opened the raster.

    Args:
        items: the generator to run; it must not yield None.

    Raises:
        Exception: whatever the generator raises, at the item where it was raised.
    """
    with ThreadPoolExecutor(1, thread_name_prefix="read-ahead") as thread:
        # With two requests in its queue the thread starts on the second at once when the first is done.
        upcoming = deque(thread.submit(next, items, None) for _ in range(2))
        try:
            while (item := upcoming.popleft().result()) is not None:
                upcoming.append(thread.submit(next, items, None))
                yield item
        finally:
            for request in upcoming:
                request.cancel()
            thread.submit(items.close).result()
