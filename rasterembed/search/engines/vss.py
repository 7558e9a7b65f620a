"""The HNSW index of DuckDB's `vss`, opened for searching: a cache that may be stale, broken or gone at any time.

It is a DuckDB database of its own, with the shards' rows and the index over their vectors, named by `index.json`. `vss`
answers wrongly, and says nothing, when a condition, an OFFSET or a join meets the index (docs/search.md lists how); so
the only query here is the k rows nearest to a constant, and filters come after it.
"""

from __future__ import annotations

import hashlib
import shutil
from datetime import datetime
from pathlib import Path
from typing import Literal

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from rasterembed.dataset.dataset import Dataset
from rasterembed.errors import StoreError, os_errors
from rasterembed.search.engines.scan import COLUMNS, Filters
from rasterembed.store import duck
from rasterembed.store.layout import VECTOR_INDEX_NAME
from rasterembed.store.local_cache import cache_folder
from rasterembed.store.object_store import ObjectStore
from rasterembed.store.write_aside import new_file

MAX_FETCH = 4096
"""Rows asked of the index at most: for more, the exact scan is as fast."""

_OVERFETCH = 8
"""Rows fetched for each row asked for, where filters will drop some."""


class IndexInfo(BaseModel):
    """What an index is of, and how good it is: the content of `index.json`."""

    model_config = ConfigDict(frozen=True)

    fingerprint: str
    """Of the dataset that it was built from."""
    file: str = Field(pattern=VECTOR_INDEX_NAME)
    """Name of the database beside `index.json`."""
    bytes: int
    sha256: str
    rows: int
    metric: Literal["cosine"] = "cosine"
    m: int
    ef_construction: int
    ef_search: int
    """Default of a search, and what recall was measured with."""
    recall: float
    """Share of the exact neighbours that the index finds, the vector itself not counted."""
    recall_at: int
    """Neighbours of each vector that were looked for."""
    recall_sample: int
    """Vectors that recall was measured on."""
    build_seconds: float
    duckdb: str
    """Version that built it."""
    built: datetime


class IndexUnusableError(Exception):
    """There is no index that answers for a dataset; the text says why in a few words."""


class VssMissingError(IndexUnusableError):
    """DuckDB's `vss` cannot be loaded here."""


def read_info(store: ObjectStore, dataset: Dataset) -> IndexInfo:
    """What the dataset's index says of itself.

    Raises:
        IndexUnusableError: if there is none, or it is of other vectors.
    """
    data = store.read(dataset.layout.vector_index_info)
    if data is None:
        raise IndexUnusableError("there is no index")
    try:
        info = IndexInfo.model_validate_json(data)
    except ValidationError as error:
        raise IndexUnusableError("the index is broken: index.json cannot be read") from error
    if info.fingerprint != dataset.manifest.fingerprint or info.rows != dataset.manifest.rows:
        raise IndexUnusableError("the index is stale: it is of other vectors")
    return info


class Index:
    """An index that is open. Not for several threads at once.

    Args:
        store: where it is.
        dataset: what it is of.
        ef_search: candidates kept while searching; by default as it was built for.

    Raises:
        IndexUnusableError: if it is absent, stale or broken, or `vss` cannot be loaded.
    """

    def __init__(self, store: ObjectStore, dataset: Dataset, ef_search: int | None = None) -> None:
        self.info = read_info(store, dataset)
        self.ef_search = ef_search or self.info.ef_search
        try:
            self._con = open_index_file(_local(store, dataset, self.info), self.ef_search)
            self._check(dataset.manifest.dimensions)
        except (duckdb.Error, StoreError) as error:
            raise IndexUnusableError(f"the index is broken: {duck.first_line(error)}") from error

    def _check(self, dimensions: int) -> None:
        """Ask for one row, which loads the whole index, and see that it was used."""
        query = nearest_sql("tile_id", dimensions)
        parameters = {"vector": [1.0] + [0.0] * (dimensions - 1), "n": 1}
        plan = self._con.execute(f"EXPLAIN {query}", parameters).fetchall()[0][1]
        if "HNSW_INDEX_SCAN" not in plan:
            raise IndexUnusableError("the index is broken: DuckDB does not use it")
        self._con.execute(query, parameters).fetchall()

    def nearest(self, vector: NDArray[np.float32], k: int, filters: Filters) -> pa.Table | None:
        """The k nearest tiles that pass, by distance, ties by tile id; None if the index cannot tell.

        It cannot if fewer than k of the rows that it finds pass the filters, or if more rows may be as far as the k-th.

        Args:
            vector: the query, shape (dimensions,).
            k: rows.
            filters: which tiles may answer.

        Returns:
            As `rasterembed.search.engines.scan.exact_nearest`.

        Raises:
            IndexUnusableError: if it turns out to be broken.
        """
        # one more than needed shows whether the k-th shares its distance with rows that were not fetched
        fetch = (k * _OVERFETCH if filters.narrow else k) + len(filters.excluded) + 1
        if fetch > MAX_FETCH:
            return None
        try:
            found = self._con.execute(
                nearest_sql(COLUMNS, len(vector)), {"vector": vector.tolist(), "n": fetch}
            ).to_arrow_table()
        except duckdb.Error as error:
            raise IndexUnusableError(f"the index is broken: {duck.first_line(error)}") from error
        kept = filters.keep(found).sort_by([("distance", "ascending"), ("tile_id", "ascending")])
        if len(kept) < k or not kept["distance"][k - 1].as_py() < pc.max(found["distance"]).as_py():
            return None
        return kept.slice(0, k)

    def close(self) -> None:
        """Give the memory back."""
        self._con.close()


