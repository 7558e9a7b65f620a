"""Call a function for many items in several threads, with few items in memory at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

THREADS = 16
"""Number of calls at the same time. On S3, each call waits for a request."""

_WINDOW = 1024
"""Largest number of items that are taken at once. A STAC Item has 20 KB, and `Executor.map` would take all of them."""

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def map_threaded(function: Callable[[_Item], _Result], items: Iterable[_Item]) -> Iterator[_Result]:
    """Yield the result of the function for each item, in the order of the items.

    Args:
        function: function that several threads may call at the same time.
        items: the items. They are taken in portions, as the results are used.

    Example:
        >>> list(map_threaded(abs, [-1, 2, -3]))
        [1, 2, 3]
    """
    rest = iter(items)
    with ThreadPoolExecutor(THREADS, thread_name_prefix="scenes") as pool:
        while window := list(islice(rest, _WINDOW)):
            yield from pool.map(function, window)
