"""Shards: the GeoParquet files that hold the vectors. A shard is whole or absent. Its footer holds its receipt."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, TypeGuard, cast

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeInt,
    ValidationError,
    ValidatorFunctionWrapHandler,
    field_validator,
)

from rasterembed.dataset.arrow_arrays import number_array, text_array, time_array
from rasterembed.dataset.geoparquet import (
    BBOX_TYPE,
    PARQUET_ERRORS,
    GeoMetadata,
    geoparquet_writer,
    place_columns,
    write_metadata,
)
from rasterembed.dataset.plan import Plan
from rasterembed.dataset.receipts import RECEIPT_KEY, find_receipt, receipt_of
from rasterembed.dataset.stac_fields import ASSET_KEY, shard_asset
from rasterembed.dataset.vector_column import store_vectors, vector_encoding, vector_fields
from rasterembed.errors import ObjectMissingError, StoreError, StoreUnavailableError
from rasterembed.model.computation import Computation
from rasterembed.raster.footprints import Footprinter
from rasterembed.raster.grid import MAX_TILES, Tiles
from rasterembed.raster.skip_reason import SkipReason
from rasterembed.raster.tile_batch import SkippedTile
from rasterembed.store.layout import MAX_SHARD_NUMBER
from rasterembed.store.local_file import local_file
from rasterembed.store.object_store import ObjectStore
from rasterembed.store.storage import MAX_OBJECT_BYTES

if TYPE_CHECKING:
    import pyarrow.parquet as pq

ROW_GROUP_ROWS = 8192
"""Number of table rows in a row group. A reader of one tile fetches a row group: 12 MB for 384 float32 values a row."""

_CHUNK_BYTES = 16 * 2**20
"""Number of bytes in one read when a whole shard is hashed. On S3, each read is one request."""


class Shard(BaseModel):
    """The manifest's entry for a complete shard."""

    model_config = ConfigDict(frozen=True)

    number: int = Field(ge=0, le=MAX_SHARD_NUMBER)
    """Number of the shard in the plan, from 0."""
    path: str
    """Key of the shard, relative to the store's root."""
    rows: int = Field(ge=0, le=MAX_TILES)
    """Number of embedded tiles."""
    skipped: int = Field(ge=0, le=MAX_TILES)
    """Number of skipped tiles."""
    bytes: int = Field(ge=0, le=MAX_OBJECT_BYTES)
    """Size of the file in bytes."""
    sha256: str
    """SHA-256 digest of the whole file."""
    computation: Computation | None = None
    """The computation of the vectors. None if every tile was skipped, or if version 0.1 wrote the shard."""


@dataclass(frozen=True)
class EmbeddedBatch:
    """The vectors of n tiles of a shard, and the tiles that were skipped since the previous batch."""

    positions: NDArray[np.intp]
    """Ascending positions of the tiles in the shard's tile order, shape (n,). n may be 0."""
    valid_fraction: NDArray[np.float32]
    """Share of valid pixels of each tile, shape (n,)."""
    vectors: NDArray[np.float32]
    """Vectors, not normalised, shape (n, dimensions)."""
    skipped: tuple[SkippedTile, ...] = ()
    """Tiles that were skipped since the previous batch."""
    computation: Computation | None = None
    """The computation of the vectors. None if the batch has no vectors."""


def shard_schema(plan: Plan) -> pa.Schema:
    """Return the columns of a shard.

    Column `scale` exists only if the vectors are stored as int8. Column `datetime` exists only if the raster's time of
    acquisition is known.
    """
    fields = [
        pa.field("tile_id", pa.string(), nullable=False),
        *(
            pa.field(name, pa.int32(), nullable=False)
            for name in ("row", "col", "col_off", "row_off", "width", "height")
        ),
        pa.field("valid_fraction", pa.float32(), nullable=False),
        pa.field("norm", pa.float32(), nullable=False),
        *vector_fields(plan.selection.vector_dtype, plan.model.dimensions),
    ]
    if plan.profile.acquired is not None:
        fields.append(pa.field("datetime", pa.timestamp("ms", tz="UTC"), nullable=False))
    fields.append(pa.field("bbox", BBOX_TYPE, nullable=False))
    fields.append(pa.field("geometry", pa.binary(), nullable=False))
    return pa.schema(fields)


