"""Search with the vector index if there is one, and with the exact scan otherwise.

A query of a vector index with segments has these steps:

1. The filters become row numbers of each segment. They are kept for the next query with the same filters.
2. The engine proposes candidates from its compressed vectors, only from these rows. If few rows pass a filter that was
   used before, float16 copies of their vectors propose the candidates.
3. The candidates are compared with the stored vectors, and brought into the order of distance and ids.
4. If the candidates may lack a row of the answer, the engine is asked for more. In the end, all rows that pass the
   filters are compared.
5. The tiles of the query are left out. As many more candidates were asked for.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from rasterembed.dataset.arrow_arrays import text_array
from rasterembed.errors import DataError, StoreError, UsageError, one_line
from rasterembed.memory_cache import MemoryCache
from rasterembed.search.answer import UsedEngine
from rasterembed.search.engines.engine import CANDIDATES, RECALL_GOAL, Candidates, IndexUnusableError, NoIndexReason
from rasterembed.search.filter_columns import FilterColumns
from rasterembed.search.filters import TileFilters
from rasterembed.search.index.description import read_index
from rasterembed.search.index.opening import OpenIndex, OpenSegment, open_segments
from rasterembed.search.index.stored_rows import unit_vectors
from rasterembed.search.query import EngineChoice
from rasterembed.search.rerank import Compared, compare_all, in_order, rerank
from rasterembed.search.row_selection import RowSelection, Selections, selections_bytes
from rasterembed.search.selected_vectors import RepeatedSelections
from rasterembed.search.vector_files import VectorFiles

if TYPE_CHECKING:
    from rasterembed.search.engines.vss import VssEngine

_CANDIDATES_FOR_ROW = 4
"""Number of candidates for each row of the answer, if this is more than `CANDIDATES`."""

_WIDENING = 4
"""Factor by which the number of candidates or of lists grows if the candidates may lack a row of the answer."""

_MOST_CANDIDATES = 65_536
"""Largest number of candidates. For more, it is faster to compare all rows."""

_SELECTIONS_BYTES = 128 * 2**20
"""Memory limit of the selections of the last filters. A selection of a million rows takes 0.1 MB, and 8 bytes for each
selected row after its row numbers were asked for."""


class SegmentSearch:
    """Searches the segments of a vector index. Several threads may use one object.

    Args:
        files: the files whose vectors are in the index.
        index: the index.
    """

    def __init__(self, files: VectorFiles, index: OpenIndex) -> None:
        self.index = index
        self._files = files
        self._columns = [FilterColumns(files.name, segment.rows.table, segment.live) for segment in index.segments]
        self._selections = MemoryCache[Selections](_SELECTIONS_BYTES, selections_bytes)
        self._copies = RepeatedSelections()
        self._names = tuple(files.column_names)
        self._identity = files.identity
        # The lattice decides which rows are left out if one scene of each tile is picked.
        self._read_names = (*self._names, "lattice") if files.of_collection else self._names
        self.used = _used(files, index)
        """Description of the index, for answers."""

    @property
    def nbytes(self) -> int:
        """Memory in bytes, without the mapped files."""
        kept = self._selections.nbytes + self._copies.nbytes
        return kept + sum(columns.nbytes for columns in self._columns)

    def nearest(self, vector: NDArray[np.float32], k: int, filters: TileFilters) -> list[dict[str, Any]]:
        """Return the rows of the k nearest tiles that pass the filters. See `IndexedSearch.nearest`."""
        needed = k + filters.excluded_count
        selections = self._selections.get_or_build(filters.key, lambda: self._select(filters))
        found: list[Compared] = []
        for segment, selection in zip(self.index.segments, selections, strict=True):
            found.append(_nearest_of_segment(segment, vector, needed, selection, self._copies, found))
        rows = self._rows(found, needed)
        if filters.excluded_count:
            excluded = filters.excluded_rows(rows, self._columns)
            rows = [row for row, is_excluded in zip(rows, excluded, strict=True) if not is_excluded]
        rows = rows[:k]
        if self._files.of_collection:
            for row in rows:
                del row["lattice"]
        return rows

    def find(self, tile_id: str) -> tuple[dict[str, Any], NDArray[np.float32]] | None:
        """Return the row of a tile of a dataset and its stored vector, or None if the index has no such tile.

        Args:
            tile_id: id of the tile.

        Returns:
            The columns `VectorFiles.index_schema` without the footprint, and the vector, shape (dimensions,). A vector
            of int8 has any length.
        """
        for segment in self.index.segments:
            number = pc.index(segment.rows.table["tile_id"], text_array([tile_id])[0]).as_py()
            if number >= 0:
                names = tuple(name for name in self._names if name != "geometry")
                (row,) = segment.rows.values(np.array([number]), names)
                return row, segment.rows.vectors.values[number : number + 1][0].astype(np.float32)
        return None

    def _select(self, filters: TileFilters) -> Selections:
        """Return the rows of each segment that pass the filters, without the rows of dropped scenes."""
        selections = zip(filters.select(self._columns), self.index.segments, strict=True)
        return [segment.live if selection is None else selection for selection, segment in selections]

    def _rows(self, found: Sequence[Compared], needed: int) -> list[dict[str, Any]]:
        """Return the nearest of the rows that were found in all segments, in the order of the answer.

        The rows have the columns `distance` and `self._read_names`.
        """
        distances = np.concatenate([compared.distances for compared in found])
        limit = _limit(distances, needed)
        kept = [compared.rows[compared.distances <= limit] for compared in found]
        distances = distances[distances <= limit]
        if len(distances) > 2 * needed:
            # Many rows are equally far away. Only the ids of all of them are read.
            ordered = in_order(self._names_of(kept), distances, self._identity, needed)
            numbers, rows = ordered["segment"].to_numpy(), ordered["number"].to_numpy()
            order = np.argsort(numbers, kind="stable")
            kept = [rows[order][numbers[order] == number] for number in range(len(kept))]
            distances = ordered["distance"].to_numpy()[order]
        parts = zip(self.index.segments, kept, strict=True)
        values = chain.from_iterable(segment.rows.values(numbers, self._read_names) for segment, numbers in parts)
        rows = [row | {"distance": distance} for row, distance in zip(values, distances.tolist(), strict=True)]
        keys = ("distance", *self._identity)
        rows.sort(key=lambda row: [row[key] for key in keys])
        return rows[:needed]

    def _names_of(self, kept: Sequence[NDArray[np.int64]]) -> pa.Table:
        """Return the ids of some rows of each segment, one segment after the other.

        The columns `segment` and `number` have the number of the segment and of the row.

        Args:
            kept: row numbers of each segment.
        """
        parts = []
        for number, (segment, rows) in enumerate(zip(self.index.segments, kept, strict=True)):
            part = segment.rows.take(rows, self._identity)
            part = part.append_column("segment", pa.array(np.full(len(rows), number, np.int32)))
            parts.append(part.append_column("number", pa.array(rows)))
        return pa.concat_tables(parts)

    def close(self) -> None:
        """Release the mapped files. No thread may use the index any more."""
        self.index.close()


def _used(files: VectorFiles, index: OpenIndex) -> UsedEngine:
    """Return the description of an index with segments, for answers."""
    description = index.description
    if description.engine == "flat":
        settings, recall = "exact, compared with the stored vectors", None
    else:
        parts = {f"{segment.codes.info.probes} of {segment.codes.info.lists} lists" for segment in index.segments}
        measured = f"recall@{description.recall_at} {description.recall:.3f} when built"
        settings, recall = f"{' and '.join(sorted(parts))}, {measured}", description.recall
    return UsedEngine(dataset_id=files.owner_id, name=description.engine, settings=settings, recall=recall)


def _nearest_of_segment(
    segment: OpenSegment,
    vector: NDArray[np.float32],
    needed: int,
    selection: RowSelection | None,
    copies: RepeatedSelections,
    others: Sequence[Compared],
) -> Compared:
    """Return rows of a segment with their distances. The rows of the answer are among them.

    Args:
        segment: the segment.
        vector: the query, shape (dimensions,).
        needed: number of rows that are needed from all segments together.
        selection: the rows that may be returned. None: all rows.
        copies: copies of the vectors of selections.
        others: rows that were found in other segments.

    Raises:
        IndexUnusableError: if a stored vector is not finite, or if a row number in the codes is impossible.
    """
    available = segment.rows.vectors.rows if selection is None else selection.count
    if available == 0:
        return Compared(np.empty(0, np.int64), np.empty(0))
    propose = _proposer(segment, vector, needed, selection, copies)
    if propose is not None:
        known = np.concatenate([np.empty(0), *(compared.distances for compared in others)])
        candidates = _enough_candidates(segment, vector, needed, available, propose, known)
        if candidates is not None:
            return _finite(candidates)
    compared = compare_all(vector, segment.rows.vectors, selection, needed)
    if len(compared.rows) < min(needed, available):
        raise IndexUnusableError(NoIndexReason.FOREIGN_CONTENT)  # Vectors that are not finite are left out.
    return _finite(compared)


def _proposer(
    segment: OpenSegment,
    vector: NDArray[np.float32],
    needed: int,
    selection: RowSelection | None,
    copies: RepeatedSelections,
) -> Callable[[int, int], Candidates] | None:
    """Return a function that proposes candidates for a query.

    Its arguments are the number of candidates, and how many times as many lists as usual are read. See
    `_nearest_of_segment` for the other arguments.

    Returns:
        The function. None if it is faster to compare all rows.
    """
    available = segment.rows.vectors.rows if selection is None else selection.count
    unit = unit_vectors(vector[None])
    if selection is not None and available > max(needed, CANDIDATES):
        selected = copies.copies(selection, segment.rows.vectors, segment.codes)
        if selected is not None:
            return lambda count, widening: selected.candidates(unit, count, widening)
    if available > max(needed, segment.codes.direct_rows):
        return lambda count, widening: segment.codes.candidates(unit, count, selection, widening)
    return None


def _enough_candidates(
    segment: OpenSegment,
    vector: NDArray[np.float32],
    needed: int,
    available: int,
    propose: Callable[[int, int], Candidates],
    known: NDArray[np.float64],
) -> Compared | None:
    """Return candidates of the engine with their distances. The rows of the answer are among them.

    The engine is asked for more candidates, or to read more lists, until no other row can be in the answer.

    Args:
        segment: the segment.
        vector: the query, shape (dimensions,).
        needed: number of rows that are needed from all segments together.
        available: number of rows that may be returned.
        propose: a function of `_proposer`.
        known: distances of the rows that were found in other segments, shape (n,).

    Returns:
        The candidates. None if all rows must be compared.
    """
    count, widening = max(CANDIDATES, _CANDIDATES_FOR_ROW * needed), 1
    recall = segment.codes.info.recall
    if recall is not None and recall < RECALL_GOAL:
        # The codes are too coarse to tell the nearest vectors apart, so more of them are compared.
        count *= _WIDENING
    while count <= _MOST_CANDIDATES:
        proposed = propose(min(count, available), widening)
        compared = rerank(vector, segment.rows.vectors, proposed.rows[0][proposed.rows[0] >= 0])
        limit = _limit(np.concatenate([known, compared.distances]), needed)
        if proposed.tied is None:
            if limit < proposed.missed[0]:
                return compared
            count *= _WIDENING
        elif len(compared.rows) >= min(count, available):
            # Rows with equal vectors have equal codes. Their ids decide which of them are in the answer.
            tied = compared.distances[len(compared.rows) - proposed.tied[0] :]
            if limit < tied.min(initial=np.inf):
                return compared
            count *= _WIDENING
        elif widening < segment.codes.info.lists:
            widening *= _WIDENING
        else:
            return None
    return None


def _finite(compared: Compared) -> Compared:
    """Return the rows, after a check of their distances. A build refuses vectors that are not finite.

    Raises:
        IndexUnusableError: if a stored vector is not finite.
    """
    if not np.isfinite(compared.distances).all():
        raise IndexUnusableError(NoIndexReason.FOREIGN_CONTENT)
    return compared


def _limit(distances: NDArray[np.float64], count: int) -> float:
    """Return the largest of the `count` smallest distances. It is infinite if there are fewer distances."""
    return float(np.partition(distances, count - 1)[count - 1]) if len(distances) >= count else np.inf


class IndexedSearch:
    """Chooses between the vector index and the exact scan of one `VectorFiles`, for each query.

    Several threads may use one object.

    Args:
        files: the files that are searched.
        engine: the engine that the user chose. `auto` uses the vector index if there is one.
        ef_search: number of candidates in a search of the engine `vss`. None means the default of the index.

    Raises:
        UsageError: if `ef_search` is given and the engine is not `vss`.
    """

    def __init__(self, files: VectorFiles, engine: EngineChoice, ef_search: int | None) -> None:
        check_engine(engine, ef_search)
        self.segments: SegmentSearch | None = None
        """The index of the engine `flat` or `ivf`. None if it is not used."""
        self.vss: VssEngine | None = None
        """The index of the engine `vss`. None if it is not used."""
        self._files = files
        self._lock = threading.Lock()
        self._no_index, self._detail = NoIndexReason.SCAN_REQUESTED, ""
        if engine != "scan":
            try:
                self._open(engine, ef_search)
            except IndexUnusableError as error:
                self._no_index, self._detail = error.reason, error.detail
            except StoreError as error:
                self._no_index, self._detail = NoIndexReason.FAILED, one_line(error)

    def _open(self, engine: EngineChoice, ef_search: int | None) -> None:
        built_for = read_index(self._files).engine
        if engine not in ("auto", built_for):
            raise IndexUnusableError(NoIndexReason.OTHER_ENGINE, built_for)
        self._no_index = NoIndexReason.UNDECIDED
        if built_for == "vss":
            from rasterembed.search.engines.vss import VssEngine  # It imports DuckDB, which takes long.

            self.vss = VssEngine(self._files, ef_search)
        else:
            self.segments = SegmentSearch(self._files, open_segments(self._files))

    @property
    def nbytes(self) -> int:
        """Memory of the index in bytes, without the mapped files."""
        segments, vss = self.segments, self.vss
        return (0 if segments is None else segments.nbytes) + (0 if vss is None else vss.nbytes)

    def nearest(
        self, vector: NDArray[np.float32], k: int, filters: TileFilters, scan: Callable[[], pa.Table]
    ) -> tuple[list[dict[str, Any]], UsedEngine]:
        """Return the rows of the k nearest tiles that pass the filters, and the engine that found them.

        The vector index is asked first. The exact scan is used if there is no index, if the index fails, or if the
        engine `vss` is not sure of its result. An index that failed is not used again.

        Args:
            vector: the query, shape (dimensions,).
            k: largest number of rows.
            filters: filters for the tiles.
            scan: function that returns the result of the exact scan.

        Returns:
            For each row, its values by name: the columns `VectorFiles.columns` and `distance`. The rows are in the
            order that `SearchEngine.nearest` describes.

        Raises:
            DataError: if a file cannot be read.
        """
        if vector.shape != (self._files.dimensions,):  # The vector of an example can come from a damaged file.
            raise DataError(
                f"{self._files.name}: the vector of the query has {vector.size} numbers, and those of the tiles have "
                f"{self._files.dimensions}: {self._files.advice}"
            )
        segments = self.segments
        if segments is not None:
            try:
                return segments.nearest(vector, k, filters), segments.used
            except IndexUnusableError as error:
                # Other threads may still read the mapped files. They are released when no thread uses them.
                with self._lock:
                    self.segments, self._no_index, self._detail = None, error.reason, error.detail
        # One thread at a time uses the database of `vss`. With DuckDB 1.5.5, several threads end the process by a
        # segmentation fault, also if each has its own cursor.
        with self._lock:
            if self.vss is not None:
                try:
                    rows = self.vss.nearest(vector, k, filters)
                except IndexUnusableError as error:
                    self.vss.close()
                    self.vss, self._no_index, self._detail = None, error.reason, error.detail
                else:
                    if rows is not None:
                        return rows.to_pylist(), UsedEngine(
                            dataset_id=self._files.owner_id,
                            name=self.vss.name,
                            settings=self.vss.settings,
                            recall=self.vss.recall,
                        )
            no_index, detail = self._no_index, self._detail
        rows = scan().to_pylist()
        return rows, UsedEngine(dataset_id=self._files.owner_id, name="scan", no_index=no_index, detail=detail)

    def close(self) -> None:
        """Release the memory of the index. A second call does nothing."""
        with self._lock:
            segments, vss = self.segments, self.vss
            self.segments = self.vss = None
        if segments is not None:
            segments.close()
        if vss is not None:
            vss.close()


def check_engine(engine: EngineChoice, ef_search: int | None) -> None:
    """Refuse `ef_search` for all engines but `vss`.

    Raises:
        UsageError: if `ef_search` is given and the engine is another one.
    """
    if ef_search is not None and engine != "vss":
        raise UsageError(
            f"`ef_search` is a setting of the engine vss, and the engine is {engine}: give `engine=vss` too"
        )
