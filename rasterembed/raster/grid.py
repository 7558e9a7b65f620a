"""The tile grid: which windows of a raster are tiles, and what they are called."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from rasterembed.errors import DataError

MAX_TILES = 100_000_000
"""Beyond this the index of one dataset is no longer a file that people can use."""

_DIGITS = 6


class Grid(BaseModel):
    """Square tiles in rows and columns, anchored at the raster's origin."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    size: int = Field(
        default=224,
        ge=16,
        le=4096,
        multiple_of=16,
        description="Side of a tile in px; a multiple of the model's patch side, 16.",
    )
    stride: int | None = Field(
        default=None,
        ge=1,
        description="Distance in px from one tile to the next; by default the size, so that tiles touch.",
    )
    edge: Literal["pad", "shift", "drop"] = Field(
        default="pad",
        description="The last row and column: whole tiles padded, tiles moved inward, or left out.",
    )

    @property
    def step(self) -> int:
        """The stride in px, resolved."""
        return self.stride or self.size

    def count(self, length: int) -> int:
        """Number of tiles along an axis of `length` px."""
        beyond = length - self.size
        if beyond < 0:
            return 0 if self.edge == "drop" else 1
        if self.edge == "drop":
            return beyond // self.step + 1
        covering = -(-beyond // self.step) + 1
        # a stride beyond the size leaves gaps, and a last tile may then begin outside
        return min(covering, -(-length // self.step))

    def offsets(self, length: int, first: int, stop: int) -> NDArray[np.int64]:
        """Offsets in px of tiles `first` to `stop` (exclusive) along an axis of `length` px, shape (n,)."""
        offsets = np.arange(first, stop, dtype=np.int64) * self.step
        if self.edge == "shift":
            offsets = np.minimum(offsets, max(length - self.size, 0))
        return offsets


def grid_shape(grid: Grid, height: int, width: int) -> tuple[int, int]:
    """Rows and columns of tiles on a raster of `height` x `width` px.

    Raises:
        DataError: if there would be no tile, or more than `MAX_TILES`.
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
    """Some tiles of a grid, as columns of equal length n."""

    row: NDArray[np.int32]
    """Row in the grid, from 0."""
    col: NDArray[np.int32]
    """Column in the grid, from 0."""
    col_off: NDArray[np.int32]
    """Left edge of the window, px."""
    row_off: NDArray[np.int32]
    """Upper edge of the window, px."""
    width: NDArray[np.int32]
    """Columns of the exact window, px; less than the size where the tile is padded."""
    height: NDArray[np.int32]
    """Rows of the exact window, px."""

    def __len__(self) -> int:
        return len(self.row)

    def take(self, which: NDArray[np.intp] | NDArray[np.bool_] | slice) -> Tiles:
        """The tiles at these positions, in this slice, or where the mask is true."""
        return Tiles(
            self.row[which],
            self.col[which],
            self.col_off[which],
            self.row_off[which],
            self.width[which],
            self.height[which],
        )

    def ids(self) -> NDArray[np.str_]:
        """`r{row:06d}_c{col:06d}` of each tile, shape (n,)."""
        rows = _digits(self.row)
        cols = _digits(self.col)
        text = np.empty((len(self), 2 * _DIGITS + 3), dtype="S1")
        text[:, 0], text[:, 1 : _DIGITS + 1] = b"r", rows
        text[:, _DIGITS + 1], text[:, _DIGITS + 2], text[:, _DIGITS + 3 :] = b"_", b"c", cols
        return text.view(f"S{text.shape[1]}").ravel().astype(str)


def _digits(values: NDArray[np.int32]) -> NDArray[np.bytes_]:
    """Decimal digits of non-negative numbers, shape (n, 6)."""
    powers = 10 ** np.arange(_DIGITS - 1, -1, -1)
    return (values[:, None] // powers % 10 + ord("0")).astype(np.uint8).view("S1")


def tile_id(row: int, col: int) -> str:
    """Name of the tile at `row`, `col`: stable for a raster and a grid."""
    return f"r{row:0{_DIGITS}d}_c{col:0{_DIGITS}d}"


def tiles_in(grid: Grid, height: int, width: int, rows: tuple[int, int], cols: tuple[int, int]) -> Tiles:
    """Tiles of a block of the grid in row-major order.

    Args:
        grid: the grid.
        height: rows of the raster, px.
        width: columns of the raster, px.
        rows: first row of tiles and the one after the last.
        cols: first column of tiles and the one after the last.
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
