"""Write the table of a collection. Only the files are written whose scenes changed."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import shapely
from numpy.typing import NDArray

from rasterembed.collection.catalogue import Catalogue
from rasterembed.collection.cells import Cell, cut_into_cells, row_keys
from rasterembed.collection.configuration import CollectionConfiguration
from rasterembed.collection.lattice import lattice_of
from rasterembed.collection.scene_row import SceneState
from rasterembed.collection.stac_collection import table_asset
from rasterembed.collection.table import (
    TABLE_VERSION,
    TableDescription,
    TablePart,
    read_table,
    signature_of,
    table_schema,
)
from rasterembed.dataset.dataset import Dataset
from rasterembed.dataset.geoparquet import PARQUET_ERRORS, GeoMetadata, geoparquet_writer, place_columns, write_metadata
from rasterembed.dataset.receipts import RECEIPT_KEY
from rasterembed.dataset.shards import ROW_GROUP_ROWS
from rasterembed.dataset.stac_fields import ASSET_KEY
from rasterembed.dataset.vector_column import EMBEDDING, vector_encoding
from rasterembed.dataset.wkb import FootprintError, read_footprints
from rasterembed.errors import Access, DataError, StoreError, StoreUnavailableError, one_line, os_errors
from rasterembed.number_text import counted
from rasterembed.raster.footprints import Footprints
from rasterembed.store.layout import CollectionLayout, name_of
from rasterembed.store.local_cache import temporary_folder
from rasterembed.store.local_file import local_file
from rasterembed.store.object_store import ObjectStore
from rasterembed.store.store_command import store_command

_PART_BYTES = 128 * 2**20
"""Largest size in bytes of the vectors in a file of the table. Many files have about two thirds of it."""

_MAX_PARTS = 256
"""Number of full files. Larger tables have larger files, because a temporary file for each of them is open at once."""

_KEY = "key"
"""Name of a column of the temporary files: the key of the row."""

_PLACE_COLUMNS = ["row", "col", "geometry"]
"""Columns of a shard from which the key of a row is made, with the id of the dataset."""

_BATCH_ROWS = 8192
"""Largest number of rows of an old file that are in memory at once."""


@dataclass(frozen=True)
class _Scene:
    """A scene that belongs into the table, with values from the catalogue."""

    id: str
    fingerprint: str
    time: pa.Scalar
    """Time of acquisition. It may be null."""
    rows: int
    placed: bool
    """Whether the scene has a place on Earth."""

    @property
    def text(self) -> str:
        """The line of the scene in the digest of a file."""
        return f"{self.id} {self.fingerprint} {self.time.value}\n"


@dataclass(frozen=True)
class _OldPart:
    """A file of the present table whose scenes did not change."""

    part: TablePart
    keys: NDArray[np.int64]
    """Keys of its rows in ascending order, shape (rows,)."""
    scenes: dict[str, int]
    """Number of rows of each scene in the file, by the id of its dataset."""


class _OldTableError(Exception):
    """The present table is damaged, so the new table must be made from the shards alone."""


def write_table(
    store: ObjectStore,
    layout: CollectionLayout,
    configuration: CollectionConfiguration,
    catalogue: Catalogue,
    check: Callable[[], None] = lambda: None,
) -> TableDescription:
    """Write the table with the vectors of all scenes in state `ready`, unless the store has the same table.

    Files of the present table stay if their cell and their scenes are the same. A new scene changes only the files of
    its surroundings. Shards of unchanged scenes are not read, except those with rows in the same file as a scene that
    changed or is gone. Equal scenes give files with equal bytes, whatever the earlier tables were.

    Rows are read twice. In the first pass, only their places are read, which takes 16 bytes of memory a row. In the
    second pass, each row goes to a temporary file for its cell. Then each cell is sorted and written. Only one cell is
    in memory at a time.

    Args:
        store: store of the collection.
        layout: layout of the collection.
        configuration: configuration of the collection.
        catalogue: all scenes.
        check: function that raises an error if the run has lost its lease. It is called before each change.

    Raises:
        DataError: if the shards of a scene cannot be read, or do not fit the catalogue.
        StoreError: if the store refuses, or if the disk is full.
    """
    signature = signature_of(configuration, catalogue)
    existing = _usable(store, layout)
    if existing is not None and existing.signature == signature and _is_whole(store, layout, existing):
        return existing
    writer = _TableWriter(store, layout, configuration, _scenes(catalogue), check)
    try:
        parts = writer.write(writer.unchanged_parts(existing))
    except _OldTableError:
        parts = writer.write([])
    table = TableDescription(
        signature=signature, rows=sum(part.rows for part in parts), scenes=len(writer.scenes), parts=tuple(parts)
    )
    check()
    store.write(layout.table, table.model_dump_json(indent=1).encode())
    kept = {name_of(part.path) for part in parts}
    for name in sorted(store.sizes(layout.table_folder)):
        if layout.is_table_part(name) and name not in kept:
            check()
            store.delete(layout.table_file(name))
    return table


def is_table_due(store: ObjectStore, layout: CollectionLayout, catalogue: Catalogue) -> bool:
    """Return whether a collection has ready scenes, which belong into a table, or has a table already."""
    return SceneState.READY in catalogue.counts() or name_of(layout.table) in store.sizes(layout.table_folder)


def update_table(
    store: ObjectStore,
    layout: CollectionLayout,
    configuration: CollectionConfiguration,
    catalogue: Catalogue,
    check: Callable[[], None],
) -> TableDescription | None:
    """Write the table for a changed catalogue, if the collection has a table. See `write_table`.

    Returns:
        The new table. None if the collection has none.
    """
    if not store.sizes(layout.table_folder):
        return None
    return write_table(store, layout, configuration, catalogue, check)


def _usable(store: ObjectStore, layout: CollectionLayout) -> TableDescription | None:
    """Return the description of the present table, or None if there is none or it is damaged."""
    try:
        return read_table(store, layout)
    except StoreError:
        raise
    except DataError:  # The table is derived. It is written again.
        return None


def _is_whole(store: ObjectStore, layout: CollectionLayout, table: TableDescription) -> bool:
    """Return whether the files of a table have the listed sizes, and no other file is left of a killed run."""
    sizes = {name: size for name, size in store.sizes(layout.table_folder).items() if layout.is_table_part(name)}
    return sizes == {name_of(part.path): part.bytes for part in table.parts}


def _scenes(catalogue: Catalogue) -> dict[str, _Scene]:
    """Return the scenes that belong into the table, by the ids of their datasets."""
    ready = catalogue.filter(states=[SceneState.READY]).table
    names = ("id", "fingerprint", "datetime", "rows")
    columns = [ready[name].to_pylist() for name in names]
    placed = ready["geometry"].is_valid().to_pylist()
    time_type = pa.timestamp("ms", tz="UTC")
    return {
        row[0]: _Scene(row[0], row[1], pa.scalar(row[2], type=time_type), row[3], row[4])
        for row in zip(*columns, placed, strict=True)
    }


class _TableWriter:
    """Writes the files of one table."""

    def __init__(
        self,
        store: ObjectStore,
        layout: CollectionLayout,
        configuration: CollectionConfiguration,
        scenes: dict[str, _Scene],
        check: Callable[[], None],
    ) -> None:
        self._store, self._layout, self._configuration, self._check = store, layout, configuration, check
        self.scenes = scenes
        self._schema = table_schema(configuration)
        # `bbox` is made from the geometry at the end.
        names = [name for name in self._schema.names if name != "bbox"]
        self._unsorted = pa.schema([*map(self._schema.field, names), pa.field(_KEY, pa.int64(), nullable=False)])

    def unchanged_parts(self, table: TableDescription | None) -> list[_OldPart]:
        """Return the files of the present table whose scenes did not change."""
        sizes = {} if table is None else self._store.sizes(self._layout.table_folder)
        found = []
        for part in () if table is None else table.parts:
            if sizes.get(name_of(part.path)) == part.bytes:
                old = self._unchanged_part(part)
                if old is not None:
                    found.append(old)
        return found

    def _unchanged_part(self, part: TablePart) -> _OldPart | None:
        """Return a file of the present table, or None if it is damaged, or if a scene of it changed or is gone."""
        keys, scenes = [np.empty(0, np.int64)], dict[str, int]()
        try:
            with self._store.open(part.path) as file:
                parquet = pq.ParquetFile(file)
                if not parquet.schema_arrow.equals(self._schema):
                    return None
                for batch in parquet.iter_batches(_BATCH_ROWS, columns=["dataset_id", *_PLACE_COLUMNS]):
                    keys.append(self._keys(batch, part.path))
                    for count in batch.column("dataset_id").value_counts().to_pylist():
                        scenes[count["values"]] = scenes.get(count["values"], 0) + count["counts"]
        except StoreUnavailableError:
            raise
        except (*PARQUET_ERRORS, DataError):
            return None
        if not scenes.keys() <= self.scenes.keys() or self._digest(part.cell, scenes) != part.scenes:
            return None
        whole = np.concatenate(keys)
        inside = len(whole) == part.rows and part.first <= whole[0] and whole[-1] < part.cell.end
        return _OldPart(part, whole, scenes) if inside and (np.diff(whole) >= 0).all() else None

    def write(self, old: Sequence[_OldPart]) -> list[TablePart]:
        """Write the files of the table that the store does not have yet, and return all files of the table.

        Args:
            old: files of the present table whose scenes did not change.

        Raises:
            _OldTableError: if one of the old files is damaged.
        """
        new_keys, to_read = self._first_pass(old)
        old_keys = [part.keys for part in old]
        every = np.sort(np.concatenate([new_keys, *old_keys]))
        cells = cut_into_cells(every, self._rows_of_cell(len(every)))
        same = {part.part.cell: part.part for part in old if not _count(new_keys, part.part.cell)}
        kept = {cell: same[cell] for cell in cells if cell in same}
        wanted = [cell for cell in cells if cell not in kept]
        del every, new_keys
        with temporary_folder("table") as dealt:
            sources = [part.part for part in old if part.part.cell not in kept]
            with os_errors(str(dealt), Access.WRITE):
                self._deal(sources, to_read, wanted, dealt)
            written = {}
            for number, cell in enumerate(wanted):
                self._check()
                written[cell] = self._write_part(cell, _dealt_file(dealt, number))
        return [kept.get(cell) or written[cell] for cell in cells]

    def _first_pass(self, old: Sequence[_OldPart]) -> tuple[NDArray[np.int64], dict[str, _Gaps]]:
        """Find the rows that are not in the old files.

        Returns:
            The keys of these rows, ascending, and the scenes to read, with the part of the curve that the old files
            lack of each scene.
        """
        counts: dict[str, int] = {}
        cells: dict[str, list[Cell]] = {}
        for part in old:
            for dataset_id, count in part.scenes.items():
                counts[dataset_id] = counts.get(dataset_id, 0) + count
                cells.setdefault(dataset_id, []).append(part.part.cell)
        keys, to_read = [np.empty(0, np.int64)], {}
        for scene in self.scenes.values():
            missing = scene.rows - counts.get(scene.id, 0)
            if missing == 0:
                continue
            to_read[scene.id] = gaps = _Gaps(cells.get(scene.id, []))
            own = [self._keys(batch, scene.id) for batch in self._shard_rows(scene, _PLACE_COLUMNS)]
            found = sum(map(len, own))
            if found != scene.rows:
                raise DataError(
                    f"dataset {scene.id!r}: its shards have {counted(found, 'row')}, and its manifest says "
                    f"{scene.rows}: run {store_command(self._store, f'datasets verify {scene.id}')}"
                )
            own = [some[gaps.have(some)] for some in own]
            if sum(map(len, own)) != missing:
                raise _OldTableError
            keys += own
        return np.sort(np.concatenate(keys)), to_read

    def _keys(self, rows: pa.RecordBatch | pa.Table, name: str) -> NDArray[np.int64]:
        """Return the keys of rows with the columns `dataset_id`, `row`, `col` and `geometry`, shape (n,)."""
        bounds = shapely.bounds(_geometry(rows.column("geometry"), name)).reshape(-1, 4)
        row, col = (rows.column(column).to_numpy(zero_copy_only=False) for column in ("row", "col"))
        ids = rows.column("dataset_id")
        return row_keys(bounds, ids.combine_chunks() if isinstance(ids, pa.ChunkedArray) else ids, row, col)

    def _shard_rows(self, scene: _Scene, names: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Yield the rows of a scene's shards in batches, as the columns `dataset_id` and `names` of the table."""
        dataset = Dataset.open(self._store, scene.id)
        if dataset.manifest.fingerprint != scene.fingerprint:
            raise DataError(
                f"dataset {scene.id!r} is another one than the catalogue of {self._layout.owner} says: "
                f"{store_command(self._store, f'collection verify {self._layout.collection_id}')} says what to do"
            )
        anchored = self._configuration.grid.anchor == "crs" and "lattice" in names
        lattice = pa.scalar(lattice_of(dataset.plan) if anchored else None, type=pa.string())
        stored = [name for name in names if name not in ("datetime", "lattice")]
        for batch in dataset.batches(stored):
            columns = {name: batch.column(name) for name in stored}
            columns["datetime"] = pa.repeat(scene.time, len(batch))
            columns["lattice"] = pa.repeat(lattice, len(batch))
            if not scene.placed:  # The footprints of such a scene are in pixels, which no reader of the table expects.
                columns["geometry"] = pa.nulls(len(batch), pa.binary())
            ids = pa.repeat(pa.scalar(scene.id), len(batch))
            yield pa.RecordBatch.from_arrays([ids, *(columns[name] for name in names)], names=["dataset_id", *names])

    def _rows_of_cell(self, rows: int) -> int:
        """Return the largest number of rows in a cell. It grows only in steps of two, so that most cells stay."""
        vector = self._schema.field(EMBEDDING).type
        most: int = max(_PART_BYTES // (vector.list_size * vector.value_type.bit_width // 8), 1)
        while rows > most * _MAX_PARTS:
            most *= 2
        return most

    def _digest(self, cell: Cell, dataset_ids: Iterable[str]) -> str:
        """Return a digest of a cell and of the scenes with rows in it. Equal digests mean equal files."""
        head = f"{TABLE_VERSION} {self._configuration.fingerprint} {cell.first} {cell.level}\n"
        lines = [self.scenes[dataset_id].text for dataset_id in sorted(dataset_ids)]
        return hashlib.sha256("".join([head, *lines]).encode()).hexdigest()

    def _deal(
        self, old: Sequence[TablePart], to_read: Mapping[str, _Gaps], cells: Sequence[Cell], folder: Path
    ) -> None:
        """Read all rows of the cells once, and write each row into the temporary file of its cell.

        Args:
            old: files of the present table to read.
            to_read: scenes to read, with the part of the curve that the old files lack of each scene.
            cells: the cells, in the order of the curve.
            folder: folder of the temporary files.
        """
        firsts = np.array([cell.first for cell in cells], np.int64)
        writers: dict[int, pa.ipc.RecordBatchStreamWriter] = {}
        with ExitStack() as stack:
            for rows in self._rows_to_deal(old, to_read, folder):
                numbers = np.searchsorted(firsts, rows[_KEY].to_numpy(), side="right") - 1
                for number in np.unique(numbers).tolist():
                    if number not in writers:
                        file = _dealt_file(folder, number)
                        writers[number] = stack.enter_context(pa.ipc.new_stream(str(file), self._unsorted))
                    writers[number].write_table(rows.filter(pa.array(numbers == number)))

    def _rows_to_deal(self, old: Sequence[TablePart], to_read: Mapping[str, _Gaps], folder: Path) -> Iterator[pa.Table]:
        names = [name for name in self._unsorted.names if name not in ("dataset_id", _KEY)]
        for part in old:
            for batch in self._old_rows(part, ["dataset_id", *names], folder):
                yield self._with_keys(batch, part.path)
        for dataset_id, gaps in to_read.items():
            for batch in self._shard_rows(self.scenes[dataset_id], names):
                rows = self._with_keys(batch, dataset_id)
                yield rows.filter(pa.array(gaps.have(rows[_KEY].to_numpy())))

    def _with_keys(self, batch: pa.RecordBatch, name: str) -> pa.Table:
        columns = [batch.column(name) for name in self._unsorted.names if name != _KEY]
        try:
            return pa.table([*columns, pa.array(self._keys(batch, name))], schema=self._unsorted)
        except (pa.ArrowException, ValueError) as error:
            raise DataError(
                f"dataset {name!r}: its shards have other columns than the table ({one_line(error)})"
            ) from error

    def _old_rows(self, part: TablePart, names: list[str], folder: Path) -> Iterator[pa.RecordBatch]:
        """Yield the rows of an old file, after a check of its digest."""
        copy = folder / "old.parquet"
        with self._store.open(part.path) as source, copy.open("wb") as target:
            shutil.copyfileobj(source, target, 16 * 2**20)
        with copy.open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != part.sha256:
                raise _OldTableError
        yield from pq.ParquetFile(copy).iter_batches(_BATCH_ROWS, columns=names)
        copy.unlink()

    def _write_part(self, cell: Cell, file: Path) -> TablePart:
        """Sort the rows of a temporary file, and write them as a file of the table."""
        with os_errors(str(file)), pa.OSFile(str(file)) as source:
            rows = pa.ipc.open_stream(source).read_all()
        rows = rows.sort_by([(name, "ascending") for name in (_KEY, "dataset_id", "row", "col")])
        geometry = _geometry(rows["geometry"], str(cell))
        footprints = Footprints(geometry=geometry, bounds=shapely.bounds(geometry))
        geo = GeoMetadata()
        geo.add(footprints)
        bbox, _ = place_columns(footprints)
        digest = self._digest(cell, rows["dataset_id"].unique().to_pylist())
        rows = rows.combine_chunks()
        rows = pa.table([bbox if name == "bbox" else rows[name] for name in self._schema.names], schema=self._schema)
        key = self._layout.table_part(cell.first, cell.level, digest)
        encoding = vector_encoding(self._configuration.selection.vector_dtype)
        encoding["use_dictionary"] = ["dataset_id", "lattice", *(encoding["use_dictionary"] or ())]
        with (
            local_file(self._store, key, replace=True) as target,
            geoparquet_writer(target.path, self._schema, **encoding) as writer,
        ):
            writer.write_table(rows, row_group_size=ROW_GROUP_ROWS)
            receipt = json.dumps({"collection": self._layout.collection_id}).encode()
            asset = table_asset(self._layout, self._configuration)
            write_metadata(writer, self._schema, {"geo": geo.json(), ASSET_KEY: asset, RECEIPT_KEY: receipt})
        file.unlink()
        return TablePart(
            path=key,
            first=cell.first,
            level=cell.level,
            scenes=digest,
            rows=len(rows),
            bytes=target.size,
            sha256=target.sha256,
        )


class _Gaps:
    """The part of the curve that is outside some cells."""

    def __init__(self, cells: Sequence[Cell]) -> None:
        ordered = sorted(cells)
        self._firsts = np.array([cell.first for cell in ordered], np.int64)
        self._ends = np.array([0, *(cell.end for cell in ordered)], np.int64)

    def have(self, keys: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return which keys are outside all cells, shape (n,)."""
        outside: NDArray[np.bool_] = keys >= self._ends[np.searchsorted(self._firsts, keys, side="right")]
        return outside


def _count(keys: NDArray[np.int64], cell: Cell) -> int:
    """Return the number of ascending keys in a cell."""
    return int(np.searchsorted(keys, cell.end) - np.searchsorted(keys, cell.first))


def _geometry(column: pa.Array, name: str) -> NDArray[np.object_]:
    """Return footprints from WKB, shape (n,). A missing footprint is None."""
    try:
        return read_footprints(column)
    except FootprintError as error:
        raise DataError(f"{name}: a footprint cannot be read ({error})") from error


def _dealt_file(folder: Path, number: int) -> Path:
    return folder / f"{number}.arrow"
