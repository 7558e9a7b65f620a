"""The grid of tiles on a raster: the window and the id of each tile."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, model_validator

from rasterembed.errors import DataError
from rasterembed.number_text import number_text
from rasterembed.options_model import OptionsModel

MAX_TILES = 100_000_000
"""Largest number of tiles of a grid. With more tiles, the file of the tile index would be too large to work with."""

_DIGITS = 6
"""Number of decimal digits of the grid row, and of the grid column, in a tile id. In a grid that is anchored to the
CRS, a number may have more digits."""


class Anchor(BaseModel):
    """The position of a raster on the common lattice of pixels, which begins at the origin of the grid.

    Two rasters of one CRS and one pixel size have the same lattice if their pixel edges lie on it.
    `rasterembed.raster.anchor.find_anchor` returns the anchor of a raster.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    col: int
    """Distance from the grid's origin eastwards to the raster's left edge, in px of the raster."""
    row: int
    """Distance from the grid's origin northwards to the raster's upper edge, in px of the raster."""


class Grid(OptionsModel):
    """Square tiles in rows and columns.

    With `anchor="raster"`, the first tile begins at the raster's upper left corner. With `anchor="crs"`, tile x reaches
    from `x * step` to `x * step + size` px east of the grid's origin, and tile y in the same way to the north. The grid
    then has every tile that shares a pixel with the raster. Each tile is whole: its part outside the raster is padding.
    By default, the grid's origin is that of the CRS. With `resolution`, and perhaps `crs`, rasters that are not on this
    lattice are warped to it while they are read.

    Example:
        >>> grid = Grid(size=224, stride=112)
        >>> grid.count(1000)
        8
        >>> grid.offsets(1000, 0, 3).tolist()
        [0, 112, 224]
    """

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

    anchor: Literal["raster", "crs"] = Field(
        default="raster",
        # Without the default anchor, grids have the same text and the same fingerprint as in version 0.1.
        exclude_if=lambda anchor: anchor == "raster",
        description="Where tiles are counted from: the raster's upper left corner, or the origin of its CRS. With crs, "
        "all rasters of one CRS and one pixel size share the same tiles and tile ids. The rasters' pixel edges must "
        "then be whole numbers of pixels from the origin.",
    )

    origin: tuple[FiniteFloat, FiniteFloat] = Field(
        default=(0.0, 0.0),
        exclude_if=lambda origin: tuple(origin) == (0.0, 0.0),
        description="With the anchor crs: x and y of the point that tiles are counted from, in units of the CRS. Pixel "
        "edges must be whole numbers of pixels from it. Landsat needs 15 15.",
    )

    resolution: float | None = Field(
        default=None,
        ge=1e-9,
        le=1e9,
        exclude_if=lambda resolution: resolution is None,
        description="With the anchor crs: side of a pixel, in units of the CRS. Rasters with other pixels are warped "
        "to these pixels while they are read.",
    )
    crs: str | None = Field(
        default=None,
        max_length=10_000,
        exclude_if=lambda crs: crs is None,
        description="With resolution: CRS that rasters are warped to while they are read, such as EPSG:32635. By "
        "default each raster keeps its CRS.",
    )

    @model_validator(mode="after")
    def _check(self) -> Grid:
        if self.crs is not None and self.resolution is None:
            raise ValueError("`crs` warps rasters to pixels of one size: give `resolution` too, in units of the CRS")
        if self.anchor != "crs" and self.resolution is not None:
            raise ValueError("`resolution` warps rasters to the lattice of an anchored grid: give `anchor=crs` too")
        if self.anchor != "crs" and self.origin != (0.0, 0.0):
            raise ValueError("`origin` is the point that tiles of `anchor=crs` are counted from: give `anchor=crs` too")
        if self.anchor == "crs" and self.edge == "shift":
            raise ValueError(
                "`edge=shift` would move tiles, but tiles of `anchor=crs` have fixed places: use pad or drop"
            )
        return self

    @property
    def step(self) -> int:
        """Distance from one tile to the next, in px: the stride, or the size if no stride is given."""
        return self.stride or self.size

    def describe(self) -> str:
        """Return the grid in one line.

        Example:
            >>> Grid(size=64, anchor="crs", resolution=10, crs="EPSG:32635").describe()
            '64 px, stride 64 px, edge pad, anchor crs, pixels of 10 in EPSG:32635'
        """
        text = f"{self.size} px, stride {self.step} px, edge {self.edge}, anchor {self.anchor}"
        if self.origin != (0.0, 0.0):
            text += f", origin {number_text(self.origin[0])} {number_text(self.origin[1])}"
        if self.resolution is not None:
            crs = "the CRS of the scene" if self.crs is None else self.crs
            text += f", pixels of {number_text(self.resolution)} in {crs}"
        return text

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

    def numbers(self, begin: int, length: int) -> range:
        """Return the numbers of the tiles of an anchored grid that lie on a raster, along an axis.

        Args:
            begin: distance from the grid's origin to the raster's left or lower edge, px. It may be negative.
            length: length of the axis, px.
        """
        end = begin + length
        if self.edge == "drop":
            return range(-(-begin // self.step), (end - self.size) // self.step + 1)
        return range((begin - self.size) // self.step + 1, -(-end // self.step))


def grid_shape(grid: Grid, height: int, width: int, anchor: Anchor | None = None) -> tuple[int, int]:
    """Return the numbers of rows and columns of the grid on a raster of `height` x `width` px.

    Args:
        grid: the grid.
        height: height of the raster, px.
        width: width of the raster, px.
        anchor: position of the raster on the common lattice if the grid is anchored to the CRS, else None.

    Raises:
        DataError: if the grid would have no tile, or more than `MAX_TILES`.
    """
    if anchor is None:
        rows, cols = grid.count(height), grid.count(width)
    else:
        rows, cols = len(grid.numbers(anchor.row - height, height)), len(grid.numbers(anchor.col, width))
    if rows * cols == 0 and grid.edge == "pad":
        raise DataError(
            f"a {width}x{height} px raster lies in a gap between tiles, which is {grid.step - grid.size} px wide: "
            "use a smaller stride"
        )
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
    """Width of the window, px. In a grid anchored to the raster, a padded tile has a window smaller than the grid's
    size. In a grid anchored to the CRS, a window has the full size, and may reach beyond the raster on any side."""
    height: NDArray[np.int32]
    """Height of the window, px. See `width`."""
    first: tuple[int, int] | None = None
    """x and y of the tile in row 0 and column 0 if the grid is anchored to the CRS, else None."""

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
            self.first,
        )

    def id(self, i: int) -> str:
        """Return the id of tile `i` of these tiles."""
        return str(self.take(slice(i, i + 1)).ids()[0])

    def ids(self) -> NDArray[np.str_]:
        """Return the id of each tile, shape (n,). See `tile_id` and `anchored_id`."""
        if self.first is not None:
            x, y = self.first
            # The rows of the grid go down, and y goes up.
            xs, which_x = np.unique(x + self.col.astype(np.int64), return_inverse=True)
            ys, which_y = np.unique(y - self.row.astype(np.int64), return_inverse=True)
            first_parts = np.array([f"x{_signed(n)}_" for n in xs.tolist()], dtype=np.str_)
            second_parts = np.array([f"y{_signed(n)}" for n in ys.tolist()], dtype=np.str_)
            return np.char.add(first_parts[which_x], second_parts[which_y])
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


def anchored_id(x: int, y: int) -> str:
    """Return the id of a tile of a grid that is anchored to the CRS, such as `x+000160_y+030000`.

    It depends on the tile's distance from the grid's origin only.

    Args:
        x: number of the tile eastwards from the origin.
        y: number of the tile northwards from the origin.
    """
    return f"x{_signed(x)}_y{_signed(y)}"


def _signed(number: int) -> str:
    return f"{number:+0{_DIGITS + 1}d}"


def tiles_in(
    grid: Grid,
    height: int,
    width: int,
    rows: tuple[int, int],
    cols: tuple[int, int],
    anchor: Anchor | None = None,
) -> Tiles:
    """Return the tiles of a rectangular part of the grid, row by row.

    Args:
        grid: the grid.
        height: height of the raster, px.
        width: width of the raster, px.
        rows: first grid row, and the row after the last.
        cols: first grid column, and the column after the last.
        anchor: position of the raster on the common lattice if the grid is anchored to the CRS, else None.
    """
    first = None
    if anchor is None:
        row_off, col_off = grid.offsets(height, *rows), grid.offsets(width, *cols)
    else:
        first = grid.numbers(anchor.col, width)[0], grid.numbers(anchor.row - height, height)[-1]
        col_off = (first[0] + np.arange(*cols, dtype=np.int64)) * grid.step - anchor.col
        row_off = anchor.row - grid.size - (first[1] - np.arange(*rows, dtype=np.int64)) * grid.step
    row, col = np.meshgrid(np.arange(*rows), np.arange(*cols), indexing="ij")
    tops, lefts = np.meshgrid(row_off, col_off, indexing="ij")
    if anchor is None:
        heights, widths = np.minimum(grid.size, height - tops), np.minimum(grid.size, width - lefts)
    else:
        heights = widths = np.full(tops.shape, grid.size)
    return Tiles(
        row=row.ravel().astype(np.int32),
        col=col.ravel().astype(np.int32),
        col_off=lefts.ravel().astype(np.int32),
        row_off=tops.ravel().astype(np.int32),
        width=widths.ravel().astype(np.int32),
        height=heights.ravel().astype(np.int32),
        first=first,
    )
