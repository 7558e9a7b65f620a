"""Engine `ivf`: the query is compared with the 8-bit copies of the vectors in the nearest inverted lists.

k-means divides the vectors into lists: each vector is in the list whose centroid is nearest. A query reads only the
lists of the centroids nearest to it, its probes. FAISS trains, encodes and compares. The answer is approximate, because
a near vector can be in a list that is not read. The number of probes is therefore measured at each build.

k-means gives other centroids on another processor, because rounding differs. The neighbours that are found can then
differ. The distances of an answer do not: the caller computes them from the stored vectors. On one machine, the same
vectors always give the same file.

A new segment of the same index uses the centroids of the first segment. The codes have the same size whatever their
list is, so only the balance of the lists can become worse: see `CodesInfo.imbalance`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from rasterembed.search.engines.codes_file import map_file
from rasterembed.search.engines.engine import Candidates, CodesInfo, EngineName, IndexUnusableError, NoIndexReason
from rasterembed.search.engines.ivf_file import (
    Training,
    check_ivf_header,
    check_row_numbers,
    header_dtype,
    most_lists,
)
from rasterembed.search.engines.ivf_lists import OpenLists, SelectedLists

if TYPE_CHECKING:
    from rasterembed.search.row_selection import RowSelection

_LARGEST_COPIED_SHARE = 1 / 8
"""Largest share of the rows of a segment that is copied. With more rows, an answer takes less than twice the time of an
answer without filters."""


class IvfEngine:
    """Compares queries with the 8-bit copies of the vectors in the nearest lists. Several threads may use one engine.

    Args:
        path: file of `write_ivf`.
        info: description of the codes.
        rows: number of rows of the segment.
        dimensions: length of a vector.
        validate: whether all row numbers in the file are checked.

    Raises:
        IndexUnusableError: if the file does not fit these values.
    """

    name: EngineName = "ivf"

    def __init__(self, path: Path, info: CodesInfo, rows: int, dimensions: int, *, validate: bool = True) -> None:
        self.info = info
        self._rows = rows
        if info.lists > most_lists(dimensions):
            raise IndexUnusableError(NoIndexReason.FOREIGN_CONTENT)
        head = header_dtype(info.lists, dimensions)
        self._mapped = map_file(path, head.itemsize + rows * (dimensions + 8))
        found = self._mapped[: head.itemsize]
        self._header = check_ivf_header(found, rows, info.lists, dimensions)
        if validate:
            check_row_numbers(self._mapped[head.itemsize :], self._header["sizes"][0], dimensions)
        self._open = OpenLists(self._mapped, info.lists, rows, rows)

    @property
    def direct_rows(self) -> int:
        """See `CodesEngine.direct_rows`.

        For few selected rows, nearly all lists are read. FAISS then needs about 4 ns for each row of the segment, to
        look it up in the selection. The comparison of a stored vector of 384 numbers takes about 2 µs.
        """
        return max(1000, self._rows // 500)

    @property
    def training(self) -> Training:
        """The centroids and ranges, for a new segment of the same index."""
        return Training(self._header["centroids"][0].copy(), self._header["ranges"][0].copy())

    def candidates(
        self, queries: NDArray[np.float32], count: int, selection: RowSelection | None, widening: int = 1
    ) -> Candidates:
        """Return the rows with the highest scores in the nearest lists. See `CodesEngine.candidates`.

        With a selection, the number of probes grows as the share of selected rows shrinks. A query thus compares about
        as many rows as a query without a selection. In a measurement with 200,000 clustered vectors, a tenth of them in
        one direction was selected. Ten times the probes found all of the ten nearest, and three times found 94 %.

        Raises:
            IndexUnusableError: if a row number in the file is impossible, or if FAISS reports an error.
        """
        selected = self._rows if selection is None else selection.count
        return self._open.candidates(queries, count, selection, widening * self._probes(selected))

    def probe(
        self, queries: NDArray[np.float32], count: int, selection: RowSelection | None, probes: int
    ) -> NDArray[np.int64]:
        """Return the rows with the highest scores in a number of lists, shape (n, count), -1 where fewer were found."""
        return self._open.search(queries, count, selection, probes)[0]

    def copy_selected(self, selection: RowSelection, most_bytes: int) -> SelectedLists | None:
        """See `CodesEngine.copy_selected`."""
        lists = self._mapped[self._header.itemsize :]
        size = self._header.itemsize + selection.count * len(lists) // self._rows + selection.nbytes
        if size > most_bytes or selection.count > self._rows * _LARGEST_COPIED_SHARE:
            return None
        return SelectedLists(lists, self._header, selection, self._probes(selection.count))

    def _probes(self, selected: int) -> float:
        """Return the number of lists that a query reads if a number of rows is selected."""
        return self.info.probes * self._rows / max(1, selected)

    def close(self) -> None:
        """Release the mapped file. A query that still runs in another thread keeps the file mapped until it ends."""
        del self._open, self._mapped, self._header
