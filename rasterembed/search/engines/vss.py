"""Engine `vss`: DuckDB's extension of that name asks an HNSW index for the nearest vectors. The answer is approximate.

The index is a DuckDB database that holds the rows of all shards and the index over their vectors. If a query has a
condition or an OFFSET, `vss` returns wrong rows and reports no error; for a join it does not use the index
(docs/search.md lists the cases). So this engine sends only one form of query, for the k rows nearest to a constant, and
applies the filters to the rows that come back.
"""

from __future__ import annotations

from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from rasterembed.dataset.dataset import Dataset
from rasterembed.errors import StoreError
from rasterembed.search.engines.engine import COLUMNS, EngineName, IndexUnusableError, NoIndexReason
from rasterembed.search.filters import Filters
from rasterembed.search.index_file import local_database, read_info
from rasterembed.store import duck

MAX_FETCH = 4096
"""Largest number of rows that the index is asked for. For more rows, the exact scan is as fast."""

_OVERFETCH = 8
"""Number of rows fetched for each row that is needed, if the filters may reject some."""


class VssEngine:
    """Asks the vector index of one dataset. The whole index is loaded into memory.

    Args:
        dataset: the dataset to search.
        ef_search: number of candidates that a search considers; None: the number that the index was built for.

    Raises:
        IndexUnusableError: if the index is missing, stale or damaged, or if `vss` cannot be loaded.
    """

    name: EngineName = "vss"

    def __init__(self, dataset: Dataset, ef_search: int | None = None) -> None:
        self.info = read_info(dataset)
        self.ef_search = ef_search or self.info.ef_search
        try:
            self._con = open_database(local_database(dataset, self.info), self.ef_search)
            self._load_index(dataset.manifest.dimensions)
        except (duckdb.Error, StoreError) as error:
            raise _failed(error) from error

    def _load_index(self, dimensions: int) -> None:
        """Ask for one row, so that DuckDB loads the index, and check that DuckDB uses the index."""
        query = nearest_sql("tile_id", dimensions)
        parameters = {"vector": [1.0] + [0.0] * (dimensions - 1), "n": 1}
        plan = self._con.execute(f"EXPLAIN {query}", parameters).fetchall()[0][1]
        if "HNSW_INDEX_SCAN" not in plan:
            raise IndexUnusableError(NoIndexReason.NOT_USED)
        self._con.execute(query, parameters).fetchall()

    @property
    def settings(self) -> str:
        """See `SearchEngine.settings`."""
        return f"ef_search {self.ef_search}, recall@{self.info.recall_at} {self.info.recall:.3f} when built"

    @property
    def recall(self) -> float:
        """See `SearchEngine.recall`."""
        return self.info.recall

    def nearest(self, vector: NDArray[np.float32], k: int, filters: Filters) -> pa.Table | None:
        """Return the k nearest tiles that pass the filters, or None; see `SearchEngine.nearest`.

        The result is None if fewer than k of the fetched rows pass the filters, if rows that were not fetched may be as
        near as the k-th row, or if k is so large that the scan is as fast.

        Raises:
            IndexUnusableError: if DuckDB reports an error.
        """
        # One more row than needed shows whether rows that were not fetched may have the distance of the k-th row.
        fetch = (k * _OVERFETCH if filters.restrictive else k) + len(filters.excluded) + 1
        if fetch > MAX_FETCH:
            return None
        query = nearest_sql(COLUMNS, len(vector))
        try:
            fetched = self._con.execute(query, {"vector": vector.tolist(), "n": fetch}).to_arrow_table()
        except duckdb.Error as error:
            raise _failed(error) from error
        passing = filters.keep_passing(fetched).sort_by([("distance", "ascending"), ("tile_id", "ascending")])
        if len(passing) < k or not passing["distance"][k - 1].as_py() < pc.max(fetched["distance"]).as_py():
            return None
        return passing.slice(0, k)

    def close(self) -> None:
        """Release the index's memory."""
        self._con.close()


def nearest_sql(columns: str, dimensions: int) -> str:
    """Return the query for the rows nearest to `$vector`, at most `$n`.

    This is the only form of query that `vss` answers correctly from its index: without a condition, an offset or a
    second sort key.
    """
    distance = f"array_cosine_distance(embedding, $vector::FLOAT[{dimensions}])"
    return f"SELECT {columns}, {distance} AS distance FROM ix.vectors ORDER BY distance LIMIT $n"


def load_vss(con: duckdb.DuckDBPyConnection) -> None:
    """Load the extension `vss` into a connection.

    Raises:
        IndexUnusableError: if this machine does not have it.
    """
    if not duck.load_vss(con):
        raise IndexUnusableError(NoIndexReason.NO_EXTENSION, duckdb.__version__)


def open_database(path: Path, ef_search: int) -> duckdb.DuckDBPyConnection:
    """Open a connection with the database of an index attached as `ix`, read-only.

    Args:
        path: the database.
        ef_search: number of candidates that a search considers.

    Raises:
        IndexUnusableError: if `vss` cannot be loaded.
        duckdb.Error: if the file is not a DuckDB database.
    """
    con = duck.connect()
    try:
        # DuckDB counts the loaded index towards its limit, so the limit is the index's size and 1 GB more. DuckDB's GB
        # is 10^9 bytes.
        con.execute(f"SET memory_limit = '{1 + path.stat().st_size / 1e9:.3f}GB'")
        load_vss(con)
        con.execute(f"ATTACH {quote_path(path)} AS ix (READ_ONLY)")
        con.execute(f"SET hnsw_ef_search = {int(ef_search)}")
        # The index scan returns the other columns itself. Late materialization would scan the whole table for them,
        # which was measured to be slower.
        con.execute("SET late_materialization_max_rows = 0")
    except BaseException:
        con.close()
        raise
    return con


def quote_path(path: Path) -> str:
    """Return a path as an SQL string, for ATTACH, which takes no parameters. A quote is escaped by a second quote."""
    return "'" + str(path).replace("'", "''") + "'"


def _failed(error: duckdb.Error | StoreError) -> IndexUnusableError:
    return IndexUnusableError(NoIndexReason.FAILED, duck.first_line(error))
