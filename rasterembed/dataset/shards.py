"""Shards: GeoParquet files of vectors, each whole or absent, each with its receipt in the footer."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from rasterembed.dataset.geoparquet import BBOX_TYPE, GeoMetadata, place_columns
from rasterembed.dataset.plan import Plan
from rasterembed.dataset.receipts import receipt_of
from rasterembed.errors import ObjectMissingError, StoreError, StoreUnavailableError
from rasterembed.raster.footprints import Footprinter
from rasterembed.raster.grid import Tiles
from rasterembed.raster.shard_reader import SkippedTile
from rasterembed.raster.skip_reason import SkipReason
from rasterembed.store.local_file import local_file
from rasterembed.store.object_store import ObjectStore

ROW_GROUP_ROWS = 8192
"""Rows written together: 12 MB of 384 float32, which readers of one tile or one place have to fetch."""

_CHUNK_BYTES = 16 * 2**20
"""Read at a time where a whole shard is hashed: a request each on S3."""


@dataclass(frozen=True)
class EmbeddedBatch:
    """Vectors of some tiles of a shard, and the tiles skipped since the batch before."""

    positions: NDArray[np.intp]
    """Place of each tile in the shard's tile order, ascending, shape (n,)."""
    valid_fraction: NDArray[np.float32]
    """Valid pixels over the pixels of the exact window, shape (n,)."""
    vectors: NDArray[np.float32]
    """Shape (n, dimensions), not normalised."""
    skipped: tuple[SkippedTile, ...] = ()
    """Tiles skipped since the batch before, in tile order."""


class Shard(BaseModel):
    """A complete shard, as it stands in the manifest."""

    model_config = ConfigDict(frozen=True)

    number: int
    path: str
    """Key relative to the store's root."""
    rows: int
    """Tiles embedded."""
    skipped: int
    """Tiles planned but not embedded."""
    bytes: int
    sha256: str
    """Of the whole file."""


def shard_schema(plan: Plan) -> pa.Schema:
    """Columns of a shard; `datetime` only where the source has one."""
    element = pa.float16() if plan.selection.vector_dtype == "float16" else pa.float32()
    vector = pa.list_(pa.field("element", element, nullable=False), plan.model.dimensions)
    fields = [
        pa.field("tile_id", pa.string(), nullable=False),
        *(
            pa.field(name, pa.int32(), nullable=False)
            for name in ("row", "col", "col_off", "row_off", "width", "height")
        ),
        pa.field("valid_fraction", pa.float32(), nullable=False),
        pa.field("norm", pa.float32(), nullable=False),
        pa.field("embedding", vector, nullable=False),
    ]
    if plan.profile.acquired is not None:
        fields.append(pa.field("datetime", pa.timestamp("ms", tz="UTC"), nullable=False))
    fields.append(pa.field("bbox", BBOX_TYPE, nullable=False))
    fields.append(pa.field("geometry", pa.binary(), nullable=False))
    return pa.schema(fields)


class ShardWriter:
    """Takes vectors in tile order and writes them in row groups, so that memory does not grow with the shard.

    What waits to be written lies in arrays that are made once. Pieces kept from each batch would settle in the gaps
    that the model's large blocks leave, which then no longer fit there: memory grew with the raster, by gigabytes.
    """

    def __init__(self, plan: Plan, number: int, writer: pq.ParquetWriter) -> None:
        self._plan = plan
        self._tiles = plan.sharding.tiles(number)
        self._schema = shard_schema(plan)
        self._writer = writer
        self._footprinter = Footprinter(plan.profile)
        self._geo = GeoMetadata()
        capacity = min(len(self._tiles), ROW_GROUP_ROWS)
        self._positions = np.empty(capacity, np.intp)
        self._valid_fraction = np.empty(capacity, np.float32)
        self._vectors = np.empty((capacity, plan.model.dimensions), np.float32)
        self._waiting = 0
        self.rows = 0
        """Rows taken."""
        self.skipped: dict[str, list[int]] = {}
        """Positions of skipped tiles, by the value of their reason."""

    def append(self, batch: EmbeddedBatch) -> None:
        """Take the vectors and skipped tiles of a batch."""
        for tile in batch.skipped:
            self.skipped.setdefault(tile.reason.value, []).append(tile.position)
        positions, valid_fraction, vectors = batch.positions, batch.valid_fraction, batch.vectors
        self.rows += len(positions)
        while len(positions):
            count = min(len(positions), len(self._positions) - self._waiting)
            place = slice(self._waiting, self._waiting + count)
            self._positions[place] = positions[:count]
            self._valid_fraction[place] = valid_fraction[:count]
            self._vectors[place] = vectors[:count]
            self._waiting += count
            if self._waiting == len(self._positions):
                self._flush()
            positions, valid_fraction, vectors = positions[count:], valid_fraction[count:], vectors[count:]

    def _table(self, tiles: Tiles, valid_fraction: NDArray[np.float32], vectors: NDArray[np.float32]) -> pa.Table:
        footprints = self._footprinter(tiles)
        self._geo.add(footprints)
        bbox, geometry = place_columns(footprints)
        vector = self._schema.field("embedding").type
        values = pa.array(vectors.ravel().astype(vector.value_type.to_pandas_dtype(), copy=False))
        numbers = (tiles.row, tiles.col, tiles.col_off, tiles.row_off, tiles.width, tiles.height)
        columns = [
            pa.array(tiles.ids()),
            *map(pa.array, numbers),
            pa.array(valid_fraction),
            pa.array(np.linalg.norm(vectors, axis=1).astype(np.float32)),
            pa.FixedSizeListArray.from_arrays(values, type=vector),
        ]
        if self._plan.profile.acquired is not None:
            when = pa.scalar(self._plan.profile.acquired, type=pa.timestamp("ms", tz="UTC"))
            columns.append(pa.repeat(when, len(tiles)))
        return pa.table([*columns, bbox, geometry], schema=self._schema)

    def _flush(self) -> None:
        if self._waiting:
            here = slice(self._waiting)
            tiles = self._tiles.take(self._positions[here])
            self._writer.write_table(self._table(tiles, self._valid_fraction[here], self._vectors[here]))
            self._waiting = 0

    def finish(self, run_id: str | None, made: Mapping[str, Any]) -> None:
        """Write what is left, and the footer."""
        self._flush()
        if self._plan.profile.on_earth:
            self._writer.add_key_value_metadata({"geo": self._geo.json()})
        receipt = receipt_of(self._plan, run_id) | {**made, "skipped": self.skipped}
        self._writer.add_key_value_metadata({"emb": json.dumps(receipt)})


