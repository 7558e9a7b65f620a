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

import math
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rasterembed.search.engines.codes_file import check_queries, faiss_errors, map_file
from rasterembed.search.engines.engine import Candidates, CodesInfo, EngineName, IndexUnusableError, NoIndexReason
from rasterembed.search.engines.ivf_file import (
    Training,
    check_ivf_header,
    check_row_numbers,
    header_dtype,
    most_lists,
    open_faiss_index,
)
from rasterembed.search.engines.workers import cores, run_all

if TYPE_CHECKING:
    from rasterembed.search.row_selection import RowSelection

_SHARED_ROWS = 40_000
"""Number of rows in the lists that a single query reads, from which several threads share the lists. Sharing costs
about 0.2 ms, which is the time for some thousand rows. A query with a filter that keeps a tenth of a million rows reads
49,000."""

_QUERIES_AT_ONCE = 1024
"""Largest number of queries in one call of FAISS."""


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
        self._index = open_faiss_index(self._mapped)

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
        count = min(count, selected)
        if count == 0:
            return Candidates(np.empty((len(queries), 0), np.int64), np.full(len(queries), np.inf, np.float32))
        probes = min(self.info.lists, math.ceil(self.info.probes * widening * self._rows / selected))
        rows, scores = self._probe(queries, count, selection, probes)
        all_found = np.count_nonzero(rows >= 0, axis=1) == selected
        # If fewer rows were found than asked for, none of the read rows is missing.
        tied = np.where(all_found | (rows[:, -1] < 0), 0, np.count_nonzero(scores == scores[:, -1:], axis=1))
        return Candidates(rows, np.where(all_found, np.inf, -np.inf).astype(np.float32), tied)

    def probe(
        self, queries: NDArray[np.float32], count: int, selection: RowSelection | None, probes: int
    ) -> NDArray[np.int64]:
        """Return the rows with the highest scores in a number of lists, shape (n, count), -1 where fewer were found."""
        return self._probe(queries, count, selection, probes)[0]

    def _probe(
        self, queries: NDArray[np.float32], count: int, selection: RowSelection | None, probes: int
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Return the rows with the highest scores in a number of lists, and the scores, both of shape (n, count)."""
        check_queries(queries, self._index.d)
        if len(queries) == 1 and probes * self._rows >= _SHARED_ROWS * self.info.lists:
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

    def close(self) -> None:
        """Release the mapped file. A query that still runs in another thread keeps the file mapped until it ends."""
        del self._index, self._mapped, self._header

    def _checked(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return row numbers, and refuse those that the segment does not have."""
        if rows.min(initial=-1) < -1 or rows.max(initial=-1) >= self._rows:
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
        index, mapped = self._index, self._mapped
        with faiss_errors():
            index.search_preassigned_c(1, faiss.swig_ptr(query), count, *numbers, False, parameters)
        del mapped
        return rows, scores

    def _search(
        self, queries: NDArray[np.float32], count: int, selection: RowSelection | None, probes: int
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        import faiss

        queries = np.ascontiguousarray(queries, np.float32)
        rows, scores = np.empty((len(queries), count), np.int64), np.empty((len(queries), count), np.float32)
        parameters = _parameters(selection, probes)
        # The index reads the mapped file, which must not be released before the search ends.
        index, mapped = self._index, self._mapped
        with faiss_errors():
            index.search_c(
                len(queries), faiss.swig_ptr(queries), count, faiss.swig_ptr(scores), faiss.swig_ptr(rows), parameters
            )
        del mapped
        return rows, scores


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
