"""Building the search index: aside, measured against the exact answer, and then switched in."""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from rasterembed.dataset.dataset import Dataset
from rasterembed.errors import DataError
from rasterembed.search.engines.scan import COLUMNS
from rasterembed.search.engines.vss import (
    Index,
    IndexInfo,
    IndexUnusableError,
    VssMissingError,
    load_vss,
    nearest_sql,
    open_index_file,
    quoted,
)
from rasterembed.search.options import VectorIndexOptions
from rasterembed.store import duck
from rasterembed.store.layout import DatasetLayout, new_vector_index_name
from rasterembed.store.local_file import local_file
from rasterembed.store.object_store import ObjectStore

BUILD_MEMORY = "4GB"
"""Memory of DuckDB while an index is built, as DuckDB writes it; the index itself comes on top."""

RECALL_AT = 10
"""Neighbours that recall is measured with."""

RECALL_SAMPLE = 200
"""Vectors whose neighbours are looked for, to measure recall."""

_SAME_DISTANCE = 1e-6
"""Distances in float32 that differ by less are the same distance."""

_DEAD_AFTER_S = 24 * 3600
"""Age at which a file that was never finished counts as left by a dead build."""


def build_vector_index(dataset: Dataset, options: VectorIndexOptions) -> tuple[IndexInfo | None, str]:
    """Bring the dataset's index in line with its vectors: keep one that is current, else build it anew and switch.

    Where there shall be none, an old one is removed.

    Returns:
        What the index is, or None where there is none; and why, in a few words.

    Raises:
        DataError: if an index is asked for and `vss` cannot be loaded, or a shard cannot be read.
        StoreError: if the disk is full or the store refuses.
    """
    store, rows = dataset.store, dataset.manifest.rows
    if options.index == "never" or (options.index == "auto" and rows < options.index_min_rows):
        _remove_others(store, dataset.layout, keep=())
        why = "not asked for" if options.index == "never" else f"{rows} rows are below {options.index_min_rows}"
        return None, f"no index: {why}"
    try:
        index = Index(store, dataset)
    except IndexUnusableError as error:
        why = str(error)
    else:
        index.close()
        if _fits(index.info, options):
            return index.info, "the index is current"
        why = "it was built with other parameters"
    try:
        return _build(dataset, options), f"built, because {why}"
    except VssMissingError as error:
        if options.index == "always":
            raise DataError(
                f"{error}: install the wheel duckdb-extension-vss of the same version, or search without an index"
            ) from error
        return None, f"no index: {error}"
    except DataError as error:
        # a large dataset on a small machine is searched without
        if options.index == "always" or not isinstance(error.__cause__, duckdb.OutOfMemoryException):
            raise
        return None, f"no index: {error}"


def _fits(info: IndexInfo, options: VectorIndexOptions) -> bool:
    asked = (options.index_m, options.index_ef_construction, options.index_ef_search)
    return (info.m, info.ef_construction, info.ef_search) == asked


def _build(dataset: Dataset, options: VectorIndexOptions) -> IndexInfo:
    store, manifest = dataset.store, dataset.manifest
    started = time.monotonic()
    _clear_dead_builds(store, dataset.layout)
    name = new_vector_index_name(manifest.fingerprint)
    key = dataset.layout.vector_index_file(name)
    with local_file(store, key, replace=True) as file, duck.readable(f"search index of {dataset.id!r}"):
        _fill(dataset, file.path, options)
        seconds = time.monotonic() - started
        con = open_index_file(file.path, options.index_ef_search)
        try:
            recall, sample = measure_recall(con)
        finally:
            con.close()
    info = IndexInfo(
        fingerprint=manifest.fingerprint,
        file=name,
        bytes=file.size,
        sha256=file.sha256,
        rows=manifest.rows,
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
    info_key = dataset.layout.vector_index_info
    store.write(info_key, info.model_dump_json(indent=1).encode())
    _remove_others(store, dataset.layout, keep=(info_key, key))
    return info


def _fill(dataset: Dataset, path: Path, options: VectorIndexOptions) -> None:
    con = duck.connect(threads=os.cpu_count() or 1, memory_limit=BUILD_MEMORY)
    try:
        load_vss(con)
        con.execute(f"ATTACH {quoted(path)} AS ix")
        con.execute("SET hnsw_enable_experimental_persistence = true")
        keys = [shard.path for shard in dataset.manifest.shards if shard.rows]
        duck.scan(con, dataset.store, keys).create_view("shards")
        con.execute(
            f"CREATE TABLE ix.vectors AS SELECT {COLUMNS}, "
            f"embedding::FLOAT[{dataset.manifest.dimensions}] AS embedding FROM shards"
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


def measure_recall(con: duckdb.DuckDBPyConnection) -> tuple[float, int]:
    """Recall of an index against the exact neighbours, and the number of vectors that it was measured on.

    A row counts as found if it is no farther than the last exact neighbour, so that ties do not count as misses
    (Aumüller, Bernhardsson, Faithfull: ANN-Benchmarks, Information Systems 87, 2020). The vector itself is left out.

    Args:
        con: has the index attached as `ix`.
    """
    sample = con.execute(
        f"SELECT tile_id, embedding FROM ix.vectors ORDER BY hash(tile_id), tile_id LIMIT {RECALL_SAMPLE}"
    ).to_arrow_table()
    names, queries = sample["tile_id"].to_pylist(), _unit(_matrix(sample["embedding"].combine_chunks()))
    best = np.empty((len(queries), 0), dtype=np.float32)
    for batch in con.execute("SELECT embedding FROM ix.vectors").to_arrow_reader(16384):
        distances = 1 - queries @ _unit(_matrix(batch.column("embedding"))).T
        best = np.sort(np.concatenate([best, distances], axis=1), axis=1)[:, : RECALL_AT + 1]
    found = wanted = 0
    for name, query, exact in zip(names, queries, best, strict=True):
        rows = con.execute(
            nearest_sql("tile_id", len(query)), {"vector": query.tolist(), "n": RECALL_AT + 1}
        ).fetchall()
        others = [distance for tile, distance in rows if tile != name][: len(exact) - 1]
        found += sum(distance <= exact[-1] + _SAME_DISTANCE for distance in others)
        wanted += len(exact) - 1
    return (found / wanted if wanted else 1.0), len(names)


def _matrix(vectors: pa.Array) -> NDArray[np.float32]:
    flat: NDArray[np.float32] = vectors.flatten().to_numpy()
    return flat.reshape(len(vectors), -1)


def _unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit: NDArray[np.float32] = vectors / np.maximum(norms, np.finfo(np.float32).tiny)
    return unit


def _remove_others(store: ObjectStore, layout: DatasetLayout, keep: tuple[str, ...]) -> None:
    for name in store.sizes(layout.vector_index_folder):
        key = layout.vector_index_file(name)
        if key not in keep:
            store.delete(key)


def _clear_dead_builds(store: ObjectStore, layout: DatasetLayout) -> None:
    if store.is_s3:
        return
    for left in store.scratch(layout.vector_index_folder).glob("*.part*"):
        if time.time() - left.stat().st_mtime > _DEAD_AFTER_S:
            left.unlink(missing_ok=True)
