"""Run a generator in a separate thread, two items ahead of its consumer."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

_T = TypeVar("_T")


def read_ahead(items: Generator[_T]) -> Generator[_T]:
    """Yield the items of a generator that runs in a separate thread.

    While the consumer works on one item, the thread prepares the next two items. The same thread closes the generator
    at the end, or when the consumer stops early, because GDAL's settings belong to the thread that opened the raster.

    Args:
        items: the generator to run. It must not yield None.

    Raises:
        Exception: any exception of the generator. It is raised when the consumer asks for the item that failed.
    """
    with ThreadPoolExecutor(1, thread_name_prefix="read-ahead") as thread:
        # Keep two requests in the queue. After the first, the thread begins the second at once, without the consumer.
        upcoming = deque(thread.submit(next, items, None) for _ in range(2))
        try:
            while (item := upcoming.popleft().result()) is not None:
                upcoming.append(thread.submit(next, items, None))
                yield item
        finally:
            for request in upcoming:
                request.cancel()
            thread.submit(items.close).result()
