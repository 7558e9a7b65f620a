"""A cache in memory with a limit in bytes. Search and explorer keep there what takes long to compute."""

from __future__ import annotations

import sys
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from rasterembed.shared_work import SharedWork

V = TypeVar("V")

ENTRY_BYTES = 1024
"""Smallest memory in bytes that an entry counts besides its value. It also limits the number of small values."""


class MemoryCache(Generic[V]):
    """Keeps the values that were used last. Several threads may use one cache at the same time.

    Args:
        most_bytes: memory limit in bytes. The values that were not used for the longest time are dropped until the
            limit holds. The latest value is kept even if it alone is larger.
        bytes_of: function that returns the memory of a value in bytes. The cache adds the memory of the key.

    Example:
        >>> cache = MemoryCache[bytes](10_000, len)
        >>> cache.get("a") is None, cache.get_or_build("a", lambda: b"picture"), cache.get("a")
        (True, b'picture', b'picture')
    """

    def __init__(self, most_bytes: int, bytes_of: Callable[[V], int]) -> None:
        self._most_bytes, self._bytes_of = most_bytes, bytes_of
        self._lock = threading.Lock()
        self._kept: OrderedDict[Hashable, tuple[V, int]] = OrderedDict()
        """The values and their bytes. The one that was used longest ago is the first."""
        self._builds = SharedWork[V]()
        self._bytes = 0

    @property
    def nbytes(self) -> int:
        """Memory of the kept values in bytes."""
        return self._bytes

    def get(self, key: Hashable) -> V | None:
        """Return a kept value, or None. A value that is being built is not waited for."""
        with self._lock:
            if key not in self._kept:
                return None
            self._kept.move_to_end(key)
            return self._kept[key][0]

    def get_or_build(self, key: Hashable, build: Callable[[], V]) -> V:
        """Return a value. If it is not kept, it is built: once, even if several threads ask for it.

        Args:
            key: name of the value. Equal keys must have equal values.
            build: function that returns the value. It is called without a lock, so it may use the cache for other keys.

        Raises:
            Exception: the error of `build`. All threads that wait for this value get it. The next call builds again.
        """
        value = self.get(key)
        return self._builds.do(key, lambda: self._build(key, build)) if value is None else value

    def _build(self, key: Hashable, build: Callable[[], V]) -> V:
        known = self.get(key)  # Another thread may have built the value after this one looked.
        if known is not None:
            return known
        value = build()
        size = self._bytes_of(value) + max(ENTRY_BYTES, _bytes_of_key(key))
        with self._lock:
            self._kept[key] = value, size
            self._bytes += size
            while self._bytes > self._most_bytes and len(self._kept) > 1:
                self._bytes -= self._kept.popitem(last=False)[1][1]
        return value


def _bytes_of_key(key: object) -> int:
    """Return the memory of a key in bytes. A key may hold the texts of a request, which are longer than its value."""
    inside = sum(map(_bytes_of_key, key)) if isinstance(key, tuple) else 0
    return sys.getsizeof(key) + inside
