"""Copies of the vectors that pass a filter, for filters that are used again.

The engines find the rows of a filter slowly if few rows pass. `flat` looks up every row of the segment in the
selection, and `ivf` reads nearly all lists. If the same filter is used again, the vectors of its rows are copied as
float16. A query is then compared with all copies. The answer is exact: see `rasterembed.search.engines.flat`.

If too many rows pass for that, the engine itself copies its codes of these rows, after more queries. See
`CodesEngine.copy_selected`.
"""

from __future__ import annotations

import threading
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from rasterembed.memory_cache import MemoryCache
from rasterembed.search.engines.engine import Candidates, CodesEngine, SelectedCodes
from rasterembed.search.engines.flat import Float16Codes, float16_codes
from rasterembed.search.index.stored_rows import BLOCK_ROWS, StoredVectors
from rasterembed.search.row_selection import RowSelection

_COPIES_BYTES = 128 * 2**20
"""Default memory limit of `RepeatedSelections`. The copy of a vector of 384 numbers takes 768 bytes, so a filter that
keeps 1 % of ten million rows fits."""

_LARGEST_SHARE = 1 / 32
"""Largest share of the rows of a segment that is copied. For more rows, an engine takes less than twice the time of an
answer without filters."""

_USES_OF_VECTORS = 2
"""Number of uses of a selection at which float16 copies of its vectors are made. To make them takes as long as some
queries."""

_USES_OF_CODES = 30
"""Number of uses of a selection at which an engine copies its codes. In a measurement with a tenth of a million rows,
`ivf` took 43 ms to copy them, and then 1.4 ms less for each query."""

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

    def candidates(self, queries: NDArray[np.float32], count: int, widening: int = 1) -> Candidates:
        """Return the selected rows that are nearest to each query. `widening` has no effect.

        See `CodesEngine.candidates`.
        """
        found = self._codes.candidates(queries, count, None)
        return Candidates(np.where(found.rows < 0, -1, self.selection.numbers[found.rows]), found.missed)


class RepeatedSelections:
    """Makes and keeps the copies for selections that are used again. Several threads may use one object.

    float16 copies are made at the second use of a selection, and copies of an engine's codes at the thirtieth. Copies
    that were dropped are made again after as many uses.

    Args:
        most_bytes: memory limit in bytes. The copies that were not used for the longest time are dropped. Larger copies
            are not made.
    """

    def __init__(self, most_bytes: int = _COPIES_BYTES) -> None:
        self._most_bytes = most_bytes
        self._lock = threading.Lock()
        self._uses: WeakKeyDictionary[RowSelection, int] = WeakKeyDictionary()
        self._copies = MemoryCache[SelectedCodes](most_bytes, lambda copies: copies.nbytes)

    @property
    def nbytes(self) -> int:
        """Largest number of bytes that the kept copies and their selections take in memory."""
        return self._copies.nbytes

    def copies(self, selection: RowSelection, vectors: StoredVectors, codes: CodesEngine) -> SelectedCodes | None:
        """Return the copies for a selection.

        Args:
            selection: the selected rows of a segment. Another object with the same rows is another selection.
            vectors: the stored vectors of this segment.
            codes: the engine of this segment.

        Returns:
            The copies. None if the selection has too many rows, or was not used often enough.

        Raises:
            IndexUnusableError: if the codes of the engine cannot be read.
        """
        kept = self._copies.get(selection)
        if kept is not None:
            return kept
        few = max(_ALWAYS_FEW, int(vectors.rows * _LARGEST_SHARE))
        if selection.count <= few and 2 * vectors.dimensions * selection.count + selection.nbytes <= self._most_bytes:
            if not self._is_due(selection, _USES_OF_VECTORS):
                return None
            return self._copies.get_or_build(selection, lambda: SelectedVectors(vectors, selection))
        made = codes.copy_selected(selection, self._most_bytes) if self._is_due(selection, _USES_OF_CODES) else None
        return None if made is None else self._copies.get_or_build(selection, lambda: made)

    def _is_due(self, selection: RowSelection, uses: int) -> bool:
        """Count a use of a selection. Return True if copies should be made now: once in so many uses.

        Args:
            selection: the selection.
            uses: number of uses from one True to the next.
        """
        with self._lock:
            self._uses[selection] = (self._uses.get(selection, 0) + 1) % uses
            return self._uses[selection] == 0
