"""Build the vector index of a dataset, or of a collection's table.

A build writes a new index into the folder of the old index, and measures the recall of the new index. The build then
writes the name of the new index into `index.json`, and deletes the old index.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from rasterembed.errors import DataError
from rasterembed.search.engines.engine import IndexUnusableError, NoIndexReason
from rasterembed.search.engines.vss import VssEngine, nearest_sql
from rasterembed.search.index_database import load_vss, open_database, quote_path
from rasterembed.search.index_file import VectorIndexInfo
from rasterembed.search.index_options import VectorIndexOptions
from rasterembed.search.vector_files import VectorFiles
from rasterembed.store import duck
from rasterembed.store.layout import new_vector_index_name
from rasterembed.store.local_file import local_file

BUILD_MEMORY = "4GB"
"""Memory limit of DuckDB during a build, in DuckDB's notation. The limit does not include the memory of the index."""

RECALL_AT = 10
"""Number of neighbours of each vector in the measurement of recall."""

RECALL_SAMPLE = 200
"""Number of vectors in the measurement of recall."""

_SAME_DISTANCE = 1e-6
"""Largest difference between two float32 distances that are treated as equal."""

_DEAD_AFTER_S = 24 * 3600
"""Largest age of an unfinished file, in seconds. An older file is deleted, because its build was probably killed."""


class BuildOutcome(StrEnum):
    """Outcome of `build_vector_index`."""

    BUILT = "built"
    """A new index was built."""
    CURRENT = "current"
    """The existing index is up to date and was kept."""
    NOT_WANTED = "not_wanted"
    """The options turn the index off."""
    TOO_FEW_ROWS = "too_few_rows"
    """There are fewer rows than `VectorIndexOptions.index_min_rows`."""
    NO_EXTENSION = "no_extension"
    """The extension `vss` cannot be loaded."""
    OUT_OF_MEMORY = "out_of_memory"
    """The build needed more memory than `BUILD_MEMORY`."""


@dataclass(frozen=True)
class BuildResult:
    """The outcome of `build_vector_index`, and the index after the call."""

    outcome: BuildOutcome
    info: VectorIndexInfo | None
    """The index. None if there is none."""
    detail: str = ""
    """Reason why the index was built or is missing, as text for people."""

    def describe(self) -> str:
        """Return the outcome as text for people."""
        match self.outcome:
            case BuildOutcome.BUILT:
                return f"built, because {self.detail}"
            case BuildOutcome.CURRENT:
                return "the index is current"
            case BuildOutcome.NOT_WANTED:
                return "no index: the options turn it off"
            case _:
                return f"no index: {self.detail}"


def build_vector_index(files: VectorFiles, options: VectorIndexOptions) -> BuildResult:
    """Build a vector index, if it is missing or out of date.

    An index is up to date if it has the vectors of the files and the parameters in `options`. A new index replaces the
    old index when the new index is complete. If `options` allow no index for these files, an old index is removed.

    Args:
        files: the files with the vectors.
        options: options that decide whether an index is built, and the parameters of the index.

    Raises:
        DataError: if a shard cannot be read. If `options.index` is `always`, this error is also raised if `vss` cannot
            be loaded or if the memory is too small.
        StoreError: if the disk is full or the store refuses.

    Example:
        >>> from rasterembed.dataset.dataset import Dataset
        >>> from rasterembed.store.object_store import ObjectStore
        >>> files = VectorFiles.of_dataset(Dataset.open(ObjectStore(root="embeddings"), "scene"))
        >>> build_vector_index(files, VectorIndexOptions(index="always")).describe()
        'built, because there is no index'
    """
    rows = files.rows
    if options.index == "never":
        _remove_files(files, keep=())
        return BuildResult(BuildOutcome.NOT_WANTED, None)
    if options.index == "auto" and rows < options.index_min_rows:
        _remove_files(files, keep=())
        return BuildResult(BuildOutcome.TOO_FEW_ROWS, None, f"{rows} rows are below {options.index_min_rows}")
    current, why_build = _current_index(files, options)
    if current is not None:
        return BuildResult(BuildOutcome.CURRENT, current)
    try:
        return BuildResult(BuildOutcome.BUILT, _build(files, options), why_build)
    except IndexUnusableError as error:
        if error.reason is not NoIndexReason.NO_EXTENSION:
            raise  # The index that was just built cannot be used. This is a bug.
        if options.index == "always":
            raise DataError(
                f"{error}: install the wheel duckdb-extension-vss of the same version, or search without an index"
            ) from error
        return BuildResult(BuildOutcome.NO_EXTENSION, None, str(error))
    except DataError as error:
        # With `auto`, too little memory is no error: there is then no index, and search uses the exact scan.
        if options.index == "always" or not isinstance(error.__cause__, duckdb.OutOfMemoryException):
            raise
        return BuildResult(BuildOutcome.OUT_OF_MEMORY, None, str(error))


def _current_index(files: VectorFiles, options: VectorIndexOptions) -> tuple[VectorIndexInfo | None, str]:
    """Return the index if it is up to date. Otherwise return None and a text with the reason."""
    try:
        engine = VssEngine(files)
    except IndexUnusableError as error:
        return None, str(error)
    engine.close()
    info = engine.info
    wanted = (options.index_m, options.index_ef_construction, options.index_ef_search)
    if (info.m, info.ef_construction, info.ef_search) != wanted:
        return None, "it was built with other parameters"
    return info, ""