class ShardWriter:
    """Writes vectors in tile order, one row group at a time. A larger shard needs no more memory.

    Rows wait for a full row group in arrays that are allocated only once. If each batch had its own small arrays, these
    arrays would fill the gaps between the model's large blocks of memory. New large blocks would not fit into the gaps,
    and the process would need gigabytes more memory for a large raster.
    """

    def __init__(self, plan: Plan, number: int, writer: pq.ParquetWriter) -> None:
        self._plan = plan
        self._tiles = plan.sharding.tiles(number)
        self._schema = shard_schema(plan)
        self._writer = writer
        self._footprinter = Footprinter.of_grid(plan.profile, plan.sharding)
        self._geo = GeoMetadata()
        capacity = min(len(self._tiles), ROW_GROUP_ROWS)
        self._positions = np.empty(capacity, np.intp)
        self._valid_fraction = np.empty(capacity, np.float32)
        self._vectors = np.empty((capacity, plan.model.dimensions), np.float32)
        self._waiting = 0
        self._skipped: dict[SkipReason, list[int]] = {}
        self.rows = 0
        """Number of embedded tiles so far."""
        self.computation: Computation | None = None
        """The computation of the vectors so far."""

    @property
    def skipped(self) -> int:
        """Number of skipped tiles so far."""
        return sum(map(len, self._skipped.values()))

    def append(self, batch: EmbeddedBatch) -> None:
        """Add the vectors and the skipped tiles of a batch. The batches must be in tile order."""
        for tile in batch.skipped:
            self._skipped.setdefault(tile.reason, []).append(tile.position)
        self.rows += len(batch.positions)
        self.computation = batch.computation or self.computation
        start = 0
        while start < len(batch.positions):
            count = min(len(batch.positions) - start, len(self._positions) - self._waiting)
            here, rows = slice(start, start + count), slice(self._waiting, self._waiting + count)
            self._positions[rows] = batch.positions[here]
            self._valid_fraction[rows] = batch.valid_fraction[here]
            self._vectors[rows] = batch.vectors[here]
            start += count
            self._waiting += count
            if self._waiting == len(self._positions):
                self._flush()

    def _table(self, tiles: Tiles, valid_fraction: NDArray[np.float32], vectors: NDArray[np.float32]) -> pa.Table:
        footprints = self._footprinter(tiles)
        self._geo.add(footprints)
        bbox, geometry = place_columns(footprints)
        vector_dtype = self._plan.selection.vector_dtype
        numbers = (tiles.row, tiles.col, tiles.col_off, tiles.row_off, tiles.width, tiles.height)
        columns = [
            text_array(tiles.ids().tolist()),
            *map(number_array, numbers),
            number_array(valid_fraction),
            number_array(np.linalg.norm(vectors, axis=1).astype(np.float32)),
            *store_vectors(vectors, vector_dtype).arrays(vector_fields(vector_dtype, self._plan.model.dimensions)),
        ]
        if self._plan.profile.acquired is not None:
            columns.append(time_array(self._plan.profile.acquired, len(tiles)))
        return pa.table([*columns, bbox, geometry], schema=self._schema)

    def _flush(self) -> None:
        if self._waiting:
            rows = slice(self._waiting)
            tiles = self._tiles.take(self._positions[rows])
            self._writer.write_table(self._table(tiles, self._valid_fraction[rows], self._vectors[rows]))
            self._waiting = 0

    def finish(self, run_id: str | None) -> None:
        """Write the waiting rows, and the footer."""
        self._flush()
        metadata = {"geo": self._geo.json()} if self._plan.profile.on_earth else {}
        receipt = receipt_of(self._plan, run_id) | {
            "computation": None if self.computation is None else self.computation.model_dump(mode="json"),
            "skipped": self._skipped,
        }
        metadata |= {ASSET_KEY: shard_asset(self._plan), RECEIPT_KEY: json.dumps(receipt).encode()}
        write_metadata(self._writer, self._schema, metadata)


def write_shard(
    store: ObjectStore, plan: Plan, number: int, batches: Iterable[EmbeddedBatch], run_id: str | None = None
) -> Shard:
    """Write a shard from its batches. After the last batch, the whole file appears in the store.

    If another run wrote the same shard in the meantime, the other run's shard is kept and returned.

    Args:
        store: store of the dataset.
        plan: plan of the dataset.
        number: number of the shard.
        batches: all tiles of the shard, embedded or skipped, in tile order.
        run_id: name of the run in the receipt.

    Raises:
        StoreError: if the disk is full or the store refuses.
    """
    key = plan.layout.shard(plan.fingerprint, number)
    with (
        local_file(store, key, replace=False) as file,
        geoparquet_writer(file.path, shard_schema(plan), **vector_encoding(plan.selection.vector_dtype)) as parquet,
    ):
        writer = ShardWriter(plan, number, parquet)
        for batch in batches:
            writer.append(batch)
        writer.finish(run_id)
    if not file.created:
        existing = find_shard(store, plan, number)
        if existing is None:
            raise StoreUnavailableError(f"{store.uri(key)}: another writer left the shard incomplete")
        return existing
    return Shard(
        number=number,
        path=key,
        rows=writer.rows,
        skipped=writer.skipped,
        bytes=file.size,
        sha256=file.sha256,
        computation=writer.computation,
    )


