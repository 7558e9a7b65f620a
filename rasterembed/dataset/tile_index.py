"""The tile index: a GeoParquet table with one row for each planned tile."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from enum import StrEnum

import numpy as np
import pyarrow as pa

from rasterembed.dataset.arrow_arrays import number_array, text_array
from rasterembed.dataset.geoparquet import (
    BBOX_TYPE,
    GeoMetadata,
    geoparquet_writer,
    place_columns,
    write_metadata,
)
from rasterembed.dataset.plan import Plan
from rasterembed.dataset.receipts import RECEIPT_KEY, receipt_of
from rasterembed.raster.footprints import Footprinter
from rasterembed.raster.skip_reason import SkipReason
from rasterembed.store.local_file import local_file
from rasterembed.store.object_store import ObjectStore


class TileStatus(StrEnum):
    """State of a planned tile."""

    PLANNED = "planned"
    """The run has not finished yet."""
    EMBEDDED = "embedded"
    """A shard has the tile's vector."""
    SKIPPED = "skipped"
    """The tile has no vector. The column `reason` holds the reason."""


SCHEMA = pa.schema(
    [
        pa.field("tile_id", pa.string(), nullable=False),
        *(
            pa.field(name, pa.int32(), nullable=False)
            for name in ("row", "col", "col_off", "row_off", "width", "height", "shard")
        ),
        pa.field("status", pa.string(), nullable=False),
        pa.field("reason", pa.string()),
        pa.field("bbox", BBOX_TYPE, nullable=False),
        pa.field("geometry", pa.binary(), nullable=False),
    ]
)
"""Columns of the tile index. `status` holds a `TileStatus`. `reason` holds a `SkipReason` or null."""

SCHEMA_AT_EDGE = pa.schema(
    [field.with_nullable(True) if field.name in ("bbox", "geometry") else field for field in SCHEMA]
)
"""Columns of the tile index of a raster that reaches beyond the edge of its map. `bbox` and `geometry` are null for
tiles off Earth."""

_ROW_GROUP_ROWS = 65536
"""Largest number of rows in a row group. A reader of one tile or one place reads a whole row group (6 MB)."""

_ROWS_AT_ONCE = 16384
"""Largest number of rows that are computed at once. This limits the memory for large shards."""

SkippedTiles = Mapping[SkipReason, Sequence[int]]
"""Positions of the skipped tiles in a shard's tile order, by reason."""


def write_tile_index(store: ObjectStore, plan: Plan, skipped_tiles: Callable[[int], SkippedTiles] | None = None) -> str:
    """Write the tile index. The rows are written shard by shard, so a larger raster needs no more memory.

    Args:
        store: store of the dataset.
        plan: plan of the dataset.
        skipped_tiles: function that returns the skipped tiles of a shard, given the shard's number. Without this
            function, every tile has the status `planned`.

    Returns:
        SHA-256 digest of the file.

    Raises:
        DataError: if the longitude and latitude of a tile cannot be computed.
    """
    footprinter = Footprinter.of_grid(plan.profile, plan.sharding)
    geo = GeoMetadata()
    schema = SCHEMA if footprinter.complete else SCHEMA_AT_EDGE
    with (
        local_file(store, plan.layout.tile_index, replace=True) as file,
        geoparquet_writer(file.path, schema, compression="zstd") as writer,
    ):
        waiting: list[pa.Table] = []
        for number in range(plan.sharding.count):
            skipped = None if skipped_tiles is None else skipped_tiles(number)
            for rows in _rows(plan, number, footprinter, geo, skipped):
                if sum(map(len, waiting)) + len(rows) > _ROW_GROUP_ROWS:
                    writer.write_table(pa.concat_tables(waiting))
                    waiting = []
                waiting.append(rows)
        writer.write_table(pa.concat_tables(waiting))
        metadata = {"geo": geo.json()} if plan.profile.on_earth else {}
        write_metadata(writer, schema, metadata | {RECEIPT_KEY: json.dumps(receipt_of(plan)).encode()})
    return file.sha256


def _rows(
    plan: Plan, number: int, footprinter: Footprinter, geo: GeoMetadata, skipped: SkippedTiles | None
) -> Iterator[pa.Table]:
    """Yield the rows of a shard's tiles, in tables of at most `_ROWS_AT_ONCE` rows."""
    tiles = plan.sharding.tiles(number)
    status = np.full(len(tiles), TileStatus.PLANNED if skipped is None else TileStatus.EMBEDDED, dtype=object)
    reasons = np.full(len(tiles), None, dtype=object)
    for reason, positions in (skipped or {}).items():
        status[list(positions)] = TileStatus.SKIPPED
        reasons[list(positions)] = reason.value
    for start in range(0, len(tiles), _ROWS_AT_ONCE):
        rows = slice(start, start + _ROWS_AT_ONCE)
        some = tiles.take(rows)
        footprints = footprinter(some)
        geo.add(footprints)
        numbers = (some.row, some.col, some.col_off, some.row_off, some.width, some.height)
        yield pa.table(
            [
                text_array(some.ids().tolist()),
                *map(number_array, numbers),
                number_array(np.full(len(some), number, dtype=np.int32)),
                text_array(status[rows]),
                text_array(reasons[rows]),
                *place_columns(footprints),
            ],
            schema=SCHEMA if footprinter.complete else SCHEMA_AT_EDGE,
        )
