"""A set of rows of a segment: the rows that pass the filters of a search."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray


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


def selections_bytes(selections: Selections) -> int:
    """Return the largest number of bytes that some selections take in memory."""
    return sum(selection.nbytes for selection in selections if selection is not None)
