"""Divide the tiles of a grid into shards, so that two shards need few of the same blocks of the raster file."""

from __future__ import annotations

import math
import re

from pydantic import BaseModel, ConfigDict, Field

from rasterembed.raster.anchor import find_anchor
from rasterembed.raster.grid import Anchor, Grid, Tiles, grid_shape, tiles_in
from rasterembed.raster.profile import RasterProfile

MAX_SHARDS = 500
"""Largest number of shards of a dataset. Each shard is a task run, and a flow run on a Prefect server should not have
many more task runs."""

_ID = re.compile(r"r(?P<row>[0-9]{6})_c(?P<col>[0-9]{6})|x(?P<x>[+-][0-9]{6,12})_y(?P<y>[+-][0-9]{6,12})")
"""Id of a tile. See `rasterembed.raster.grid.tile_id` and `anchored_id`."""


class Sharding(BaseModel):
    """A grid of tiles cut into shards of `shard_rows` x `shard_cols` tiles. Shards are numbered row by row, from 0."""

    model_config = ConfigDict(frozen=True)

    grid: Grid
    height: int
    """Height of the raster, px."""
    width: int
    """Width of the raster, px."""
    rows: int
    """Number of rows of the grid."""
    cols: int
    """Number of columns of the grid."""
    shard_rows: int
    """Number of grid rows in a shard. Shards at the lower edge may have fewer."""
    shard_cols: int
    """Number of grid columns in a shard. Shards at the right edge may have fewer."""
    anchor: Anchor | None = Field(default=None, exclude_if=lambda anchor: anchor is None)
    """Position of the raster on the common lattice if the grid is anchored to the CRS, else None."""

    @property
    def across(self) -> int:
        """Number of shards side by side, across the width of the grid."""
        return -(-self.cols // self.shard_cols)

    @property
    def count(self) -> int:
        """Number of shards."""
        return -(-self.rows // self.shard_rows) * self.across

    @property
    def tile_count(self) -> int:
        """Number of tiles in all shards together."""
        return self.rows * self.cols

    def block(self, number: int) -> tuple[tuple[int, int], tuple[int, int]]:
        """Return the grid rows and the grid columns of shard `number`, each as (first, one after the last)."""
        top, left = divmod(number, self.across)
        top, left = top * self.shard_rows, left * self.shard_cols
        return (
            (top, min(top + self.shard_rows, self.rows)),
            (left, min(left + self.shard_cols, self.cols)),
        )

    def tiles(self, number: int) -> Tiles:
        """Return the tiles of shard `number` in tile order, which is row by row."""
        return self._tiles_in(*self.block(number))

    def _tiles_in(self, rows: tuple[int, int], cols: tuple[int, int]) -> Tiles:
        return tiles_in(self.grid, self.height, self.width, rows, cols, self.anchor)

    @property
    def first_tile(self) -> Tiles:
        """The tile in the upper left corner of the grid."""
        return self._tiles_in((0, 1), (0, 1))

    @property
    def last_tile(self) -> Tiles:
        """The tile in the lower right corner of the grid."""
        return self._tiles_in((self.rows - 1, self.rows), (self.cols - 1, self.cols))

    def find(self, tile_id: str) -> Tiles | None:
        """Return the tile with an id, or None if the grid has no such tile.

        Args:
            tile_id: any text.
        """
        found = self._nearest(tile_id)
        return found if found is not None and found.id(0) == tile_id else None

    def why_no_tile(self, tile_id: str) -> str:
        """Return text for people about an id that the grid does not have: the ids of the grid, and the nearest one.

        Args:
            tile_id: any text.
        """
        text = f"its tiles are {self.first_tile.id(0)} in the upper left corner to {self.last_tile.id(0)} in the lower "
        text += "right corner"
        nearest = self._nearest(tile_id)
        return text if nearest is None else f"{text}, and the nearest one is {nearest.id(0)}"

    def _nearest(self, tile_id: str) -> Tiles | None:
        """Return the tile of the grid at the place that an id names, or nearest to it. None for an id of another form.

        A grid has ids of one form only.
        """
        match = _ID.fullmatch(tile_id)
        first = self.first_tile.first
        if match is None or (match["row"] is None) != (first is not None):
            return None
        if first is None:
            row, col = int(match["row"]), int(match["col"])
        else:
            # The rows of the grid go down, and y goes up.
            row, col = first[1] - int(match["y"]), int(match["x"]) - first[0]
        row, col = min(max(row, 0), self.rows - 1), min(max(col, 0), self.cols - 1)
        return self._tiles_in((row, row + 1), (col, col + 1))

    def planned(self, number: int) -> int:
        """Return the number of tiles in shard `number`."""
        (top, bottom), (left, right) = self.block(number)
        return (bottom - top) * (right - left)


def plan_shards(grid: Grid, profile: RasterProfile, shard_tiles: int) -> Sharding:
    """Divide the grid into shards of about `shard_tiles` tiles that need few of the same blocks of the file.

    For a tiled file, shards are nearly square. Their sides are on block borders if the stride allows it. For a striped
    file, a shard is as wide as the raster. If this gives more than `MAX_SHARDS` shards, each shard gets more tiles.

    Raises:
        DataError: if the grid has no tile, or too many, or if it cannot be anchored to the CRS.
    """
    anchor = find_anchor(profile, grid)
    rows, cols = grid_shape(grid, profile.height, profile.width, anchor)
    target = max(shard_tiles, -(-rows * cols // MAX_SHARDS))
    while True:
        sharding = _cut(grid, profile, rows, cols, target, anchor)
        if sharding.count <= MAX_SHARDS:
            return sharding
        target += max(1, target // 16)


def _cut(grid: Grid, profile: RasterProfile, rows: int, cols: int, target: int, anchor: Anchor | None) -> Sharding:
    if profile.striped:
        shard_cols = cols
    else:
        step = _aligned(grid.step, profile.block_width)
        # Make shards as wide as high, or wider if the grid has too few rows.
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
        anchor=anchor,
    )


def _aligned(step: int, block: int) -> int:
    """Return the number of tiles after which a tile border is on a block border again."""
    return math.lcm(step, block) // step


def _round_to(value: int, multiple: int) -> int:
    """Return the multiple of `multiple` nearest to `value`, or `value` itself if that multiple is zero."""
    return round(value / multiple) * multiple or value
