"""The grid of tiles on a raster: the window and the id of each tile."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from rasterembed.errors import DataError

MAX_TILES = 100_000_000
"""Largest number of tiles of a grid. With more tiles, the file of the tile index would be too large to work with."""

_DIGITS = 6
"""Number of decimal digits of the grid row, and of the grid column, in a tile id."""


class Grid(BaseModel):
    """Square tiles in rows and columns. The first tile begins at the raster's upper left corner.

    Example:
        >>> grid = Grid(size=224, stride=112)
        >>> grid.count(1000)
        8
        >>> grid.offsets(1000, 0, 3).tolist()
        [0, 112, 224]
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    size: int = Field(
        default=224,
        ge=16,
        le=4096,
        multiple_of=16,
        description="Side of a tile in px. It must be a multiple of 16, the side of the model's patches.",
    )
    stride: int | None = Field(
        default=None,
        ge=1,
        description="Distance in px from one tile to the next. By default the size: tiles then touch without overlap.",
    )
    edge: Literal["pad", "shift", "drop"] = Field(
        default="pad",
        description="What happens to tiles that reach beyond the raster: pad them, shift them inward, or drop them.",
    )

    @property
    def step(self) -> int:
        """Distance from one tile to the next, in px: the stride, or the size if no stride is given."""
        return self.stride or self.size

    def count(self, length: int) -> int:
        """Return the number of tiles along an axis of `length` px."""
        beyond_first = length - self.size
        if beyond_first < 0:
            return 0 if self.edge == "drop" else 1
        if self.edge == "drop":
            return beyond_first // self.step + 1
        covering = -(-beyond_first // self.step) + 1
        # A stride larger than the size leaves gaps between tiles. If the axis ends in a gap, `covering` counts one tile
        # too many, which would begin outside the raster.
        return min(covering, -(-length // self.step))

    def offsets(self, length: int, first: int, stop: int) -> NDArray[np.int64]:
        """Return the positions at which tiles begin along an axis.

        Args:
            length: length of the axis, px.
            first: number of the first tile, from 0.
            stop: number after the last tile.

        Returns:
            Positions in px, shape (stop - first,).
        """
        offsets = np.arange(first, stop, dtype=np.int64) * self.step
        if self.edge == "shift":
            offsets = np.minimum(offsets, max(length - self.size, 0))
        return offsets


def grid_shape(grid: Grid, height: int, width: int) -> tuple[int, int]:
    """Return the numbers of rows and columns of the grid on a raster of `height` x `width` px.

    Raises:
        DataError: if the grid would have no tile, or more than `MAX_TILES`.
    """
    rows, cols = grid.count(height), grid.count(width)
    if rows * cols == 0:
        raise DataError(
            f"a {width}x{height} px raster has no whole tile of {grid.size} px: use edge=pad or a smaller size"
        )
    if max(rows, cols) > 10**_DIGITS or rows * cols > MAX_TILES:
        raise DataError(
            f"the grid has {rows}x{cols} tiles, more than {MAX_TILES} or {10**_DIGITS} along a side: "
            "use a larger size or stride"
        )
    return rows, cols


@dataclass(frozen=True)
class Tiles:
    """n tiles of a grid. Each array has one entry for each tile, shape (n,)."""

    row: NDArray[np.int32]
    """Row of the tile in the grid, from 0."""
    col: NDArray[np.int32]
    """Column of the tile in the grid, from 0."""
    col_off: NDArray[np.int32]
    """Left edge of the window in the raster, px."""
    row_off: NDArray[np.int32]
    """Upper edge of the window in the raster, px."""
    width: NDArray[np.int32]
    """Width of the exact window, px. It is less than the grid's size if the tile is padded."""
    height: NDArray[np.int32]
    """Height of the exact window, px. It is less than the grid's size if the tile is padded."""

    def __len__(self) -> int:
        return len(self.row)

    def take(self, which: NDArray[np.intp] | NDArray[np.bool_] | slice) -> Tiles:
        """Return the tiles at these positions, in this slice, or where this mask is true."""
        return Tiles(
            self.row[which],
            self.col[which],
            self.col_off[which],
            self.row_off[which],
            self.width[which],
            self.height[which],
        )

    def ids(self) -> NDArray[np.str_]:
        """Return the id of each tile, shape (n,). See `tile_id`."""
        rows = _digits(self.row)
        cols = _digits(self.col)
        text = np.empty((len(self), 2 * _DIGITS + 3), dtype="S1")
        text[:, 0], text[:, 1 : _DIGITS + 1] = b"r", rows
        text[:, _DIGITS + 1], text[:, _DIGITS + 2], text[:, _DIGITS + 3 :] = b"_", b"c", cols
        return text.view(f"S{text.shape[1]}").ravel().astype(str)


def _digits(values: NDArray[np.int32]) -> NDArray[np.bytes_]:
    """Return the decimal digits of non-negative numbers as characters, shape (n, `_DIGITS`)."""
    powers = 10 ** np.arange(_DIGITS - 1, -1, -1)
    return (values[:, None] // powers % 10 + ord("0")).astype(np.uint8).view("S1")


def tile_id(row: int, col: int) -> str:
    """Return the id of a tile, such as `r000012_c000345`. It depends on the tile's place in the grid only."""
    return f"r{row:0{_DIGITS}d}_c{col:0{_DIGITS}d}"


def tiles_in(grid: Grid, height: int, width: int, rows: tuple[int, int], cols: tuple[int, int]) -> Tiles:
    """Return the tiles of a rectangular part of the grid, row by row.

    Args:
        grid: the grid.
        height: height of the raster, px.
        width: width of the raster, px.
        rows: first grid row, and the row after the last.
        cols: first grid column, and the column after the last.
    """
    row_off, col_off = grid.offsets(height, *rows), grid.offsets(width, *cols)
    row, col = np.meshgrid(np.arange(*rows), np.arange(*cols), indexing="ij")
    tops, lefts = np.meshgrid(row_off, col_off, indexing="ij")
    return Tiles(
        row=row.ravel().astype(np.int32),
        col=col.ravel().astype(np.int32),
        col_off=lefts.ravel().astype(np.int32),
        row_off=tops.ravel().astype(np.int32),
        width=np.minimum(grid.size, width - lefts).ravel().astype(np.int32),
        height=np.minimum(grid.size, height - tops).ravel().astype(np.int32),
    )
