"""The table of a collection: the vectors of all scenes in one set of GeoParquet files, in the order of a Hilbert curve.

The table is derived from the shards of the scenes. Near tiles are in the same file and the same row group, so a reader
of one place reads little. A description lists the files of the table. It is written last, so readers that begin with
the description see the old table or the new one. `rasterembed.collection.table_writing` writes the table.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, Field

from rasterembed.collection.catalogue import Catalogue
from rasterembed.collection.cells import KEY_BITS, Cell
from rasterembed.collection.configuration import CollectionConfiguration
from rasterembed.collection.scene_row import SceneState
from rasterembed.dataset.column_names import check_columns
from rasterembed.dataset.geoparquet import BBOX_TYPE, PARQUET_ERRORS
from rasterembed.dataset.vector_column import vector_fields
from rasterembed.errors import DataError, ObjectMissingError, one_line
from rasterembed.raster.grid import MAX_TILES
from rasterembed.store.layout import CollectionLayout
from rasterembed.store.object_store import ObjectStore
from rasterembed.store.storage import MAX_OBJECT_BYTES
from rasterembed.store.stored_model import read_model

TABLE_VERSION = 1
"""Version of the table's columns and cells. Increase it when they change: all tables are then written again."""

_MAX_ROWS = 10**12
"""Largest number of rows of a table that is believed."""

_BATCH_ROWS = 8192
"""Largest number of rows in a batch of `table_batches`."""


class TablePart(BaseModel):
    """One file of a table."""

    model_config = ConfigDict(frozen=True)

    path: str
    """Key of the file, relative to the store's root."""
    first: int = Field(ge=0, lt=1 << KEY_BITS)
    """Smallest key of the file's cell. See `rasterembed.collection.cells`."""
    level: int = Field(ge=0, le=KEY_BITS)
    """Level of the file's cell."""
    scenes: str = Field(pattern="^[0-9a-f]{64}$")
    """Digest of the scenes with rows in the cell. See `digest_of_part`."""
    rows: int = Field(ge=1, le=MAX_TILES)
    """Number of vectors."""
    bytes: int = Field(ge=0, le=MAX_OBJECT_BYTES)
    """Size of the file in bytes."""
    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    """SHA-256 digest of the file."""

    @property
    def cell(self) -> Cell:
        """The stretch of the curve that the file has the rows of."""
        return Cell(self.first, self.level)


class TableDescription(BaseModel):
    """The description of a table. It lists the files in the order of the curve."""

    model_config = ConfigDict(frozen=True)

    signature: str = Field(pattern="^[0-9a-f]{64}$")
    """Digest of the scenes in the table. See `signature_of`."""
    rows: int = Field(ge=0, le=_MAX_ROWS)
    """Number of vectors in the table."""
    scenes: int = Field(ge=0, le=_MAX_ROWS)
    """Number of scenes in the table, with those that have no vector."""
    parts: tuple[TablePart, ...]


def table_schema(configuration: CollectionConfiguration) -> pa.Schema:
    """Return the columns of the table.

    They are those of a shard, with the dataset's id, the time from the catalogue, and the lattice. Tiles with the same
    lattice and the same tile id are the same ground. Only scenes in an anchored grid have a lattice. `bbox` and
    `geometry` are null for tiles without a place on Earth.
    """
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
            *vector_fields(configuration.selection.vector_dtype, configuration.model.dimensions),
            pa.field("datetime", pa.timestamp("ms", tz="UTC")),
            pa.field("lattice", pa.string()),
            pa.field("bbox", BBOX_TYPE),
            pa.field("geometry", pa.binary()),
        ]
    )


def signature_of(configuration: CollectionConfiguration, catalogue: Catalogue) -> str:
    """Return a digest of the scenes that belong into the table: their ids, fingerprints and times.

    Two tables with the same signature have the same rows in the same files.
    """
    ready = catalogue.filter(states=[SceneState.READY]).table
    times = pc.cast(ready["datetime"], pa.int64())
    digest = hashlib.sha256(f"{TABLE_VERSION} {configuration.fingerprint}\n".encode())
    for row in zip(ready["id"].to_pylist(), ready["fingerprint"].to_pylist(), times.to_pylist(), strict=True):
        digest.update("{} {} {}\n".format(*row).encode())
    return digest.hexdigest()


def _remedy(layout: CollectionLayout) -> str:
    return f"run `rasterembed collection rebuild {layout.collection_id}` to write the table again"


def read_table(store: ObjectStore, layout: CollectionLayout) -> TableDescription | None:
    """Read the description of a collection's table, or return None if the collection has no table.

    Raises:
        DataError: if this version cannot read the description, or cannot have written it.
    """
    return read_model(
        store,
        layout.table,
        TableDescription,
        name="table",
        remedy=_remedy(layout),
        why_unusable=lambda table: _why_unusable(table, layout),
    )


def _why_unusable(table: TableDescription, layout: CollectionLayout) -> str | None:
    """Return the reason why this library cannot have written a description, or None if it can."""
    end = 0
    for number, part in enumerate(table.parts):
        if not part.cell.is_possible or part.first < end:
            return f"parts: the cell of file {number} is impossible"
        end = part.cell.end
        if part.path != layout.table_part(part.first, part.level, part.scenes):
            return f"parts: the path of file {number} is not the one that the layout gives it"
    if table.rows != sum(part.rows for part in table.parts):
        return "rows: it is not the sum of the files"
    return None


def table_batches(
    store: ObjectStore, layout: CollectionLayout, table: TableDescription, columns: Sequence[str]
) -> Iterator[pa.RecordBatch]:
    """Yield the rows of a table in batches, in the order of the curve. Only one batch is in memory at a time.

    Args:
        store: store of the collection.
        layout: layout of the collection.
        table: description of the table.
        columns: names of the columns to read, in the order of the result.

    Raises:
        UsageError: if the table has no such column.
        ObjectMissingError: if a file is missing, for example because a run has replaced the table.
        DataError: if a file cannot be read.
    """
    for part in table.parts:
        try:
            with store.open(part.path) as file:
                parquet = pq.ParquetFile(file)
                check_columns(f"the table of {layout.owner}", columns, parquet.schema_arrow.names)
                for batch in parquet.iter_batches(_BATCH_ROWS, columns=list(columns)):
                    yield batch.select(list(columns))
        except ObjectMissingError as error:
            raise ObjectMissingError(
                f"{error}: the table of {layout.owner} was replaced or damaged: open the collection again, or "
                f"{_remedy(layout)}"
            ) from error
        except PARQUET_ERRORS as error:
            where = store.uri(part.path)
            raise DataError(f"{where}: it cannot be read ({one_line(error)}): {_remedy(layout)}") from error
