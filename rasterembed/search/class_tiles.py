"""Read the tiles of some classes from a file with a class for each tile, such as the clusters of a dataset."""

from __future__ import annotations

import io
import threading
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import IO

import pyarrow as pa
import pyarrow.compute as pc

from rasterembed.dataset.geoparquet import PARQUET_ERRORS
from rasterembed.errors import DataError, UsageError, one_line
from rasterembed.number_text import first_names
from rasterembed.search.output_file import STORE_PREFIX
from rasterembed.search.query import Where
from rasterembed.store.local_path import absolute_path
from rasterembed.store.object_store import ObjectStore
from rasterembed.store.storage import ObjectInfo

_ENDINGS = (".parquet", ".csv")

_COLUMNS = ("tile_id", "class", "dataset_id")
"""Columns that are read. A file may lack `dataset_id`."""

_MAX_BYTES = 2**30
"""Largest size of a file with classes, and of its columns in memory, in bytes. The file of ten million tiles of a
collection has about 50 MB as Parquet, and takes up to 800 MB in memory."""

_BATCH_ROWS = 16_384
"""Largest number of rows that are read from a Parquet file at once."""

_LISTED = 10
"""Largest number of classes that an error names."""

_MOST_KEPT = 4
"""Number of files whose tiles are kept for the next query."""


@dataclass(frozen=True, eq=False)
class ClassTiles:
    """The tiles of some classes. Tiles of other datasets than the searched ones may be among them."""

    key: tuple[str, ...]
    """Two objects with the same key have the same tiles: address and version of the file, and the classes."""
    tile_ids: pa.Array
    """Ids of the tiles, shape (n,)."""
    dataset_ids: pa.Array | None
    """Id of the dataset of each tile, shape (n,). None if the file has no such column."""

    def of_dataset(self, dataset_id: str) -> pa.Array:
        """Return the ids of the tiles of one dataset. If the file names no datasets, all its tiles are of this one."""
        if self.dataset_ids is None:
            return self.tile_ids
        return self.tile_ids.filter(pc.equal(self.dataset_ids, dataset_id))

    def hint(self, searched: Iterable[str]) -> str:
        """Return a hint if the file has no tile of a searched dataset in these classes, else an empty text.

        Args:
            searched: ids of the searched datasets.
        """
        if self.dataset_ids is None:
            return ""
        named = sorted(pc.unique(self.dataset_ids).drop_null().to_pylist())
        if not set(named).isdisjoint(searched):
            return ""
        others = first_names(named, _LISTED) or "none"
        return f"{self.key[0]} has tiles of these classes only in other datasets: {others}"

    def named(self) -> pa.Table:
        """Return the columns `dataset_id` and `tile_id`. The file must have the column `dataset_id`."""
        return pa.table({"dataset_id": self.dataset_ids, "tile_id": self.tile_ids})


class ClassFiles:
    """Reads files with classes, and keeps the tiles of the last files. Several threads may use one object.

    Args:
        store: store with the credentials for files on S3.
    """

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self._kept: OrderedDict[tuple[str, ...], ClassTiles] = OrderedDict()
        self._lock = threading.Lock()

    def read(self, where: Where, *, needs_datasets: bool) -> ClassTiles | None:
        """Return the tiles of the classes in `where.classes`, or None if there is no filter for classes.

        Args:
            where: the filters of a search.
            needs_datasets: whether the file must say of which dataset each tile is.

        Raises:
            UsageError: if the file has another ending, or no tile of one of the classes; or if the file must have the
                column `dataset_id`, and lacks it.
            StoreError: if the file cannot be opened.
            DataError: if the file is no table with the columns `tile_id` and `class`.
        """
        if where.class_file is None:
            return None
        address = where.class_file
        if not address.lower().endswith(_ENDINGS):
            raise UsageError(f"{address}: give a file with classes that ends in {' or '.join(_ENDINGS)}")
        info, file = self._open(address)
        with file:
            key = (address, info.version, str(info.size), *where.classes)
            with self._lock:
                tiles = self._kept.get(key)
            if tiles is None:
                tiles = _chosen(address, _read_table(address, file, info), where.classes, key)
        with self._lock:
            self._kept[key] = tiles
            self._kept.move_to_end(key)
            while len(self._kept) > _MOST_KEPT:
                self._kept.popitem(last=False)
        if needs_datasets and tiles.dataset_ids is None:
            raise UsageError(
                f"{address} has no column dataset_id, so its tiles may be of any searched dataset: add this column"
            )
        return tiles

    def _open(self, address: str) -> tuple[ObjectInfo, IO[bytes]]:
        """Open a file of the store, a local file, or a file on S3. Return its size and version, and the open file."""
        store = self._store
        key = None
        if address.startswith(STORE_PREFIX):
            key = address.removeprefix(STORE_PREFIX)
        elif store.is_s3 and address.startswith(f"{store.root}/"):
            key = address.removeprefix(f"{store.root}/")
        if key is not None and store.is_s3:
            file = store.open(key)
            return file.info, file  # type: ignore[attr-defined]
        uri = store.uri(key) if key is not None else address
        uri = uri if "://" in uri else str(absolute_path(uri))
        return store.describe(uri), store.open_uri(uri)