class Receipt(BaseModel):
    """The entries of a receipt that readers use. See `rasterembed.dataset.receipts.receipt_of` for all entries."""

    model_config = ConfigDict(frozen=True)

    dataset_id: str
    fingerprint: str
    skipped: dict[SkipReason, tuple[NonNegativeInt, ...]] = {}
    """Positions of the shard's skipped tiles, by reason. Empty if the file is not a shard."""
    computation: Computation | None = None
    """The computation of the vectors. None if every tile was skipped, or if version 0.1 wrote the receipt."""

    @field_validator("computation", mode="wrap")
    @classmethod
    def _computation_or_none(cls, value: object, validate: ValidatorFunctionWrapHandler) -> Computation | None:
        # A later version may describe a computation in another way. The shard's vectors can still be used.
        try:
            return cast("Computation | None", validate(value))
        except ValidationError:
            return None


@dataclass(frozen=True)
class ReceiptInFile:
    """The receipt and the number of rows from a file's footer."""

    receipt: Receipt
    rows: int
    """Number of table rows in the file."""

    @property
    def skipped_count(self) -> int:
        """Number of skipped tiles."""
        return sum(map(len, self.receipt.skipped.values()))

    def accounts_for(self, planned: int) -> bool:
        """Return whether every planned tile of a shard is embedded or skipped, and no tile is skipped twice.

        Args:
            planned: number of planned tiles of the shard.
        """
        positions = [position for tiles in self.receipt.skipped.values() for position in tiles]
        inside = not positions or max(positions) < planned
        return inside and len(set(positions)) == len(positions) and self.rows + len(positions) == planned


def read_receipt(file: IO[bytes]) -> ReceiptInFile | None:
    """Read the receipt in a Parquet footer. Return None if the file is incomplete, or has no receipt."""
    import pyarrow.parquet as pq  # A search with an index does not need it.

    try:
        footer = pq.read_metadata(file)
        content = find_receipt(footer.metadata or {})
        receipt = None if content is None else Receipt.model_validate_json(content)
    except PARQUET_ERRORS:
        return None
    return None if receipt is None else ReceiptInFile(receipt, footer.num_rows)


def find_shard(store: ObjectStore, plan: Plan, number: int) -> Shard | None:
    """Return a shard if the store has the complete shard, else None.

    A shard is complete if its receipt has the plan's fingerprint, and if every planned tile is embedded or skipped. An
    incomplete shard is deleted. It can then be written again.
    """
    key = plan.layout.shard(plan.fingerprint, number)
    try:
        with store.open(key) as file:
            digest, size = hashlib.sha256(), 0
            while chunk := file.read(_CHUNK_BYTES):
                digest.update(chunk)
                size += len(chunk)
            receipt = read_receipt(file)
    except ObjectMissingError:
        return None
    if _is_complete(receipt, plan, number):
        return Shard(
            number=number,
            path=key,
            rows=receipt.rows,
            skipped=receipt.skipped_count,
            bytes=size,
            sha256=digest.hexdigest(),
            computation=receipt.receipt.computation,
        )
    store.delete(key)
    return None


def count_written_shards(store: ObjectStore, plan: Plan) -> int:
    """Return the number of the plan's shards that the store has. Only their folder is listed; no shard is read.

    Raises:
        StoreError: if the store refuses or does not answer.
    """
    written = store.sizes(plan.layout.shards_folder)
    names = (plan.layout.shard_name(plan.fingerprint, number) for number in range(plan.sharding.count))
    return sum(name in written for name in names)


def _is_complete(receipt: ReceiptInFile | None, plan: Plan, number: int) -> TypeGuard[ReceiptInFile]:
    return (
        receipt is not None
        and receipt.receipt.fingerprint == plan.fingerprint
        and receipt.accounts_for(plan.sharding.planned(number))
    )


def skipped_positions(store: ObjectStore, plan: Plan, number: int) -> Mapping[SkipReason, Sequence[int]]:
    """Return the positions of the skipped tiles in a complete shard, by reason.

    Raises:
        StoreError: if the shard is broken.
    """
    with store.open(plan.layout.shard(plan.fingerprint, number)) as file:
        receipt = read_receipt(file)
    if not _is_complete(receipt, plan, number):
        raise StoreError(f"shard {number} of dataset {plan.dataset_id!r} is broken: run again to write the shard again")
    return receipt.receipt.skipped
