"""The tile index: one row a planned tile, as GeoParquet."""

from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from rasterembed.footprints import Footprinter
from rasterembed.geoparquet import BBOX_TYPE, GeoMetadata, place_columns
from rasterembed.plan import Plan
from rasterembed.receipts import receipt_of
from rasterembed.store import ObjectStore
from rasterembed.writing import local_file

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

_ROWS_AT_ONCE = 65536
"""Rows made and written together; also the size of a row group."""

SkippedOf = Callable[[int], dict[str, list[int]]]
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
    footprinter = Footprinter(plan.profile, plan.sharding.grid.size)
    geo = GeoMetadata()
    with (
        local_file(store, plan.layout.index, replace=True) as file,
        pq.ParquetWriter(file.path, SCHEMA, compression="zstd") as writer,
    ):
        waiting: list[pa.Table] = []
        for number in range(plan.sharding.count):
            waiting.append(_rows(plan, number, footprinter, geo, skipped_of))
            if number == plan.sharding.count - 1 or sum(map(len, waiting)) >= _ROWS_AT_ONCE:
                writer.write_table(pa.concat_tables(waiting), row_group_size=_ROWS_AT_ONCE)
                waiting = []
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
) -> pa.Table:
    tiles = plan.sharding.tiles(number)
    footprints = footprinter(tiles)
    geo.add(footprints)
    bbox, geometry = place_columns(footprints)
    status = np.full(len(tiles), "planned" if skipped_of is None else "embedded", dtype=object)
    reason = np.full(len(tiles), None, dtype=object)
    for why, positions in (skipped_of(number) if skipped_of else {}).items():
        status[positions] = "skipped"
        reason[positions] = why
    numbers = (tiles.row, tiles.col, tiles.col_off, tiles.row_off, tiles.width, tiles.height)
    return pa.table(
        [
            pa.array(tiles.ids()),
            *map(pa.array, numbers),
            pa.array(np.full(len(tiles), number, dtype=np.int32)),
            pa.array(status, type=pa.string()),
            pa.array(reason, type=pa.string()),
            bbox,
            geometry,
        ],
        schema=SCHEMA,
    )