def _read_table(address: str, file: IO[bytes], info: ObjectInfo) -> pa.Table:
    """Return the columns `tile_id`, `class` and, if the file has it, `dataset_id`."""
    if info.size > _MAX_BYTES:
        raise DataError(f"{address}: it has more than {_MAX_BYTES // 2**20} MiB: split it, or write it as Parquet")
    try:
        if PurePosixPath(address).suffix.lower() == ".csv":
            table = _read_csv(address, file)
        else:
            table = _read_parquet(address, file)
        return pa.table({name: pc.cast(table[name], pa.string()) for name in table.column_names})
    except DataError:
        raise
    except PARQUET_ERRORS as error:
        raise DataError(f"{address}: it cannot be read as a table of classes: {one_line(error)}") from error


def _known_columns(address: str, names: Sequence[str]) -> list[str]:
    """Return the names of the columns to read.

    Raises:
        DataError: if the file lacks a needed column, or has two of one name.
    """
    for name in _COLUMNS:
        if name not in names and name != "dataset_id":
            raise DataError(f"{address}: it has no column {name}: give the columns tile_id and class")
        if names.count(name) > 1:
            raise DataError(f"{address}: it has several columns {name}: give each name once")
    return [name for name in _COLUMNS if name in names]


def _read_parquet(address: str, file: IO[bytes]) -> pa.Table:
    """Read the columns of a Parquet file. A small file can have billions of equal rows, so their size is counted."""
    import pyarrow.parquet as pq  # A search without a file of classes does not need it.

    parquet = pq.ParquetFile(file)
    schema = parquet.schema_arrow
    wanted = _known_columns(address, schema.names)
    parts, size = [], 0
    for batch in parquet.iter_batches(_BATCH_ROWS, columns=wanted):
        parts.append(batch.select(wanted))
        size += batch.nbytes
        if size > _MAX_BYTES:
            raise DataError(f"{address}: its rows take more than {_MAX_BYTES // 2**20} MiB: split it by class")
    return pa.Table.from_batches(parts, pa.schema([schema.field(name) for name in wanted]))


def _read_csv(address: str, file: IO[bytes]) -> pa.Table:
    """Read a CSV file. All values are texts, so that a class such as 007 keeps its zeros."""
    import pyarrow.csv

    data = file.read()
    wanted = _known_columns(address, pyarrow.csv.open_csv(io.BytesIO(data)).schema.names)
    types = {name: pa.string() for name in _COLUMNS}
    options = pyarrow.csv.ConvertOptions(column_types=types, include_columns=wanted)
    return pyarrow.csv.read_csv(io.BytesIO(data), convert_options=options)


def _chosen(address: str, table: pa.Table, classes: Sequence[str], key: tuple[str, ...]) -> ClassTiles:
    """Return the tiles of some classes.

    Raises:
        UsageError: if the file has no rows, or if one of the classes has no tile.
    """
    if not len(table):
        raise UsageError(f"{address}: it has no rows: give a file with a row for each tile")
    rows = table.filter(pc.is_in(table["class"], pa.array(classes, pa.string()))).combine_chunks()
    found = pc.unique(rows["class"]).to_pylist()
    missing = [name for name in classes if name not in found]
    if missing:
        known = sorted(pc.unique(table["class"]).drop_null().to_pylist())
        of_file = first_names(known, _LISTED) or "empty"
        raise UsageError(f"{address}: no tile has the class {' or '.join(missing)}: its classes are {of_file}")
    columns = {name: pc.cast(rows[name], pa.string()).combine_chunks() for name in rows.column_names}
    return ClassTiles(key, columns["tile_id"], columns.get("dataset_id"))
