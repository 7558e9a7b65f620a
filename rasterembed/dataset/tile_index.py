"""The tile index: one row a planned tile, as GeoParquet."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from enum import StrEnum

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from rasterembed.dataset.geoparquet import BBOX_TYPE, GeoMetadata, place_columns
from rasterembed.dataset.plan import Plan
from rasterembed.dataset.receipts import receipt_of
from rasterembed.raster.footprints import Footprinter
from rasterembed.raster.skip_reason import SkipReason
from rasterembed.store.local_file import local_file
from rasterembed.store.object_store import ObjectStore


class TileStatus(StrEnum):
    """State of a tile, as the column `status` of the tile index holds it."""

    PLANNED = "planned"
    EMBEDDED = "embedded"
    SKIPPED = "skipped"


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

_ROW_GROUP_ROWS = 65536
"""Rows written together at most: 6 MB, which readers of one tile or one place have to fetch."""

_ROWS_AT_ONCE = 16384
"""Rows made together: bounds the memory of large shards."""

SkippedOf = Callable[[int], dict[SkipReason, list[int]]]
"""Gives the positions of a shard's skipped tiles by reason."""


def write_index(plan: Plan, store: ObjectStore, skipped_of: SkippedOf | None = None) -> str:
    """Write `index.parquet`, shard by shard, in bounded memory.

    Args:
        plan: the plan.
        store: where to.
        skipped_of: what became of each shard's tiles; without it every row has status `planned`.

    Returns:
        sha256 of the file.

    Raises:
        DataError: if a tile has no place in longitude and latitude.
    """
    footprinter = Footprinter(plan.profile)
    geo = GeoMetadata()
    with (
        local_file(store, plan.layout.tile_index, replace=True) as file,
        pq.ParquetWriter(file.path, SCHEMA, compression="zstd") as writer,
    ):
        waiting: list[pa.Table] = []
        for number in range(plan.sharding.count):
            for rows in _rows(plan, number, footprinter, geo, skipped_of):
                if sum(map(len, waiting)) + len(rows) > _ROW_GROUP_ROWS:
                    writer.write_table(pa.concat_tables(waiting))
                    waiting = []
                waiting.append(rows)
        writer.write_table(pa.concat_tables(waiting))
        if plan.profile.on_earth:
            writer.add_key_value_metadata({"geo": geo.json()})
        writer.add_key_value_metadata({"emb": json.dumps(receipt_of(plan))})
    return file.sha256


def _rows(
    plan: Plan,
    number: int,
    footprinter: Footprinter,
    geo: GeoMetadata,
    skipped_of: SkippedOf | None,
) -> Iterator[pa.Table]:
    """A shard's tiles, as tables of `_ROWS_AT_ONCE` rows at most."""
    tiles = plan.sharding.tiles(number)
    status = np.full(len(tiles), TileStatus.PLANNED if skipped_of is None else TileStatus.EMBEDDED, dtype=object)
    reason = np.full(len(tiles), None, dtype=object)
    for why, positions in (skipped_of(number) if skipped_of else {}).items():
        status[positions] = TileStatus.SKIPPED
        reason[positions] = why.value
    for start in range(0, len(tiles), _ROWS_AT_ONCE):
        rows = slice(start, start + _ROWS_AT_ONCE)
        some = tiles.take(rows)
        footprints = footprinter(some)
        geo.add(footprints)
        numbers = (some.row, some.col, some.col_off, some.row_off, some.width, some.height)
        yield pa.table(
            [
                pa.array(some.ids()),
                *map(pa.array, numbers),
                pa.array(np.full(len(some), number, dtype=np.int32)),
                pa.array(status[rows], type=pa.string()),
                pa.array(reason[rows], type=pa.string()),
                *place_columns(footprints),
            ],
            schema=SCHEMA,
        )
