"""Engine `vss`: DuckDB's extension `vss` finds the nearest vectors in an HNSW index. The answer is approximate.

A DuckDB database holds the rows of all files and the index of their vectors. If a query has a condition or an OFFSET,
`vss` returns wrong rows and reports no error. If a query has a join, `vss` does not use the index. docs/search.md lists
these cases. This engine therefore sends only one form of query: it asks for the k rows nearest to a constant. It then
applies the filters to the returned rows.
"""

from __future__ import annotations

from contextlib import ExitStack

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from rasterembed.dataset.vector_column import decode_vectors
from rasterembed.errors import StoreError
from rasterembed.search.engines.engine import EngineName, IndexUnusableError, NoIndexReason
from rasterembed.search.filters import TileFilters
from rasterembed.search.index.description import read_index
from rasterembed.search.index.hnsw_database import open_database
from rasterembed.search.index.local_files import checked_file, forget_old_downloads
from rasterembed.search.rerank import cosine_distances, in_order
from rasterembed.search.vector_files import VectorFiles
from rasterembed.store import duck
from rasterembed.store.own_files import is_own_file

MAX_FETCH = 4096
"""Largest number of rows in a query to the index. For more rows, the exact scan is as fast."""

_OVERFETCH = 8
"""Number of fetched rows for each needed row. It is used if the filters can reject rows."""


class VssEngine:
    """Searches the vector index of a dataset or of a collection's table. The whole index is loaded into memory.

    Args:
        files: the files whose vectors are in the index.
        ef_search: number of candidates in a search. None means the default of the index.

    Raises:
        IndexUnusableError: if the index is missing, stale or damaged, if this user has not built it on this machine, or
            if `vss` cannot be loaded.
    """

    name: EngineName = "vss"

    def __init__(self, files: VectorFiles, ef_search: int | None = None) -> None:
        self._files = files
        self.index = read_index(files)
        """The description of the index."""
        self.nbytes = 0
        """Memory of the loaded index in bytes: about the size of its file."""
        database = self.index.database
        if database is None:
            raise IndexUnusableError(NoIndexReason.OTHER_ENGINE, self.index.engine)
        self.ef_search = ef_search or database.ef_search
        try:
            with ExitStack() as on_failure:
                # The digest must be checked before DuckDB opens the file. If vss reads a damaged block, DuckDB throws a
                # checksum error at a place where exceptions are forbidden. This ends the whole process.
                with checked_file(files, database.file) as (path, _):
                    # DuckDB trusts the content of a database. A file whose digest its maker wrote into the store could
                    # end the process, or do worse.
                    if not is_own_file(database.file.sha256):
                        raise IndexUnusableError(NoIndexReason.NOT_OWN)
                    self._con = open_database(path, files, self.ef_search)
                    on_failure.callback(self._con.close)
                    self._load_index(files.dimensions)
                    self.nbytes = database.file.bytes
                forget_old_downloads(files, self.index)
                on_failure.pop_all()
        except (duckdb.Error, StoreError) as error:
            raise _failed(error) from error

    def _load_index(self, dimensions: int) -> None:
        """Check that DuckDB uses the index. Then query one row, so that DuckDB loads the index."""
        query = nearest_sql("tile_id", dimensions)
        parameters = {"vector": [1.0] + [0.0] * (dimensions - 1), "n": 1}
        plan = self._con.execute(f"EXPLAIN {query}", parameters).fetchall()[0][1]
        if "HNSW_INDEX_SCAN" not in plan:
            raise IndexUnusableError(NoIndexReason.NOT_USED)
        self._con.execute(query, parameters).fetchall()

    @property
    def settings(self) -> str:
        """See `SearchEngine.settings`."""
        return f"ef_search {self.ef_search}, recall@{self.index.recall_at} {self.index.recall:.3f} when built"

    @property
    def recall(self) -> float:
        """See `SearchEngine.recall`."""
        return self.index.recall

    def nearest(self, vector: NDArray[np.float32], k: int, filters: TileFilters) -> pa.Table | None:
        """Return the k nearest tiles that pass the filters, or None. See `SearchEngine.nearest`.

        The result is None in three cases: fewer than k of the fetched rows pass the filters; a row that was not fetched
        may be as near as the k-th row; or k is so large that the scan is as fast.

        Raises:
            IndexUnusableError: if DuckDB reports an error.
        """
        # Fetch one additional row. If it is farther away than the k-th row, every row that was not fetched is farther
        # away too.
        fetch = (k * _OVERFETCH if filters.restrictive else k) + filters.excluded_count + 1
        if fetch > MAX_FETCH:
            return None
        query = nearest_sql(f"{self._files.columns}, embedding", len(vector))
        try:
            fetched = self._con.execute(query, {"vector": duck.vector_text(vector), "n": fetch}).to_arrow_table()
        except duckdb.Error as error:
            raise _failed(error) from error
        passing = filters.keep_passing(fetched)
        if len(passing) < k or not passing["distance"].sort()[k - 1].as_py() < pc.max(fetched["distance"]).as_py():
            return None
        # DuckDB computes distances in float32. The exact distances are the same for all engines.
        distances = cosine_distances(vector, decode_vectors(passing))
        return in_order(passing.select(self._files.column_names), distances, self._files.identity, k)

    def close(self) -> None:
        """Release the index's memory."""
        self._con.close()


def nearest_sql(columns: str, dimensions: int) -> str:
    """Return the SQL query for the `$n` rows nearest to `$vector`.

    The query has no condition, no offset and no second sort key. `vss` answers only this form of query correctly from
    its index.
    """
    distance = f"array_cosine_distance(embedding, $vector::FLOAT[{dimensions}])"
    return f"SELECT {columns}, {distance} AS distance FROM ix.main.vectors ORDER BY distance LIMIT $n"


def _failed(error: duckdb.Error | StoreError) -> IndexUnusableError:
    return IndexUnusableError(NoIndexReason.FAILED, duck.first_line(error))
