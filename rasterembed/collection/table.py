"""The table of a collection: the vectors of all scenes in one set of GeoParquet files, in the order of a Hilbert curve.

The table is derived from the shards of the scenes. Near tiles are in the same file and the same row group, so a reader
of one place reads little. A description lists the files of the table. It is written last, so readers that begin with
the description see the old table or the new one.
"""

from __future__ import annotations

import hashlib
import json
import math
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import shapely
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from rasterembed.collection.catalogue import Catalogue
from rasterembed.collection.configuration import CollectionConfiguration
from rasterembed.collection.hilbert import hilbert_keys
from rasterembed.collection.scene_row import SceneState
from rasterembed.dataset.dataset import Dataset
from rasterembed.dataset.geoparquet import BBOX_TYPE, GeoMetadata, geoparquet_writer, place_columns, write_metadata
from rasterembed.dataset.shards import ROW_GROUP_ROWS, vector_encoding, vector_type
from rasterembed.errors import DataError, os_errors
from rasterembed.raster.footprints import Footprints
from rasterembed.raster.grid import MAX_TILES
from rasterembed.store.layout import CollectionLayout, name_of
from rasterembed.store.local_file import local_file
from rasterembed.store.object_store import ObjectStore
from rasterembed.store.storage import MAX_OBJECT_BYTES
from rasterembed.store.stored_model import read_model, unreadable

_PART_BYTES = 128 * 2**20
"""Approximate size in bytes of the vectors in a file of the table."""

_MAX_PARTS = 500
"""Largest number of files of a table. A temporary file for each of them is open at once. Larger tables have larger
files."""

_POSITION = "position"
"""Name of a column of the temporary files: the place of the row in the whole table."""

_REMEDY = "run embed_collection again to write the table again"


class TablePart(BaseModel):
    """One file of a table."""

    model_config = ConfigDict(frozen=True)

    path: str
    """Key of the file, relative to the store's root."""
    rows: int = Field(ge=1, le=MAX_TILES)
    """Number of vectors."""
    bytes: int = Field(ge=0, le=MAX_OBJECT_BYTES)
    """Size of the file in bytes."""
    sha256: str
    """SHA-256 digest of the file."""


class TableDescription(BaseModel):
    """The description of a table. It lists the files in the order of the curve."""

    model_config = ConfigDict(frozen=True)

    signature: str = Field(pattern="^[0-9a-f]{64}$")
    """Digest of the scenes in the table. See `signature_of`."""
    rows: int = Field(ge=0)
    """Number of vectors in the table."""
    parts: tuple[TablePart, ...]


@dataclass(frozen=True)
class _Scene:
    """A scene that belongs into the table."""

    dataset: Dataset
    time: pa.Scalar
    """Time of acquisition from the catalogue. It may be null."""
    placed: bool
    """Whether the scene has a place on Earth."""


def table_schema(configuration: CollectionConfiguration) -> pa.Schema:
    """Return the columns of the table: those of a shard, with the dataset's id and the time from the catalogue.

    `bbox` and `geometry` are null for tiles without a place on Earth.
    """
    vector = vector_type(configuration.selection, configuration.model)
    return pa.schema(
        [
            pa.field("dataset_id", pa.string(), nullable=False),
            pa.field("tile_id", pa.string(), nullable=False),
            *(
                pa.field(name, pa.int32(), nullable=False)
                for name in ("row", "col", "col_off", "row_off", "width", "height")
            ),
            pa.field("valid_fraction", pa.float32(), nullable=False),
            pa.field("norm", pa.float32(), nullable=False),
            pa.field("embedding", vector, nullable=False),
            pa.field("datetime", pa.timestamp("ms", tz="UTC")),
            pa.field("bbox", BBOX_TYPE),
            pa.field("geometry", pa.binary()),
        ]
    )


def signature_of(configuration: CollectionConfiguration, catalogue: Catalogue) -> str:
    """Return a digest of the scenes that belong into the table: their ids, fingerprints and times.

    Two tables with the same signature have the same rows.
    """
    ready = catalogue.filter(states=[SceneState.READY]).table
    digest = hashlib.sha256(configuration.fingerprint.encode())
    for row in ready.select(["id", "fingerprint", "datetime"]).to_pylist():
        digest.update(f"{row['id']} {row['fingerprint']} {row['datetime']}\n".encode())
    return digest.hexdigest()


