"""A set of rows of a segment: the rows that pass the filters of a search. Selections are kept for later queries."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

_CACHE_BYTES = 128 * 2**20
"""Default memory limit of a `SelectionCache`. A selection of a million rows takes 0.1 MB, and 8 bytes for each selected
row after its row numbers were asked for."""


@dataclass(frozen=True, eq=False)
class RowSelection:
    """Some rows of a segment. Several threads may use one object.

    Example:
        >>> selection = RowSelection.of_mask(np.array([True, False, True]))
        >>> selection.count, selection.numbers.tolist()
        (2, [0, 2])
    """

    rows: int
    """Number of rows of the segment."""
    bitmap: NDArray[np.uint8]
    """One bit for each row, 1 if the row is selected, shape (ceil(rows / 8),). The lowest bit of a byte is the first
    row. FAISS' `IDSelectorBitmap` reads this form."""
    count: int
    """Number of selected rows."""

    @classmethod
    def of_mask(cls, mask: NDArray[np.bool_]) -> RowSelection:
        """Return the rows for which a mask is true.

        Args:
            mask: shape (rows,).
        """
        return cls(len(mask), np.packbits(mask, bitorder="little"), int(np.count_nonzero(mask)))

    @classmethod
    def of_numbers(cls, numbers: NDArray[np.integer], rows: int) -> RowSelection:
        """Return the rows with some row numbers.

        Args:
            numbers: row numbers, shape (n,), in any order. A number may occur more than once.
            rows: number of rows of the segment.

        Raises:
            IndexError: if a row number is not from 0 to `rows` - 1.
        """
        if len(numbers) and not 0 <= numbers.min() <= numbers.max() < rows:
            raise IndexError(f"a row number is not from 0 to {rows - 1}")
        mask = np.zeros(rows, bool)
        mask[numbers] = True
        return cls.of_mask(mask)

    @property
    def mask(self) -> NDArray[np.bool_]:
        """One boolean for each row, True if the row is selected, shape (rows,). It is computed anew at each access."""
        return np.unpackbits(self.bitmap, count=self.rows, bitorder="little").view(bool)

    @cached_property
    def numbers(self) -> NDArray[np.int64]:
        """Numbers of the selected rows, ascending, shape (count,)."""
        return np.flatnonzero(self.mask)

    @property
    def nbytes(self) -> int:
        """Largest number of bytes that this selection takes in memory."""
        return self.bitmap.nbytes + 8 * self.count


Selections = Sequence[RowSelection | None]
"""The selected rows of each segment of a vector index. None: all rows of the segment."""


class SelectionCache:
    """Keeps the selections of the last filters. People often ask several queries with the same filters.

    Several threads may use one cache. If two threads need the same selection at the same time, both may compute it.

    Args:
        most_bytes: memory limit in bytes. The selections that were not used for the longest time are dropped. A single
            set of selections above the limit is not kept.
    """

    def __init__(self, most_bytes: int = _CACHE_BYTES) -> None:
        self._most_bytes = most_bytes
        self._kept: OrderedDict[Hashable, Selections] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    @property
    def nbytes(self) -> int:
        """Largest number of bytes that the kept selections take in memory."""
        return self._bytes

    def get(self, key: Hashable, compute: Callable[[], Selections]) -> Selections:
        """Return the selections of some filters.

        Args:
            key: identifies the filters.
            compute: function that computes the selections if they are not kept.
        """
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        selections = compute()
        with self._lock:
            if key not in self._kept and _bytes_of(selections) <= self._most_bytes:
                self._kept[key] = selections
                self._bytes += _bytes_of(selections)
                while self._bytes > self._most_bytes:
                    self._bytes -= _bytes_of(self._kept.popitem(last=False)[1])
        return selections


def _bytes_of(selections: Selections) -> int:
    """Return the memory of some selections. Each takes at least 1 KiB, which also limits the number of small ones."""
    return 1024 + sum(selection.nbytes for selection in selections if selection is not None)
