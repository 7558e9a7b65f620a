"""Write a segment: its rows, its vectors, the engine's codes of them, and the list of its scenes."""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import IO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from rasterembed.dataset.geoparquet import PARQUET_ERRORS
from rasterembed.dataset.selection import VectorDtype
from rasterembed.dataset.vector_column import EMBEDDING, VECTOR_TYPES
from rasterembed.errors import DataError, one_line
from rasterembed.number_text import counted
from rasterembed.search.engines.codes import CodesParameters, write_codes
from rasterembed.search.index.arrow_file import arrow_file
from rasterembed.search.index.description import Segment, SegmentFile
from rasterembed.search.index.stored_rows import StoredVectors
from rasterembed.search.vector_files import VectorFiles
from rasterembed.store.layout import IndexFileKind, new_index_file_name
from rasterembed.store.local_file import LocalFile, local_file

SCENES_SCHEMA = pa.schema(
    [
        pa.field("dataset_id", pa.string(), nullable=False),
        pa.field("digest", pa.string(), nullable=False),
        pa.field("rows", pa.int64(), nullable=False),
    ]
)
"""Columns of the scenes file of a segment: the scene, the digest of its state, and its number of rows."""

_DTYPES = {element: name for name, element in VECTOR_TYPES.items()}
"""Type of the vectors, by the Arrow type of the stored numbers."""


def write_segment(
    files: VectorFiles, parameters: CodesParameters, scenes: Mapping[str, str] | None, rows: int
) -> Segment:
    """Write a new segment into the folder of the index. The memory does not grow with the number of rows.

    Args:
        files: the files with the vectors.
        parameters: the engine of the codes, and its parameters.
        scenes: digests of the scenes whose rows belong into the segment, by dataset id. None: all rows, and the segment
            gets no list of scenes.
        rows: number of rows that the segment must get.

    Raises:
        DataError: if a file cannot be read, or if it has other rows than its description says.
        StoreError: if the disk is full, or if the store refuses.
    """
    build = uuid.uuid4().hex[:8]
    made: dict[IndexFileKind, tuple[str, LocalFile]] = {}
    with ExitStack() as stack:

        def new(kind: IndexFileKind) -> Path:
            name = new_index_file_name(kind, files.digest, build)
            file = local_file(files.store, files.layout.vector_index_file(name), replace=True)
            made[kind] = name, stack.enter_context(file)
            return made[kind][1].path

        vectors_path, codes_path = new("vectors"), new("codes")
        chosen = None if scenes is None or rows == files.rows else frozenset(scenes)
        counts, dtype = _write_rows(files, chosen, new("rows"), vectors_path)
        if counts.total() != rows:
            raise DataError(f"{files.name}: its files have {counts.total()} of {counted(rows, 'row')}: {files.advice}")
        if scenes is not None:
            _write_scenes(new("scenes"), scenes, counts)
        codes = write_codes(StoredVectors.of_file(vectors_path, rows, files.dimensions, dtype), codes_path, parameters)
    written = {kind: SegmentFile(name=name, bytes=file.size, sha256=file.sha256) for kind, (name, file) in made.items()}
    return Segment(
        rows=rows,
        dtype=dtype,
        rows_file=written["rows"],
        vectors_file=written["vectors"],
        codes_file=written["codes"],
        scenes_file=written.get("scenes"),
        codes=codes,
    )


def _write_scenes(path: Path, scenes: Mapping[str, str], counts: Counter[str | None]) -> None:
    """Write the scenes file of a segment. A scene without rows is not in it."""
    ids = sorted(name for name in scenes if counts[name])
    columns = [ids, [scenes[name] for name in ids], [counts[name] for name in ids]]
    with arrow_file(path, SCENES_SCHEMA) as target:
        target.write(pa.table(columns, schema=SCENES_SCHEMA))


def _write_rows(
    files: VectorFiles, scenes: frozenset[str] | None, rows_path: Path, vectors_path: Path
) -> tuple[Counter[str | None], VectorDtype]:
    """Write the rows file and the vectors file.

    Returns:
        The number of rows of each scene, and the type of the vectors. The rows of a dataset are counted under None.
    """
    counts: Counter[str | None] = Counter()
    dtype: VectorDtype | None = None
    schema = files.index_schema
    with arrow_file(rows_path, schema) as target, vectors_path.open("wb") as vectors:
        for key in files.keys:
            for batch in _read(files, key, scenes):
                try:
                    target.write(batch.select(schema.names))
                    dtype = _write_vectors(vectors, batch[EMBEDDING], files.dimensions)
                except (pa.ArrowException, ValueError) as error:
                    raise _unreadable(files, key, error) from error
                counts.update(batch["dataset_id"].to_pylist() if files.of_collection else {None: len(batch)})
    return counts, dtype or "float32"


def _read(files: VectorFiles, key: str, scenes: frozenset[str] | None) -> Iterator[pa.Table]:
    """Yield the rows of a Parquet file that belong to some scenes, or all rows. One row group is in memory at a time.

    A row group without such rows is not read, except for its column `dataset_id`.
    """
    columns = [*files.index_schema.names, EMBEDDING]
    wanted = None if scenes is None else pa.array(sorted(scenes), pa.string())
    with files.store.open(key) as file:
        try:
            parquet = pq.ParquetFile(file)
            for number in range(parquet.num_row_groups):
                if wanted is None:
                    yield parquet.read_row_group(number, columns)
                    continue
                chosen = pc.is_in(parquet.read_row_group(number, ["dataset_id"])["dataset_id"], value_set=wanted)
                if pc.any(chosen).as_py():
                    yield parquet.read_row_group(number, columns).filter(chosen)
        except PARQUET_ERRORS as error:
            raise _unreadable(files, key, error) from error


def _write_vectors(target: IO[bytes], column: pa.ChunkedArray, dimensions: int) -> VectorDtype:
    """Append the vectors of a column to the vectors file, and return the type of their numbers.

    Raises:
        ValueError: if the column does not hold vectors of this length.
    """
    if not pa.types.is_fixed_size_list(column.type):
        raise ValueError(f"its column `embedding` has the type {column.type}, and not vectors of one length")
    for chunk in column.chunks:
        values = chunk.flatten()
        if values.type not in _DTYPES or values.null_count or len(values) != len(chunk) * dimensions:
            raise ValueError(f"its column `embedding` does not hold {dimensions} numbers in each row")
        numbers: NDArray[np.generic] = values.to_numpy(zero_copy_only=False)
        target.write(np.ascontiguousarray(numbers).data)
    return _DTYPES[column.type.value_type]


def _unreadable(files: VectorFiles, key: str, error: Exception) -> DataError:
    return DataError(f"{files.name}: {files.store.uri(key)} cannot be read ({one_line(error)}): {files.advice}")
