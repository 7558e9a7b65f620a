"""Bring the rows of an index with several segments into the order of the table, without a copy of the vectors."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from rasterembed.errors import Access, os_errors
from rasterembed.search.index.arrow_file import arrow_file, map_arrow_file
from rasterembed.search.index.opening import OpenIndex
from rasterembed.search.index.stored_rows import JoinedValues, StoredRows, StoredVectors

_IDENTITY = ["dataset_id", "tile_id"]


def join_segments(
    index: OpenIndex, ready: pa.Array, batches: Iterable[pa.RecordBatch], schema: pa.Schema, path: Path
) -> StoredRows | None:
    """Return the rows of the table of a collection, with the vectors in the files of the index.

    The rows are copied into a file. The vectors are not: they take several times as much space.

    Args:
        index: the index of the table. It must stay open as long as the rows are used.
        ready: ids of the scenes whose rows are in the batches.
        batches: the rows of these scenes, in the order of the table.
        schema: columns of the rows, with `dataset_id` and `tile_id`.
        path: file for the rows. An existing file is replaced.

    Returns:
        The rows, or None if the index does not have exactly these rows.

    Raises:
        StoreError: if the disk is full.
    """
    if len({segment.rows.vectors.values.dtype for segment in index.segments}) != 1:
        return None
    places = _Places(index, ready)
    part, row = [], []
    with os_errors(str(path), Access.WRITE), arrow_file(path, schema) as rows:
        for batch in batches:
            found = places.find(batch)
            if found is None:
                return None
            part.append(found[0])
            row.append(found[1])
            rows.write(pa.table(batch.select(schema.names)))
    if not part or not places.all_found:
        return None
    values = JoinedValues(
        [segment.rows.vectors.values[:] for segment in index.segments], np.concatenate(part), np.concatenate(row)
    )
    return StoredRows(map_arrow_file(path, schema, len(values), validate=False), StoredVectors(values))


class _Places:
    """Finds the rows of the table in the segments. A segment has its rows in the order of the table.

    Args:
        index: the index.
        ready: ids of the scenes whose rows are looked for.
    """

    def __init__(self, index: OpenIndex, ready: pa.Array) -> None:
        self._segments = index.segments
        self._numbers: list[NDArray[np.int64]] = []
        """For each segment, the row numbers that are looked for."""
        self._used = [0] * len(index.segments)
        """For each segment, how many of these rows were found."""
        scenes, segment_of_scene = [], []
        for number, segment in enumerate(index.segments):
            column = segment.rows.table["dataset_id"]
            mask = pc.is_in(column, ready).to_numpy()
            if segment.live is not None:
                mask = mask & segment.live.mask
            self._numbers.append(np.flatnonzero(mask))
            scenes.append(pc.unique(column.filter(pa.array(mask))))
            segment_of_scene.append(np.full(len(scenes[-1]), number, np.uint8))
        self._scenes, self._segment_of_scene = pa.concat_arrays(scenes), np.concatenate(segment_of_scene)

    def find(self, batch: pa.RecordBatch) -> tuple[NDArray[np.uint8], NDArray[np.int64]] | None:
        """Return the segment and the row number of each row of a batch. None if a row is not where it must be."""
        scene = pc.index_in(batch.column("dataset_id"), self._scenes)
        if scene.null_count:
            return None
        part = self._segment_of_scene[scene.to_numpy()]
        row = np.empty(len(batch), np.int64)
        for number, segment in enumerate(self._segments):
            here = np.flatnonzero(part == number)
            start = self._used[number]
            self._used[number] += len(here)
            found = self._numbers[number][start : self._used[number]]
            if len(found) != len(here):
                return None
            ids, wanted = segment.rows.take(found, _IDENTITY), pa.table(batch.select(_IDENTITY)).take(pa.array(here))
            if not all(ids[name].equals(wanted[name]) for name in _IDENTITY):
                return None
            row[here] = found
        return part, row

    @property
    def all_found(self) -> bool:
        """Whether all rows that are looked for were found."""
        return self._used == [len(numbers) for numbers in self._numbers]
