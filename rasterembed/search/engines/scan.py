"""Engine `scan`: DuckDB compares the query with every vector that passes the filters. The answer is exact."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from rasterembed.dataset.dataset import Dataset
from rasterembed.dataset.vector_column import decode_vectors
from rasterembed.search.engines.engine import EngineName
from rasterembed.search.filters import Filters
from rasterembed.search.rerank import cosine_distances, in_order, rounding_bound
from rasterembed.search.tile_lookup import tiles_in_areas
from rasterembed.search.vector_files import VectorFiles
from rasterembed.store import duck

_MORE_ROWS = 64
"""Number of rows that are read in addition to the k nearest ones."""

_BATCH_ROWS = 16_384
"""Largest number of rows whose vectors are in memory together, if many rows are equally far away."""


def connect() -> duckdb.DuckDBPyConnection:
    """Open a DuckDB connection for scans."""
    con = duck.connect()
    # Turn late materialization off. With late materialization, DuckDB would read the vectors a second time, when it
    # fetches the remaining columns of the nearest rows.
    con.execute("SET late_materialization_max_rows = 0")
    return con


def nearest_exactly(
    con: duckdb.DuckDBPyConnection,
    files: VectorFiles,
    keys: Sequence[str],
    vector: NDArray[np.float32],
    k: int,
    condition: str,
    parameters: Mapping[str, Any],
) -> pa.Table:
    """Return the k nearest tiles for which a condition is true. See `SearchEngine.nearest`.

    Args:
        con: a connection from `connect`.
        files: describes the files.
        keys: keys of the files to read, at least one.
        vector: the query, shape (dimensions,).
        k: largest number of rows.
        condition: SQL condition on the columns of the files.
        parameters: values of the condition's parameters.

    Raises:
        DataError: if a file cannot be read.
    """
    array = f"FLOAT[{files.dimensions}]"
    query = (
        f"SELECT {files.columns}, embedding::{array} AS embedding, {distance_sql(files.dimensions)} AS distance "
        f"FROM vectors WHERE {condition} "
    )
    values: dict[str, Any] = {"vector": duck.vector_text(vector), **parameters}
    # DuckDB computes distances in float32. Rows that are about as far away as the last row of the answer are compared
    # exactly, and a few more rows than k usually contain them.
    error = 4.0 * rounding_bound(files.dimensions)
    with duck.readable_errors(con, files.name, files.advice):
        duck.scan(con, files.store, keys).create_view("vectors", replace=True)
        nearest = f"{query} ORDER BY distance, {', '.join(files.identity)} LIMIT $most"
        rows = con.execute(nearest, values | {"most": k + _MORE_ROWS}).to_arrow_table()
        if len(rows) < k + _MORE_ROWS or rows["distance"][-1].as_py() > rows["distance"][k - 1].as_py() + error:
            parts = rows.to_batches()
        else:
            limit = {"limit": rows["distance"][k - 1].as_py() + error}
            reader = con.execute(f"SELECT * FROM ({query}) WHERE distance <= $limit", values | limit)
            parts = reader.to_arrow_reader(_BATCH_ROWS)
        return _compared(parts, files, vector, k)


def _compared(parts: Iterable[pa.RecordBatch], files: VectorFiles, vector: NDArray[np.float32], k: int) -> pa.Table:
    """Return the k nearest of some rows, by their exact distances. The rows have the column `embedding`."""
    tables, distances = [], []
    for part in parts:
        distances.append(cosine_distances(vector, decode_vectors(part)))
        tables.append(pa.table(part.drop_columns(["embedding", "distance"])))
    if not tables:
        return in_order(files.index_schema.empty_table().select(files.column_names), np.empty(0), files.identity, k)
    return in_order(pa.concat_tables(tables), np.concatenate(distances), files.identity, k)


def distance_sql(dimensions: int) -> str:
    """Return the cosine distance of the column `embedding` to the parameter `$vector`, as SQL.

    A zero vector has no direction. Its distance is 1, as in `rasterembed.search.rerank`. DuckDB's function returns 2,
    the distance of an opposite vector, so only then the vector is looked at again.
    """
    vector = f"embedding::FLOAT[{dimensions}]"
    distance = f"array_cosine_distance({vector}, $vector::FLOAT[{dimensions}])"
    return f"CASE WHEN {distance} = 2 AND array_inner_product({vector}, {vector}) = 0 THEN 1::FLOAT ELSE {distance} END"


class ScanEngine:
    """Scans the shards of one dataset.

    Args:
        dataset: the dataset to search.
        con: a connection from `connect`. Several engines in one thread may share a connection. The connection keeps
            metadata of the shards in memory.
    """

    name: EngineName = "scan"
    settings = ""
    recall = None

    def __init__(self, dataset: Dataset, con: duckdb.DuckDBPyConnection) -> None:
        self._dataset, self._files = dataset, VectorFiles.of_dataset(dataset)
        self._con = con

    def nearest(self, vector: NDArray[np.float32], k: int, filters: Filters) -> pa.Table:
        """Return the k nearest tiles that pass the filters. See `SearchEngine.nearest`.

        The result is never None. The filters are applied first, and then the k nearest tiles are selected. Only shards
        with a tile in the areas are opened. Only the needed columns of these shards are read.

        Raises:
            DataError: if a shard cannot be read.
        """
        manifest = self._dataset.manifest
        condition, parameters = filters.sql_condition()
        shards = [shard for shard in manifest.shards if shard.rows]
        if filters.areas:
            inside = tiles_in_areas(self._con, self._dataset, filters.areas)
            numbers = set(inside["shard"].unique().to_pylist())
            shards = [shard for shard in shards if shard.number in numbers]
            self._con.register("inside", inside)
            condition += " AND tile_id IN (SELECT tile_id FROM inside)"
        if filters.class_tiles is not None:
            self._con.register("classes", pa.table({"tile_id": filters.class_tiles}))
            condition += " AND tile_id IN (SELECT tile_id FROM classes)"
        if not shards:
            # No row passes the filters. One shard is read to get an empty table with the right columns.
            shards = [manifest.shards[0]]
        keys = [shard.path for shard in shards]
        return nearest_exactly(self._con, self._files, keys, vector, k, condition, parameters)

    def close(self) -> None:
        """Do nothing: the connection belongs to the caller."""