def write_shard(
    plan: Plan,
    store: ObjectStore,
    number: int,
    batches: Iterable[EmbeddedBatch],
    run_id: str | None = None,
    made: Mapping[str, Any] | None = None,
) -> Shard:
    """Write one shard from batches of vectors.

    The file appears in the store whole, after the last batch; `made`, which adds to the receipt, is read then. If
    another run put the same shard there meanwhile, that one counts.

    Raises:
        StoreError: if the disk is full or the store refuses.
    """
    key = plan.layout.shard(plan.fingerprint, number)
    with (
        local_file(store, key, replace=False) as file,
        pq.ParquetWriter(file.path, shard_schema(plan), **_encoding(plan)) as parquet,
    ):
        writer = ShardWriter(plan, number, parquet)
        for batch in batches:
            writer.append(batch)
        writer.finish(run_id, made or {})
    if not file.created:
        theirs = find_shard(plan, store, number)
        if theirs is None:
            raise StoreUnavailableError(f"{store.uri(key)}: another writer left it incomplete")
        return theirs
    return Shard(
        number=number,
        path=key,
        rows=writer.rows,
        skipped=sum(map(len, writer.skipped.values())),
        bytes=file.size,
        sha256=file.sha256,
    )


def _encoding(plan: Plan) -> dict[str, Any]:
    # measured, see docs/encoding.md; DuckDB does not read byte-stream-split float16
    split = plan.selection.vector_dtype == "float32"
    return {
        "compression": "zstd",
        "use_dictionary": False,
        "column_encoding": {"embedding.list.element": "BYTE_STREAM_SPLIT"} if split else None,
    }


def read_receipt(file: IO[bytes]) -> tuple[dict[str, Any], int] | None:
    """The receipt in a file's footer and the file's number of rows; None if it is no whole file of ours."""
    try:
        footer = pq.read_metadata(file)
        receipt = json.loads((footer.metadata or {})[b"emb"])
    except (pa.ArrowException, OSError, KeyError, ValueError):  # which one depends on where the file was cut
        return None
    return receipt, footer.num_rows


def find_shard(plan: Plan, store: ObjectStore, number: int) -> Shard | None:
    """The shard if it is in the store and complete: of this fingerprint, with every planned tile accounted for.

    An incomplete one is removed, so that it can be written anew.
    """
    key = plan.layout.shard(plan.fingerprint, number)
    try:
        with store.open(key) as file:
            digest, size = hashlib.sha256(), 0
            while chunk := file.read(_CHUNK_BYTES):
                digest.update(chunk)
                size += len(chunk)
            found = read_receipt(file)
    except ObjectMissingError:
        return None
    if found is not None:
        receipt, rows = found
        skipped = sum(map(len, receipt["skipped"].values()))
        if receipt["fingerprint"] == plan.fingerprint and rows + skipped == plan.sharding.planned(number):
            return Shard(number=number, path=key, rows=rows, skipped=skipped, bytes=size, sha256=digest.hexdigest())
    store.delete(key)
    return None


def skipped_positions(plan: Plan, store: ObjectStore, number: int) -> dict[SkipReason, list[int]]:
    """Positions of a complete shard's skipped tiles by reason."""
    with store.open(plan.layout.shard(plan.fingerprint, number)) as file:
        found = read_receipt(file)
    if found is None:
        raise StoreError(f"shard {number} of {plan.dataset_id} is broken: run again to make it anew")
    return {SkipReason(reason): positions for reason, positions in found[0]["skipped"].items()}