def nearest_sql(columns: str, dimensions: int) -> str:
    """The one form that `vss` answers from its index, and rightly: no condition, no offset, no second sort key."""
    distance = f"array_cosine_distance(embedding, $vector::FLOAT[{dimensions}])"
    return f"SELECT {columns}, {distance} AS distance FROM ix.vectors ORDER BY distance LIMIT $n"


def load_vss(con: duckdb.DuckDBPyConnection) -> None:
    """Load `vss`.

    Raises:
        VssMissingError: if it cannot be had.
    """
    if not duck.load_vss(con):
        raise VssMissingError(f"DuckDB {duckdb.__version__} has no vss extension here")


def open_index_file(path: Path, ef_search: int) -> duckdb.DuckDBPyConnection:
    """A connection with an index's database attached as `ix`, read-only.

    Raises:
        VssMissingError: if `vss` cannot be loaded.
        duckdb.Error: if the file is no database.
    """
    con = duck.connect()
    try:
        # the index is loaded whole, and counts; DuckDB's GB is 10^9 bytes
        con.execute(f"SET memory_limit = '{1 + path.stat().st_size / 1e9:.3f}GB'")
        load_vss(con)
        con.execute(f"ATTACH {quoted(path)} AS ix (READ_ONLY)")
        con.execute(f"SET hnsw_ef_search = {int(ef_search)}")
        # the index scan hands out the columns itself; joining them back scans the whole table, measured
        con.execute("SET late_materialization_max_rows = 0")
    except BaseException:
        con.close()
        raise
    return con


def quoted(path: Path) -> str:
    """A path as an SQL string, which knows no escape but the doubled quote; ATTACH takes no parameters."""
    return "'" + str(path).replace("'", "''") + "'"


def _local(store: ObjectStore, dataset: Dataset, info: IndexInfo) -> Path:
    """The index's file on this machine, whole; from S3 it is fetched once.

    Raises:
        IndexUnusableError: if it is gone, or not what `index.json` says.
    """
    key = dataset.layout.vector_index_file(info.file)
    path = _fetched(store, dataset, key, info) if store.is_s3 else Path(store.uri(key))
    # damage among the vectors ends the whole process: vss meets DuckDB's checksum error where it may not throw
    if not _is_whole(path, info):
        if store.is_s3:
            path.unlink(missing_ok=True)
        raise IndexUnusableError("the index is broken: its file is gone, cut off or damaged")
    return path


def _is_whole(path: Path, info: IndexInfo) -> bool:
    if not path.is_file() or path.stat().st_size != info.bytes:
        return False
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest() == info.sha256


def _fetched(store: ObjectStore, dataset: Dataset, key: str, info: IndexInfo) -> Path:
    """The index's place in the cache of this machine, filled from the store; one file a dataset is kept."""
    home = cache_folder() / "indexes"
    origin = f"{store.endpoint_url} {store.uri(dataset.layout.vector_index_folder)}"
    path = home / hashlib.sha256(origin.encode()).hexdigest()[:16] / info.file
    with os_errors(str(path)):
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_file():
            return path
        try:
            with new_file(path) as part, store.open(key) as source, part.open("wb") as target:
                shutil.copyfileobj(source, target, 16 * 2**20)
        except FileNotFoundError as error:
            raise IndexUnusableError("the index is broken: its file is gone, cut off or damaged") from error
        for old in path.parent.glob("*.duckdb"):
            if old != path:
                old.unlink(missing_ok=True)
    return path