def read_table(store: ObjectStore, layout: CollectionLayout) -> TableDescription | None:
    """Read the description of a collection's table, or return None if the collection has no table.

    Raises:
        DataError: if this version cannot read the description.
    """
    key = layout.table
    table = read_model(store, key, TableDescription, name="table", remedy=_REMEDY)
    if table is None:
        return None
    for number, part in enumerate(table.parts):
        if part.path != layout.table_part(table.signature, number):
            reason = f"parts: the path of file {number} is not the one that the layout gives it"
            raise unreadable(store, key, name="table", reason=reason, remedy=_REMEDY)
    if table.rows != sum(part.rows for part in table.parts):
        reason = "rows: it is not the sum of the files"
        raise unreadable(store, key, name="table", reason=reason, remedy=_REMEDY)
    return table


def write_table(
    store: ObjectStore,
    layout: CollectionLayout,
    configuration: CollectionConfiguration,
    catalogue: Catalogue,
    check: Callable[[], None] = lambda: None,
) -> TableDescription:
    """Write the table with the vectors of all scenes in state `ready`, unless the store has the same table.

    The vectors are read twice. In the first pass, only their places are read and sorted, which takes 24 bytes of memory
    a row. In the second pass, each row goes to a temporary file for its part of the curve. Then each part is sorted.
    One part is in memory at a time. Equal scenes give files with equal bytes, because they hold no time and no run.

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
    scenes = _scenes(store, catalogue)
    places = _places(scenes)
    schema = table_schema(configuration)
    part_rows = _rows_of_part(schema, len(places))
    parts = []
    with tempfile.TemporaryDirectory(prefix="rasterembed-table-") as folder:
        with os_errors(folder):
            _deal(scenes, schema, places, part_rows, Path(folder))
        for number in range(math.ceil(len(places) / part_rows)):
            check()
            key = layout.table_part(signature, number)
            parts.append(_write_part(store, layout, key, schema, _part_file(Path(folder), number)))
    table = TableDescription(signature=signature, rows=len(places), parts=tuple(parts))
    check()
    store.write(layout.table, table.model_dump_json(indent=1).encode())
    kept = {name_of(part.path) for part in parts}
    for name in sorted(store.sizes(layout.table_folder)):
        if layout.is_table_part(name) and name not in kept:
            check()
            store.delete(layout.table_file(name))
    return table


def _usable(store: ObjectStore, layout: CollectionLayout) -> TableDescription | None:
    """Return the description of the present table, or None if there is none or it is damaged."""
    try:
        return read_table(store, layout)
    except DataError:  # The table is derived. It is written again.
        return None


def _is_whole(store: ObjectStore, layout: CollectionLayout, table: TableDescription) -> bool:
    """Return whether the files of a table have the listed sizes, and no other file is left of a killed run."""
    sizes = {name: size for name, size in store.sizes(layout.table_folder).items() if layout.is_table_part(name)}
    return sizes == {name_of(part.path): part.bytes for part in table.parts}


def _scenes(store: ObjectStore, catalogue: Catalogue) -> list[_Scene]:
    ready = catalogue.filter(states=[SceneState.READY]).table
    columns = zip(ready["id"].to_pylist(), ready["datetime"].to_pylist(), ready["geometry"].is_valid(), strict=True)
    return [
        _Scene(Dataset.open(store, dataset_id), pa.scalar(time, type=pa.timestamp("ms", tz="UTC")), placed.as_py())
        for dataset_id, time, placed in columns
    ]


def _places(scenes: list[_Scene]) -> NDArray[np.int64]:
    """Return the place of each row in the table, shape (rows,). The rows are those of all scenes, one after the other.

    Rows of equal keys stay in the order of the scenes' ids and of their shards.
    """
    keys = [np.empty(0, np.int64)]
    for scene in scenes:
        before = sum(map(len, keys))
        for batch in scene.dataset.batches(["bbox"]):
            lon, lat = (_middle(batch.column(0), *names) for names in (("xmin", "xmax"), ("ymin", "ymax")))
            keys.append(hilbert_keys(lon if scene.placed else np.full(len(batch), np.nan), lat))
        found = sum(map(len, keys)) - before
        if found != scene.dataset.manifest.rows:
            raise DataError(
                f"dataset {scene.dataset.id!r}: its shards have {found} rows, and its manifest says "
                f"{scene.dataset.manifest.rows}: run `rasterembed datasets verify {scene.dataset.id}`"
            )
    order = np.argsort(np.concatenate(keys), kind="stable")
    places = np.empty(len(order), np.int64)
    places[order] = np.arange(len(order))
    return places


def _middle(bbox: pa.Array, low: str, high: str) -> NDArray[np.float64]:
    """Return the middle of a side of each box, shape (n,). NaN for a missing box."""
    sides: list[NDArray[np.float64]] = [
        pc.struct_field(bbox, name).to_numpy(zero_copy_only=False).astype(np.float64) for name in (low, high)
    ]
    return (sides[0] + sides[1]) / 2


def _rows_of_part(schema: pa.Schema, rows: int) -> int:
    vector = schema.field("embedding").type
    row_bytes: int = vector.list_size * vector.value_type.bit_width // 8
    return max(_PART_BYTES // row_bytes, math.ceil(rows / _MAX_PARTS), 1)


def _part_file(folder: Path, number: int) -> Path:
    return folder / f"{number}.arrow"


def _deal(scenes: list[_Scene], schema: pa.Schema, places: NDArray[np.int64], part_rows: int, folder: Path) -> None:
    """Read all rows once, and write each row into the temporary file of its part.

    A temporary file has the columns of the table without `bbox`, which the geometry gives, and the column `position`.
    """
    names = [name for name in schema.names if name != "bbox"]
    unsorted = pa.schema([*map(schema.field, names), pa.field(_POSITION, pa.int64(), nullable=False)])
    writers: dict[int, pa.ipc.RecordBatchStreamWriter] = {}
    start = 0
    with ExitStack() as stack:
        for columns in _columns(scenes, names):
            position = places[start : start + len(columns[0])]
            start += len(position)
            whole = pa.table([*columns, pa.array(position)], schema=unsorted)
            parts = position // part_rows
            for number in np.unique(parts).tolist():
                if number not in writers:
                    file = _part_file(folder, number)
                    writers[number] = stack.enter_context(pa.ipc.new_stream(str(file), unsorted))
                writers[number].write_table(whole.filter(pa.array(parts == number)))


def _columns(scenes: list[_Scene], names: list[str]) -> Iterator[list[pa.Array]]:
    """Yield the rows of all scenes in batches, as the columns with these names."""
    stored = [name for name in names if name not in ("dataset_id", "datetime")]
    for scene in scenes:
        for batch in scene.dataset.batches(stored):
            columns = {name: batch.column(name) for name in stored}
            columns["dataset_id"] = pa.repeat(pa.scalar(scene.dataset.id), len(batch))
            columns["datetime"] = pa.repeat(scene.time, len(batch))
            if not scene.placed:  # The footprints of such a scene are in pixels, which no reader of the table expects.
                columns["geometry"] = pa.nulls(len(batch), pa.binary())
            yield [columns[name] for name in names]


def _write_part(store: ObjectStore, layout: CollectionLayout, key: str, schema: pa.Schema, file: Path) -> TablePart:
    """Sort the rows of a temporary file, and write them as a file of the table."""
    with os_errors(str(file)), pa.OSFile(str(file)) as source:
        rows = pa.ipc.open_stream(source).read_all()
    rows = rows.take(np.argsort(rows[_POSITION].to_numpy())).combine_chunks()
    geometry = np.asarray(shapely.from_wkb(rows["geometry"].to_numpy()), dtype=object)
    footprints = Footprints(geometry=geometry, bounds=shapely.bounds(geometry))
    geo = GeoMetadata()
    geo.add(footprints)
    bbox, _ = place_columns(footprints)
    rows = pa.table([bbox if name == "bbox" else rows[name] for name in schema.names], schema=schema)
    with (
        local_file(store, key, replace=True) as target,
        geoparquet_writer(target.path, schema, **vector_encoding(schema.field("embedding").type.value_type)) as writer,
    ):
        writer.write_table(rows, row_group_size=ROW_GROUP_ROWS)
        receipt = {"collection": layout.collection_id}
        write_metadata(writer, schema, {"geo": geo.json(), "raster_embeddings": json.dumps(receipt).encode()})
    file.unlink()
    return TablePart(path=key, rows=len(rows), bytes=target.size, sha256=target.sha256)
