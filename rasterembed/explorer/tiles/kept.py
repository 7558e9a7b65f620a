"""A cache of objects with a limit in bytes."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Generic, Protocol, TypeVar

_ENTRY_BYTES = 1024
"""Memory of an entry besides its object, in bytes. It also limits the number of small objects."""


class _HasBytes(Protocol):
    @property
    def nbytes(self) -> int:
        """Memory in bytes."""


T = TypeVar("T", bound=_HasBytes)


class Kept(Generic[T]):
    """Keeps the objects that were used last. Several threads may use one cache.

    Args:
        most_bytes: memory limit in bytes. The last object is kept even if it alone is larger.
    """

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._kept: OrderedDict[str, T] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    @property
    def nbytes(self) -> int:
        """Memory of the kept objects in bytes."""
        return self._bytes

    def get(self, key: str) -> T | None:
        """Return a kept object, or None."""
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
            return self._kept.get(key)

    def add(self, key: str, value: T) -> None:
        """Keep an object. Those that were not used for the longest time are dropped until the limit holds."""
        with self._lock:
            if key in self._kept:
                return
            self._kept[key] = value
            self._bytes += value.nbytes + _ENTRY_BYTES
            while self._bytes > self._most_bytes and len(self._kept) > 1:
                self._bytes -= self._kept.popitem(last=False)[1].nbytes + _ENTRY_BYTES
