"""How the tiles of a grid are dealt to shards: compact runs that follow the file's own blocks."""

from __future__ import annotations

import math

from pydantic import BaseModel, ConfigDict

from rasterembed.raster.grid import Grid, Tiles, grid_shape, tiles_in
from rasterembed.raster.profile import RasterProfile

MAX_SHARDS = 500
"""A task run is a shard, and a Prefect server is kept to about this many task runs a flow run."""


class Sharding(BaseModel):
    """A grid of tiles cut into blocks of `shard_rows` x `shard_cols` tiles, numbered row by row."""

    model_config = ConfigDict(frozen=True)

    grid: Grid
    height: int
    """Rows of the raster, px."""
    width: int
    """Columns of the raster, px."""
    rows: int
    """Rows of tiles."""
    cols: int
    """Columns of tiles."""
    shard_rows: int
    """Rows of tiles in a shard; the last row of shards may have fewer."""
    shard_cols: int
    """Columns of tiles in a shard; the last column of shards may have fewer."""

    @property
    def across(self) -> int:
        """Shards side by side."""
        return -(-self.cols // self.shard_cols)

    @property
    def count(self) -> int:
        """Number of shards."""
        return -(-self.rows // self.shard_rows) * self.across

    @property
    def tile_count(self) -> int:
        """Number of tiles in all shards."""
        return self.rows * self.cols

    def block(self, number: int) -> tuple[tuple[int, int], tuple[int, int]]:
        """Rows and columns of tiles in shard `number`, each as (first, one after the last)."""
        top, left = divmod(number, self.across)
        top, left = top * self.shard_rows, left * self.shard_cols
        return (
            (top, min(top + self.shard_rows, self.rows)),
            (left, min(left + self.shard_cols, self.cols)),
        )

    def tiles(self, number: int) -> Tiles:
        """Tiles of shard `number` in tile order: row by row."""
        return tiles_in(self.grid, self.height, self.width, *self.block(number))

    def planned(self, number: int) -> int:
        """Number of tiles in shard `number`."""
        (top, bottom), (left, right) = self.block(number)
        return (bottom - top) * (right - left)


def plan_shards(grid: Grid, profile: RasterProfile, shard_tiles: int) -> Sharding:
    """Cut the grid so that shards hold about `shard_tiles` tiles and share few blocks of the file.

    Tiled files get nearly square shards whose sides end on block borders where the stride allows it;
    striped ones get strips of the full width. Shards grow beyond `shard_tiles` to keep to `MAX_SHARDS`.

    Raises:
        DataError: if the grid has no tile.
    """
    rows, cols = grid_shape(grid, profile.height, profile.width)
    target = max(shard_tiles, -(-rows * cols // MAX_SHARDS))
    while True:
        sharding = _cut(grid, profile, rows, cols, target)
        if sharding.count <= MAX_SHARDS:
            return sharding
        target += max(1, target // 16)


def _cut(grid: Grid, profile: RasterProfile, rows: int, cols: int, target: int) -> Sharding:
    if profile.striped:
        shard_cols = cols
    else:
        step = _aligned(grid.step, profile.block_width)
        # as wide as high, or wider where the grid has too few rows for that
        shard_cols = min(cols, _round_to(max(math.isqrt(target), target // rows), step))
    step = _aligned(grid.step, profile.block_height)
    shard_rows = min(rows, _round_to(max(1, target // shard_cols), step))
    return Sharding(
        grid=grid,
        height=profile.height,
        width=profile.width,
        rows=rows,
        cols=cols,
        shard_rows=shard_rows,
        shard_cols=shard_cols,
    )


def _aligned(step: int, block: int) -> int:
    """Number of tiles after which tile and block borders meet again."""
    return math.lcm(step, block) // step


def _round_to(value: int, multiple: int) -> int:
    """The multiple nearest to `value`, or `value` itself if that is zero."""
    return round(value / multiple) * multiple or value
