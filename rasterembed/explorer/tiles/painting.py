"""Find the tile on top at each pixel of a map tile.

The size of the shapes on the map decides how they are painted:

- Shapes up to one pixel wide: the pixel that contains the centre of the shape.
- Shapes up to three pixels wide: the pixels whose centres lie within the bounds of the shape.
- Larger shapes: the pixels whose centres lie within the shape. Two shapes with a common side then share no pixel, and
  leave no gap.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from rasterembed.explorer.map_tile import SIDE, MapTile
from rasterembed.explorer.tiles.shapes import Shapes
from rasterembed.explorer.tiles.world import Frame

_POINT_PX, _RECTANGLE_PX = 1.0, 3.0
"""Largest width of a shape that is painted as one pixel, and of one that is painted as a rectangle, in pixels."""

_LAYERS = 2
"""If a map tile has more shapes than would fit this number of times side by side, hidden ones are left out first."""

_NUMBERS_AT_ONCE = 2**21
"""Largest number of pixels and of crossings that are computed at once. It limits the memory."""


def top_shapes(shapes: Shapes, map_tile: MapTile, tiles: NDArray[np.bool_] | None = None) -> NDArray[np.int32]:
    """Return the number of the shape on top at each pixel of a map tile.

    Args:
        shapes: the shapes of all tiles.
        map_tile: the map tile.
        tiles: the tiles to paint, one boolean for each tile. None: all tiles.

    Returns:
        Numbers of shapes, shape (`SIDE`, `SIDE`). -1 where no tile is.
    """
    canvas, at = np.full(SIDE * SIDE, -1, np.int32), Frame(map_tile)
    for level in shapes.levels:
        found = level.near(at.left, at.top, at.left + at.units, at.top + at.units)
        if tiles is not None:
            found = found[tiles[shapes.tile[found]]]
        if not len(found):
            continue
        width = level.size / at.pixel
        if width <= _POINT_PX:
            _paint_points(canvas, shapes, at, found)
        else:
            if len(found) > _LAYERS * max(SIDE / width, 16.0) ** 2:
                found = _not_hidden(shapes, at, found)
            paint = _paint_rectangles if width <= _RECTANGLE_PX else _paint_polygons
            paint(canvas, shapes, at, found)
    painted = canvas >= 0
    canvas[painted] = shapes.by_paint[canvas[painted]]
    return canvas.reshape(SIDE, SIDE)


def _paint_points(canvas: NDArray[np.int32], shapes: Shapes, at: Frame, found: NDArray[np.int64]) -> None:
    col, row = _centre_pixels(shapes, at, found)
    inside = (col >= 0) & (col < SIDE) & (row >= 0) & (row < SIDE)
    np.maximum.at(canvas, row[inside] * SIDE + col[inside], shapes.paint[found[inside]])


def _paint_rectangles(canvas: NDArray[np.int32], shapes: Shapes, at: Frame, found: NDArray[np.int64]) -> None:
    left, right = _pixel_range(shapes.west[found], shapes.east[found], at.left, at.pixel)
    top, bottom = _pixel_range(shapes.north[found], shapes.south[found], at.top, at.pixel)
    paint = shapes.paint[found]
    for down in range(int((bottom - top).max(initial=0))):
        for across in range(int((right - left).max(initial=0))):
            col, row = left + across, top + down
            inside = (col < right) & (row < bottom)
            np.maximum.at(canvas, row[inside] * SIDE + col[inside], paint[inside])


def _paint_polygons(canvas: NDArray[np.int32], shapes: Shapes, at: Frame, found: NDArray[np.int64]) -> None:
    left, right = _pixel_range(shapes.west[found], shapes.east[found], at.left, at.pixel)
    top, bottom = _pixel_range(shapes.north[found], shapes.south[found], at.top, at.pixel)
    seen = (right > left) & (bottom > top)
    found, left, top, right, bottom = (values[seen] for values in (found, left, top, right, bottom))
    width = np.maximum(right - left, bottom - top)
    corners = np.diff(shapes.rings.starts)[found]
    for some in _groups(width, corners):
        side, most = int(width[some].max()), int(corners[some].max())
        inside = _pixels_inside(shapes, at, found[some], left[some], top[some], side, most)
        number, row, col = np.nonzero(inside)
        col, row = left[some][number] + col, top[some][number] + row
        within = (col < right[some][number]) & (row < bottom[some][number])
        np.maximum.at(canvas, row[within] * SIDE + col[within], shapes.paint[found[some][number[within]]])


def _groups(width: NDArray[np.int64], corners: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    """Yield numbers of shapes with similar width and number of corners, as many as fit in memory at once."""
    if not len(width):
        return
    kind = np.ceil(np.log2(width)).astype(np.int64) * 64 + np.ceil(np.log2(corners)).astype(np.int64)
    for one in np.unique(kind):
        members = np.flatnonzero(kind == one)
        side, most = int(width[members].max()), int(corners[members].max())
        step = max(1, _NUMBERS_AT_ONCE // (side * max(side + 1, most)))
        for start in range(0, len(members), step):
            yield members[start : start + step]


def _pixels_inside(
    shapes: Shapes,
    at: Frame,
    found: NDArray[np.int64],
    left: NDArray[np.int64],
    top: NDArray[np.int64],
    side: int,
    most: int,
) -> NDArray[np.bool_]:
    """Return which pixels of a square have their centres inside a shape, by the even-odd rule.

    For each row of pixels, the places are found where the outline crosses the line through the centres. A pixel is
    inside if an odd number of crossings is at its left.

    Args:
        shapes: all shapes.
        at: the map tile.
        found: numbers of n shapes.
        left: first column of each square, px, shape (n,).
        top: first row of each square, px, shape (n,).
        side: side of the squares, px.
        most: largest number of points of a ring.

    Returns:
        Booleans, shape (n, side, side).
    """
    starts, lengths = shapes.rings.starts[found], np.diff(shapes.rings.starts)[found]
    # Short rings repeat their last point. An edge without length crosses no row.
    points = starts[:, None] + np.minimum(np.arange(most), lengths[:, None] - 1)
    x = (shapes.rings.x[points] - float(at.left)) / at.pixel
    y = (shapes.rings.y[points] - float(at.top)) / at.pixel
    rows = top[:, None] + np.arange(side) + 0.5
    below = y[:, :, None] <= rows[:, None, :]
    shape, edge, row = np.nonzero(below[:, 1:] != below[:, :-1])
    x1, x2, y1, y2 = x[shape, edge], x[shape, edge + 1], y[shape, edge], y[shape, edge + 1]
    crossing = x1 + (rows[shape, row] - y1) / (y2 - y1) * (x2 - x1)
    first = np.clip(np.ceil(crossing - 0.5) - left[shape], 0, side).astype(np.int64)
    place = (shape * side + row) * (side + 1) + first
    odd = np.bincount(place, minlength=len(found) * side * (side + 1)).astype(np.uint8)
    inside = np.bitwise_xor.accumulate((odd & 1).reshape(len(found), side, side + 1), axis=2)
    return inside[:, :, :side].view(bool)


def _not_hidden(shapes: Shapes, at: Frame, found: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the shapes that others do not hide.

    Scenes of many dates can put hundreds of shapes on the same ground. Only the shape on top is kept if the centres of
    several shapes lie in the same pixel.
    """
    col, row = _centre_pixels(shapes, at, found)
    col, row = col - col.min(), row - row.min()
    columns, rows = int(col.max()) + 1, int(row.max()) + 1
    if columns * rows >= 2**63:
        return found
    place = row * columns + col
    if columns * rows > _NUMBERS_AT_ONCE:
        # If the map shows a part of a tile, the centres lie far outside, and most of the pixels between have none.
        place = np.unique(place, return_inverse=True)[1]
    top = np.full(int(place.max()) + 1, -1, np.int32)
    np.maximum.at(top, place, shapes.paint[found])
    shown: NDArray[np.int64] = found[top[place] == shapes.paint[found]]
    return shown


def _centre_pixels(shapes: Shapes, at: Frame, found: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return column and row of the pixel with the centre of each shape. They may be outside the map tile."""
    west, north = shapes.west[found].astype(np.int64), shapes.north[found].astype(np.int64)
    x = west + (shapes.east[found] - west) // 2 - at.left
    y = north + (shapes.south[found] - north) // 2 - at.top
    return np.floor(x / at.pixel).astype(np.int64), np.floor(y / at.pixel).astype(np.int64)


def _pixel_range(
    low: NDArray[np.uint32], high: NDArray[np.uint32], origin: int, pixel: float
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the first pixel whose centre is within bounds, and the first one after them, clipped to the map tile."""
    first = np.ceil((low - float(origin)) / pixel - 0.5)
    end = np.ceil((high - float(origin)) / pixel - 0.5)
    return np.clip(first, 0, SIDE).astype(np.int64), np.clip(end, 0, SIDE).astype(np.int64)
