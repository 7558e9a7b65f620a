"""The inverted lists of the engine `ivf`, opened by FAISS, and copies of the selected rows of these lists.

With a selection, FAISS looks up every row of a list, and then reads the codes of the selected rows one by one. If a
tenth of the rows is selected, this takes as long as the comparison of all rows: the codes are far from each other in
memory. A copy of the lists with only the selected rows has their codes side by side.
"""

from __future__ import annotations

import math
from functools import cache, partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rasterembed.search.engines.codes_file import check_queries, faiss_errors
from rasterembed.search.engines.engine import Candidates, IndexUnusableError, NoIndexReason
from rasterembed.search.engines.ivf_file import copy_rows, open_faiss_index
from rasterembed.search.engines.workers import cores, run_all

if TYPE_CHECKING:
    from rasterembed.search.row_selection import RowSelection

_SHARED_ROWS = 40_000
"""Number of rows in the lists that a single query reads, from which several threads share the lists. Sharing costs
about 0.2 ms, which is the time for some thousand rows. A query with a filter that keeps a tenth of a million rows reads
49,000."""

_QUERIES_AT_ONCE = 1024
"""Largest number of queries in one call of FAISS."""


class OpenLists:
    """The inverted lists in the bytes of a file. Several threads may use one object.

    Args:
        file: the file's bytes, in the format that `rasterembed.search.engines.ivf_file` describes.
        lists: number of lists.
        rows: number of rows in the lists.
        row_numbers: the row numbers in the lists are from 0 to `row_numbers` - 1.

    Raises:
        IndexUnusableError: if FAISS cannot read the file.
    """

    def __init__(self, file: NDArray[np.uint8], lists: int, rows: int, row_numbers: int) -> None:
        # The index reads these bytes. They are kept as long as this object, and a running search keeps the object.
        self._file, self._index = file, open_faiss_index(file)
        self._lists, self._rows, self._row_numbers = lists, rows, row_numbers

    def candidates(
        self, queries: NDArray[np.float32], count: int, selection: RowSelection | None, probes: float
    ) -> Candidates:
        """Return the rows with the highest scores in the nearest lists. See `CodesEngine.candidates`.

        Args:
            queries: n vectors of length 1, shape (n, dimensions).
            count: number of rows for each query, at least 1.
            selection: the rows that may be returned. None: all rows of the lists.
            probes: number of lists to read. It is rounded up, and may be larger than the number of lists.

        Raises:
            IndexUnusableError: if a row number in the file is impossible, or if FAISS reports an error.
        """
        selected = self._rows if selection is None else selection.count
        count = min(count, selected)
        if count == 0:
            return Candidates(np.empty((len(queries), 0), np.int64), np.full(len(queries), np.inf, np.float32))
        rows, scores = self.search(queries, count, selection, min(self._lists, math.ceil(probes)))
        all_found = np.count_nonzero(rows >= 0, axis=1) == selected
        # If fewer rows were found than asked for, none of the read rows is missing.
        tied = np.where(all_found | (rows[:, -1] < 0), 0, np.count_nonzero(scores == scores[:, -1:], axis=1))
        return Candidates(rows, np.where(all_found, np.inf, -np.inf).astype(np.float32), tied)

    def search(
        self, queries: NDArray[np.float32], count: int, selection: RowSelection | None, probes: int
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Return the rows with the highest scores in a number of lists, and the scores.

        Args:
            queries: shape (n, dimensions).
            count: number of rows for each query.
            selection: the rows that may be returned. None: all rows of the lists.
            probes: number of lists to read.

        Returns:
            Both of shape (n, count). The row number is -1 where fewer rows were found.

        Raises:
            IndexUnusableError: if a row number in the file is impossible, or if FAISS reports an error.
        """
        check_queries(queries, self._index.d)
        if len(queries) == 1 and probes * self._rows >= _SHARED_ROWS * self._lists:
            rows, scores = self._search_shared(queries, count, selection, probes)
            return self._checked(rows), scores
        # The threads of the pool share the queries. A single query is answered in the calling thread.
        size = min(_QUERIES_AT_ONCE, math.ceil(len(queries) / max(2, cores())))
        tasks = [
            partial(self._search, queries[start : start + size], count, selection, probes)
            for start in range(0, len(queries), size)
        ]
        found = run_all(tasks)
        rows = np.concatenate([rows for rows, _ in found])
        return self._checked(rows), np.concatenate([scores for _, scores in found])

    def _checked(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return row numbers, and refuse those that the segment does not have."""
        if rows.min(initial=-1) < -1 or rows.max(initial=-1) >= self._row_numbers:
            raise IndexUnusableError(NoIndexReason.FOREIGN_CONTENT)
        return rows

    def _search_shared(
        self, query: NDArray[np.float32], count: int, selection: RowSelection | None, probes: int
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Answer a single query that reads many lists. The threads of the pool share the lists."""
        query = np.ascontiguousarray(query, np.float32)
        with faiss_errors():
            scores, lists = self._index.quantizer.search(query, probes)
        tasks = [
            partial(self._search_lists, query, count, selection, lists[:, part :: cores()], scores[:, part :: cores()])
            for part in range(min(cores(), probes))
        ]
        found = run_all(tasks)
        rows = np.concatenate([rows for rows, _ in found])
        scores = np.concatenate([scores for _, scores in found])
        order = np.lexsort((rows, -scores))[:count]
        return rows[order][None], scores[order][None]

    def _search_lists(
        self,
        query: NDArray[np.float32],
        count: int,
        selection: RowSelection | None,
        lists: NDArray[np.int64],
        list_scores: NDArray[np.float32],
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Return the rows with the highest scores in some lists, and the scores, both of shape (count,)."""
        import faiss

        lists, list_scores = np.ascontiguousarray(lists), np.ascontiguousarray(list_scores)
        rows, scores = np.empty(count, np.int64), np.empty(count, np.float32)
        numbers = [faiss.swig_ptr(array) for array in (lists, list_scores, scores, rows)]
        parameters = _parameters(selection, lists.shape[1])
        with faiss_errors():
            self._index.search_preassigned_c(1, faiss.swig_ptr(query), count, *numbers, False, parameters)
        return rows, scores

    def _search(
        self, queries: NDArray[np.float32], count: int, selection: RowSelection | None, probes: int
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        import faiss

        queries = np.ascontiguousarray(queries, np.float32)
        rows, scores = np.empty((len(queries), count), np.int64), np.empty((len(queries), count), np.float32)
        numbers = [faiss.swig_ptr(array) for array in (scores, rows)]
        with faiss_errors():
            self._index.search_c(len(queries), faiss.swig_ptr(queries), count, *numbers, _parameters(selection, probes))
        return rows, scores


class SelectedLists:
    """A copy of the inverted lists with only the selected rows. Several threads may use one object.

    It finds the rows that the lists find with the selection. The codes of the selected rows are side by side, so a
    query takes about as long as a query without a selection.

    Args:
        lists: the bytes of the lists in the file of the engine.
        header: the header of this file.
        selection: the selected rows.
        probes: number of lists that a query reads. See `OpenLists.candidates`.

    Raises:
        IndexUnusableError: if a row number in the file is impossible.
    """

    def __init__(
        self, lists: NDArray[np.uint8], header: NDArray[np.void], selection: RowSelection, probes: float
    ) -> None:
        self._probes = probes
        file = copy_rows(lists, header, selection.mask)
        self._open = OpenLists(file, len(header["sizes"][0]), selection.count, selection.rows)
        self.nbytes = len(file) + selection.nbytes
        """Largest number of bytes that the copy and the selection take in memory."""

    def candidates(self, queries: NDArray[np.float32], count: int, widening: int = 1) -> Candidates:
        """Return the selected rows that are nearest to each query by their codes. See `CodesEngine.candidates`."""
        return self._open.candidates(queries, count, None, self._probes * widening)


def _parameters(selection: RowSelection | None, probes: int) -> Any:
    """Return FAISS' parameters of a search. They use the memory of the selection."""
    import faiss

    if selection is None:
        return _parameters_of_all_rows(probes)
    selector = faiss.IDSelectorBitmap(len(selection.bitmap), faiss.swig_ptr(selection.bitmap))
    return faiss.SearchParametersIVF(nprobe=probes, sel=selector)


@cache
def _parameters_of_all_rows(probes: int) -> Any:
    """Return FAISS' parameters of a search without a selection. FAISS does not change them, so threads share them."""
    import faiss

    return faiss.SearchParametersIVF(nprobe=probes)