def _build(files: VectorFiles, options: VectorIndexOptions) -> VectorIndexInfo:
    """Build an index, measure its recall, and replace the old index by the new index."""
    store = files.store
    started = time.monotonic()
    _remove_dead_builds(files)
    name = new_vector_index_name(files.digest)
    key = files.layout.vector_index_file(name)
    what = f"vector index of {files.owner_id!r}"
    with local_file(store, key, replace=True) as file, duck.readable_errors(None, what):
        _write_database(files, file.path, options, what)
        seconds = time.monotonic() - started
        con = open_database(file.path, files, options.index_ef_search)
        try:
            recall, sample = measure_recall(con, files)
        finally:
            con.close()
    info = VectorIndexInfo(
        fingerprint=files.digest,
        file=name,
        bytes=file.size,
        sha256=file.sha256,
        rows=files.rows,
        m=options.index_m,
        ef_construction=options.index_ef_construction,
        ef_search=options.index_ef_search,
        recall=recall,
        recall_at=RECALL_AT,
        recall_sample=sample,
        build_seconds=round(seconds, 3),
        duckdb=duckdb.__version__,
        built=datetime.now(UTC),
    )
    info_key = files.layout.vector_index_info
    store.write(info_key, info.model_dump_json(indent=1).encode())
    _remove_files(files, keep=(info_key, key))
    return info


def _write_database(files: VectorFiles, path: Path, options: VectorIndexOptions, what: str) -> None:
    """Write a DuckDB database with the rows of all files, and with the index of their vectors."""
    con = duck.connect(threads=os.cpu_count() or 1, memory_limit=BUILD_MEMORY)
    try:
        load_vss(con)
        con.execute(f"ATTACH {quote_path(path)} AS ix")
        con.execute("SET hnsw_enable_experimental_persistence = true")
        with duck.readable_errors(con, what):
            duck.scan(con, files.store, files.keys).create_view("files")
            con.execute(
                f"CREATE TABLE ix.vectors AS SELECT {files.columns}, "
                f"embedding::FLOAT[{files.dimensions}] AS embedding FROM files"
            )
        con.execute(
            "CREATE INDEX hnsw ON ix.vectors USING HNSW (embedding) "
            f"WITH (metric = 'cosine', M = {options.index_m}, ef_construction = {options.index_ef_construction})"
        )
        con.execute("CHECKPOINT ix")
        con.execute("DETACH ix")
    finally:
        con.close()
        Path(f"{path}.wal").unlink(missing_ok=True)


def measure_recall(con: duckdb.DuckDBPyConnection, files: VectorFiles) -> tuple[float, int]:
    """Compare the results of an index with the exact nearest neighbours.

    A result of the index is correct if its distance is not larger than the distance of the last exact neighbour. Rows
    with the same distance are therefore not errors (Aumüller, Bernhardsson, Faithfull: ANN-Benchmarks, Information
    Systems 87, 2020). The vector itself is not a neighbour.

    Args:
        con: a connection with the index attached as `ix`.
        files: the files whose vectors are in the index.

    Returns:
        The recall, 0 to 1, and the number of vectors in the measurement.
    """
    names = ", ".join(files.identity)
    sample = con.execute(
        f"SELECT {names}, embedding FROM ix.vectors ORDER BY hash(tile_id), {names} LIMIT {RECALL_SAMPLE}"
    ).to_arrow_table()
    tiles = list(zip(*(sample[name].to_pylist() for name in files.identity), strict=True))
    queries = _unit(_matrix(sample["embedding"].combine_chunks()))
    nearest = np.empty((len(queries), 0), dtype=np.float32)
    for batch in con.execute("SELECT embedding FROM ix.vectors").to_arrow_reader(16384):
        distances = 1 - queries @ _unit(_matrix(batch.column("embedding"))).T
        nearest = np.sort(np.concatenate([nearest, distances], axis=1), axis=1)[:, : RECALL_AT + 1]
    correct = expected = 0
    for tile, query, exact in zip(tiles, queries, nearest, strict=True):
        rows = con.execute(nearest_sql(names, len(query)), {"vector": query.tolist(), "n": RECALL_AT + 1}).fetchall()
        others = [distance for *other, distance in rows if tuple(other) != tile][: len(exact) - 1]
        correct += sum(distance <= exact[-1] + _SAME_DISTANCE for distance in others)
        expected += len(exact) - 1
    return (correct / expected if expected else 1.0), len(tiles)


def _matrix(vectors: pa.Array) -> NDArray[np.float32]:
    """Return a column of n vectors as an array of shape (n, dimensions)."""
    flat: NDArray[np.float32] = vectors.flatten().to_numpy()
    return flat.reshape(len(vectors), -1)


def _unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Scale vectors of shape (n, dimensions) to length 1. A zero vector stays zero."""
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit: NDArray[np.float32] = vectors / np.maximum(norms, np.finfo(np.float32).tiny)
    return unit


def _remove_files(files: VectorFiles, keep: tuple[str, ...]) -> None:
    """Delete all files of the index, except the files with the keys `keep`."""
    for name in files.store.sizes(files.layout.vector_index_folder):
        key = files.layout.vector_index_file(name)
        if key not in keep:
            files.store.delete(key)


def _remove_dead_builds(files: VectorFiles) -> None:
    """Delete the unfinished files that killed builds left in the index's folder. S3 has no unfinished objects."""
    store = files.store
    if store.is_s3:
        return
    for path in store.scratch(files.layout.vector_index_folder).glob("*.part*"):
        if time.time() - path.stat().st_mtime > _DEAD_AFTER_S:
            path.unlink(missing_ok=True)
