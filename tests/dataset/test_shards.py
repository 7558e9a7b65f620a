"""A shard has the same row groups however its vectors arrive."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from rasterembed.dataset.plan import PlanSettings, make_plan
from rasterembed.dataset.selection import Selection
from rasterembed.dataset.shards import ROW_GROUP_ROWS, EmbeddedBatch, write_shard
from rasterembed.model.choice import Dinov3
from rasterembed.raster.grid import Grid, tile_id
from rasterembed.raster.skip_reason import SkipReason
from rasterembed.raster.source import register
from rasterembed.raster.tile_batch import SkippedTile
from rasterembed.store.object_store import ObjectStore
from tests.support.vectors import SIDE, blank_raster, checkpoint

ROWS, COLS, DIMENSIONS = 100, 90, 8


@pytest.mark.parametrize("batch", [7, 1000, ROWS * COLS])
def test_rows_keep_their_order_across_batches_and_row_groups(tmp_path: Path, batch: int) -> None:
    store = ObjectStore(root=str(tmp_path / "store"))
    raster = blank_raster(tmp_path / "raster.tif", ROWS, COLS)
    plan = make_plan(
        store,
        register(store, str(raster)),
        "set",
        PlanSettings(
            grid=Grid(size=SIDE),
            model=Dinov3(model=str(checkpoint(tmp_path / "model", DIMENSIONS))),
            selection=Selection(shard_tiles=2 * ROWS * COLS),
        ),
    )
    assert plan.sharding.count == 1
    planned = ROWS * COLS
    kept = np.delete(np.arange(planned), [0, 5000])
    fraction = np.linspace(0.1, 1.0, len(kept), dtype=np.float32)
    vectors = np.random.default_rng(4).normal(size=(len(kept), DIMENSIONS)).astype(np.float32)
    skipped = tuple(SkippedTile(n, SkipReason.NO_VALID_PIXEL) for n in (0, 5000))

    def batches():  # type: ignore[no-untyped-def]
        for first in range(0, len(kept), batch):
            these = slice(first, first + batch)
            # the caller may use its arrays again
            mine = [part[these].copy() for part in (kept, fraction, vectors)]
            yield EmbeddedBatch(mine[0], mine[1], mine[2], skipped if first == 0 else ())
            for part in mine:
                part[:] = 0

    shard = write_shard(store, plan, 0, batches())

    assert shard.rows == len(kept)
    file = pq.ParquetFile(tmp_path / "store" / shard.path)
    groups = [file.metadata.row_group(i).num_rows for i in range(file.metadata.num_row_groups)]
    assert groups == [ROW_GROUP_ROWS, len(kept) - ROW_GROUP_ROWS]
    table = file.read()
    assert table["tile_id"].to_pylist() == [tile_id(*divmod(int(n), COLS)) for n in kept]
    np.testing.assert_array_equal(np.stack(table["embedding"].to_numpy()), vectors)
    np.testing.assert_array_equal(table["valid_fraction"].to_numpy(), fraction)
    assert len(set(table["geometry"].to_pylist())) == len(kept)
