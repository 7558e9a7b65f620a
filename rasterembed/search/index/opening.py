"""Open the segments of a vector index. Every file is checked before its content is used."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rasterembed.errors import StoreError, one_line
from rasterembed.search.engines.codes import open_codes
from rasterembed.search.engines.engine import CodesEngine, IndexUnusableError, NoIndexReason
from rasterembed.search.index.arrow_file import map_arrow_file
from rasterembed.search.index.description import Segment, SegmentFile, VectorIndex, read_index
from rasterembed.search.index.local_files import checked_file, forget_old_downloads
from rasterembed.search.index.stored_rows import StoredRows, StoredVectors
from rasterembed.search.newest import open_newest
from rasterembed.search.row_selection import RowSelection
from rasterembed.search.vector_files import VectorFiles


@dataclass(frozen=True)
class OpenSegment:
    """A segment whose files are mapped. Several threads may use it."""

    rows: StoredRows
    """The rows and their vectors."""
    codes: CodesEngine
    """The engine with the codes of the vectors."""
    live: RowSelection | None
    """The rows that can be in an answer. None: all rows, because no scene was dropped."""


@dataclass(frozen=True)
class OpenIndex:
    """A vector index whose files are mapped. Several threads may use it."""

    description: VectorIndex
    """The content of `index.json`."""
    segments: tuple[OpenSegment, ...]
    """The segments, in the order in which they were built."""

    def close(self) -> None:
        """Release the codes. No thread may use the index any more."""
        for segment in self.segments:
            segment.codes.close()


def open_segments(files: VectorFiles) -> OpenIndex:
    """Open the vector index of some files. The index must have the vectors that the files have now.

    If a build replaces the index at the same time, the new index is opened.

    Args:
        files: the files whose vectors are in the index.

    Raises:
        IndexUnusableError: if there is no index, if it holds other vectors, if it is the database of the engine `vss`,
            or if a file cannot be read, is missing, damaged or foreign.
        StoreError: if the store refuses or does not answer when the description of the index is read.
    """

    def newer(old: VectorIndex) -> VectorIndex | None:
        found = read_index(files)
        return None if found == old else found

    return open_newest(read_index(files), lambda index: open_index(files, index), newer)


def open_index(files: VectorFiles, index: VectorIndex) -> OpenIndex:
    """Open the segments of a described index, which may hold other vectors than the files. See `open_segments`."""
    if index.engine == "vss":
        raise IndexUnusableError(NoIndexReason.OTHER_ENGINE, index.engine)
    segments: list[OpenSegment] = []
    try:
        for segment in index.segments:
            segments.append(_open_segment(files, index, segment))
        forget_old_downloads(files, index)
    except BaseException as error:
        OpenIndex(index, tuple(segments)).close()
        if isinstance(error, StoreError):
            raise IndexUnusableError(NoIndexReason.FAILED, one_line(error)) from error
        raise
    return OpenIndex(index, tuple(segments))


def _open_segment(files: VectorFiles, index: VectorIndex, segment: Segment) -> OpenSegment:
    """Open one segment of an index. See `open_segments` for the errors."""
    wanted = segment.rows * index.dimensions * np.dtype(segment.dtype).itemsize
    if segment.vectors_file.bytes != wanted:
        raise IndexUnusableError(NoIndexReason.FOREIGN_CONTENT)
    with checked_file(files, segment.vectors_file) as (path, _):
        vectors = StoredVectors.of_file(path, segment.rows, index.dimensions, segment.dtype)
    table = open_arrow_file(files, segment.rows_file, files.index_schema, segment.rows)
    live = _live_rows(table, segment)
    return OpenSegment(StoredRows(table, vectors), open_codes_of(files, index, segment), live)


def open_codes_of(files: VectorFiles, index: VectorIndex, segment: Segment) -> CodesEngine:
    """Open only the codes of a segment, after a check of their file.

    Args:
        files: the files whose vectors are in the index.
        index: the index.
        segment: a segment of the index.

    Raises:
        IndexUnusableError: if the file is missing, is damaged, or holds something else.
        StoreError: if the store refuses or does not answer.
    """
    with checked_file(files, segment.codes_file) as (path, known):
        return open_codes(path, segment.codes, segment.rows, index.dimensions, validate=not known)


def open_arrow_file(files: VectorFiles, file: SegmentFile, schema: pa.Schema, rows: int | None) -> pa.Table:
    """Map an Arrow file of an index, after a check of its content.

    Args:
        files: the files whose vectors are in the index.
        file: the Arrow file.
        schema: columns that the file must have.
        rows: number of rows that the file must have. None: any number.

    Raises:
        IndexUnusableError: if the file is missing, is damaged, or holds something else.
        StoreError: if the store refuses or does not answer.
    """
    with checked_file(files, file) as (path, known):
        return map_arrow_file(path, schema, rows, validate=not known)


def _live_rows(table: pa.Table, segment: Segment) -> RowSelection | None:
    """Return the rows of the scenes that were not dropped, or None if no scene was dropped."""
    if not segment.dropped:
        return None
    if "dataset_id" not in table.column_names:
        raise IndexUnusableError(NoIndexReason.FOREIGN_CONTENT)
    dropped = pc.is_in(table["dataset_id"], value_set=pa.array(segment.dropped, pa.string()))
    live = RowSelection.of_mask(~dropped.to_numpy())
    if live.count != segment.live_rows:
        raise IndexUnusableError(NoIndexReason.FOREIGN_CONTENT)
    return live
