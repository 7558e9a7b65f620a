"""Copies of the vectors that pass a filter, for filters that few rows pass.

The engines find the rows of a filter slowly if few rows pass. `flat` looks up every row of the segment in the
selection, and `ivf` reads nearly all lists. If the same filter is used again, the vectors of its rows are copied as
float16. A query is then compared with all copies. The answer is exact: see `rasterembed.search.engines.flat`.
"""

from __future__ import annotations

import threading
from weakref import WeakSet

import numpy as np
from numpy.typing import NDArray

from rasterembed.memory_cache import MemoryCache
from rasterembed.search.engines.engine import Candidates
from rasterembed.search.engines.flat import Float16Codes, float16_codes
from rasterembed.search.index.stored_rows import BLOCK_ROWS, StoredVectors
from rasterembed.search.row_selection import RowSelection

_COPIES_BYTES = 128 * 2**20
"""Default memory limit of `RepeatedSelections`. The copy of a vector of 384 numbers takes 768 bytes, so a filter that
keeps 1 % of ten million rows fits."""

_LARGEST_SHARE = 1 / 32
"""Largest share of the rows of a segment that is copied. For more rows, an engine takes less than twice the time of an
answer without filters."""

_ALWAYS_FEW = 1024
"""Number of rows that are copied whatever their share is. They take a millisecond."""


class SelectedVectors:
    """Copies of the vectors of some rows of a segment. Several threads may use one object.

    Args:
        vectors: the stored vectors of the segment.
        selection: the selected rows.
    """

    def __init__(self, vectors: StoredVectors, selection: RowSelection) -> None:
        self.selection = selection
        """The selected rows."""
        codes = np.empty((selection.count, 2 * vectors.dimensions), np.uint8)
        for start in range(0, selection.count, BLOCK_ROWS):
            block = slice(start, start + BLOCK_ROWS)
            codes[block] = float16_codes(vectors.unit(selection.numbers[block]))
        self._codes = Float16Codes(codes)
        self.nbytes = codes.nbytes + selection.nbytes
        """Largest number of bytes that the copies and the selection take in memory."""

    def candidates(self, queries: NDArray[np.float32], count: int) -> Candidates:
        """Return the selected rows that are nearest to each query. See `CodesEngine.candidates`."""
        found = self._codes.candidates(queries, count, None)
        return Candidates(np.where(found.rows < 0, -1, self.selection.numbers[found.rows]), found.missed)


class RepeatedSelections:
    """Makes and keeps the copies for selections that are used again. Several threads may use one object.

    Copies are made when a selection is used for the second time, because to make them takes as long as some queries.

    Args:
        most_bytes: memory limit in bytes. The copies that were not used for the longest time are dropped. Larger copies
            are not made.
    """

    def __init__(self, most_bytes: int = _COPIES_BYTES) -> None:
        self._most_bytes = most_bytes
        self._lock = threading.Lock()
        self._seen: WeakSet[RowSelection] = WeakSet()
        self._copies = MemoryCache[SelectedVectors](most_bytes, lambda copies: copies.nbytes)

    @property
    def nbytes(self) -> int:
        """Largest number of bytes that the kept copies and their selections take in memory."""
        return self._copies.nbytes

    def copies(self, selection: RowSelection, vectors: StoredVectors) -> SelectedVectors | None:
        """Return the copies for a selection.

        Args:
            selection: the selected rows of a segment. Another object with the same rows is another selection.
            vectors: the stored vectors of this segment.

        Returns:
            The copies. None if the selection has too many rows, or is used for the first time.
        """
        few = max(_ALWAYS_FEW, int(vectors.rows * _LARGEST_SHARE))
        if selection.count > few or 2 * vectors.dimensions * selection.count + selection.nbytes > self._most_bytes:
            return None
        with self._lock:
            if selection not in self._seen:
                self._seen.add(selection)
                return None
        return self._copies.get_or_build(selection, lambda: SelectedVectors(vectors, selection))
