"""Build the database of the engine `vss`: the rows of all files, and an HNSW index of their vectors."""

from __future__ import annotations

import os
import uuid
from pathlib import Path

import duckdb
import numpy as np

from rasterembed.dataset.vector_column import decode_vectors
from rasterembed.search.engines.engine import RECALL_AT, RECALL_SAMPLE
from rasterembed.search.engines.vss import nearest_sql
from rasterembed.search.index.description import HnswDatabase, SegmentFile
from rasterembed.search.index.hnsw_database import load_vss, open_database, quote_path
from rasterembed.search.index.stored_rows import unit_vectors
from rasterembed.search.index_options import VectorIndexOptions
from rasterembed.search.vector_files import VectorFiles
from rasterembed.store import duck
from rasterembed.store.layout import new_index_file_name
from rasterembed.store.local_file import local_file
from rasterembed.store.own_files import note_own_file

BUILD_MEMORY = "4GB"
"""Memory limit of DuckDB during a build, in DuckDB's notation. The limit does not include the memory of the index."""

_SAME_DISTANCE = 1e-6
"""Largest difference between two float32 distances that are treated as equal."""


def write_hnsw(files: VectorFiles, options: VectorIndexOptions) -> tuple[HnswDatabase, float, int]:
    """Write a database with an HNSW index into the folder of the index, and measure its recall.

    Searches of this user on this machine can then open the database.

    Args:
        files: the files with the vectors.
        options: the parameters of the index.

    Returns:
        The database, its recall (0 to 1), and the number of vectors in the measurement.

    Raises:
        IndexUnusableError: if `vss` cannot be loaded.
        DataError: if a file cannot be read, or if the build needs more memory than `BUILD_MEMORY`.
        StoreError: if the disk is full or the store refuses.
    """
    name = new_index_file_name("hnsw", files.digest, uuid.uuid4().hex[:8])
    what = f"vector index of {files.owner_id!r}"
    key = files.layout.vector_index_file(name)
    with local_file(files.store, key, replace=True) as file, duck.readable_errors(None, what):
        _write_database(files, file.path, options, what)
        con = open_database(file.path, files, options.index_ef_search)
        try:
            recall, sample = measure_recall(con, files)
        finally:
            con.close()
    note_own_file(file.sha256)
    database = HnswDatabase(
        file=SegmentFile(name=name, bytes=file.size, sha256=file.sha256),
        m=options.index_m,
        ef_construction=options.index_ef_construction,
        ef_search=options.index_ef_search,
        duckdb=duckdb.__version__,
    )
    return database, recall, sample


def _write_database(files: VectorFiles, path: Path, options: VectorIndexOptions, what: str) -> None:
    """Write a DuckDB database with the rows of all files, and with the index of their vectors."""
    con = duck.connect(threads=os.cpu_count() or 1, memory_limit=BUILD_MEMORY)
    try:
        load_vss(con)
        con.execute(f"ATTACH {quote_path(path)} AS ix")
        con.execute("SET hnsw_enable_experimental_persistence = true")
        with duck.readable_errors(con, what, files.advice):
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
    queries = unit_vectors(decode_vectors(sample))
    nearest = np.empty((len(queries), 0), dtype=np.float32)
    for batch in con.execute("SELECT embedding FROM ix.vectors").to_arrow_reader(16384):
        distances = 1 - queries @ unit_vectors(decode_vectors(batch)).T
        nearest = np.sort(np.concatenate([nearest, distances], axis=1), axis=1)[:, : RECALL_AT + 1]
    correct = expected = 0
    for tile, query, exact in zip(tiles, queries, nearest, strict=True):
        parameters = {"vector": duck.vector_text(query), "n": RECALL_AT + 1}
        rows = con.execute(nearest_sql(names, len(query)), parameters).fetchall()
        others = [distance for *other, distance in rows if tuple(other) != tile][: len(exact) - 1]
        correct += sum(distance <= exact[-1] + _SAME_DISTANCE for distance in others)
        expected += len(exact) - 1
    return (correct / expected if expected else 1.0), len(tiles)
