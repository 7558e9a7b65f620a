"""Outlines: the part of a window that lies on Earth, as rings in pixel space.

1. Equally spaced points are laid over the window. Each point is on Earth or off Earth.
2. If one of two neighbouring points is on Earth and the other is off Earth, the edge of the map is found between them.
3. In each cell between four points, the points on Earth and the points on the edge make a polygon. The union of the
   polygons is the part of the window on Earth.
4. `middles` adds points to a ring, so that the ring follows the edge of the map.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.geometry.base import BaseGeometry

from rasterembed.raster.grid import Tiles

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Exists = Callable[[Floats, Floats], Bools]
"""Function that takes the columns and the rows of pixel positions, and returns True for each position on Earth."""

_CELL_PX, _LEAST_CELLS, _MOST_CELLS = 16, 16, 64
"""Intended side of a cell, in px. Smallest and largest number of cells along each side of a window."""

_SECTIONS, _ROUNDS = 16, 5
"""Number of sections and of rounds in the search for the edge of the map on a line. Each round cuts the line into
sections, and continues with the section that holds the edge. For a line of 64 px, the last section is shorter than
0.0001 px. A bisection would need more calls of PROJ with fewer points, which take more time."""

_SIDE_PX = 1e-6
"""A point counts as on a window's side if it is nearer than this to the side, in px."""


@dataclass(frozen=True)
class WindowPoints:
    """Equally spaced points over a window and its border. `on_earth` says which points are on Earth."""

    cols: Floats
    """Column of each column of points, px, shape (n,)."""
    rows: Floats
    """Row of each row of points, px, shape (n,)."""
    on_earth: Bools
    """Whether each point is on Earth, shape (n, n): row by row."""

    @property
    def has_ground(self) -> bool:
        """Whether all corners of at least one cell are on Earth. Otherwise the window counts as off Earth."""
        on = self.on_earth
        return bool((on[1:, 1:] & on[1:, :-1] & on[:-1, 1:] & on[:-1, :-1]).any())


def window_points(tile: Tiles, exists: Exists) -> WindowPoints:
    """Return the points over the window of a tile. `tile` holds exactly one tile."""
    left, top, width, height = (int(v[0]) for v in (tile.col_off, tile.row_off, tile.width, tile.height))
    cells = int(np.clip(max(width, height) // _CELL_PX, _LEAST_CELLS, _MOST_CELLS))
    cols, rows = left + width * np.linspace(0, 1, cells + 1), top + height * np.linspace(0, 1, cells + 1)
    return WindowPoints(cols, rows, exists(*np.meshgrid(cols, rows)))


def part_on_earth(points: WindowPoints, exists: Exists, margin: float) -> BaseGeometry:
    """Return the part of a window that is on Earth: polygons with x = column and y = row, in px.

    In a plot whose y axis points upwards, outer rings run counter-clockwise and holes run clockwise.

    Args:
        points: the points over the window.
        exists: function that returns which pixel positions are on Earth.
        margin: how far each point on the edge of the map is moved towards the Earth, along its row or column of
            points, px.
    """
    on = points.on_earth
    cols, rows = np.meshgrid(points.cols, points.rows)
    at = np.stack([cols, rows], axis=-1)
    across = _crossings(at[:, :-1], at[:, 1:], on[:, :-1], on[:, 1:], exists, margin)
    down = _crossings(at[:-1], at[1:], on[:-1], on[1:], exists, margin)
    corners_on = np.stack([on[:-1, :-1], on[1:, :-1], on[1:, 1:], on[:-1, 1:]])
    full = corners_on.all(axis=0)
    low, high = at[:-1, :-1][full].T, at[1:, 1:][full].T
    cells = list(shapely.box(low[0], low[1], high[0], high[1]))
    for i, j in zip(*np.nonzero(corners_on.any(axis=0) & ~full), strict=True):
        corners = ((i, j), (i + 1, j), (i + 1, j + 1), (i, j + 1))
        edges = (down[i, j], across[i + 1, j], down[i, j + 1], across[i, j])
        ring = []
        for k in range(4):
            if on[corners[k]]:
                ring.append(at[corners[k]])
            if on[corners[k]] != on[corners[(k + 1) % 4]]:
                ring.append(edges[k])
        cells.append(shapely.Polygon(ring))
    whole = shapely.simplify(shapely.union_all(cells), 1e-9)
    parts = [part for part in shapely.get_parts(whole) if part.geom_type == "Polygon" and part.area > 0]
    return shapely.orient_polygons(shapely.MultiPolygon(parts))


def _crossings(start: Floats, end: Floats, on: Bools, on_end: Bools, exists: Exists, margin: float) -> Floats:
    """Return the point where each line from `start` to `end` crosses the edge of the map, px, shape (..., 2).

    The point is NaN if both ends of the line are on Earth, or both are off Earth.
    """
    result = np.full(start.shape, np.nan)
    differ = on != on_end
    inside = np.where(on[..., None], start, end)[differ]
    outside = np.where(on[..., None], end, start)[differ]
    step = outside - inside
    length = np.hypot(step[:, 0], step[:, 1])
    share = _last_on_earth(inside, step, exists)
    # Keep a margin to the edge. A point almost on the edge can get a longitude on the wrong side of the map.
    share = np.maximum(share - margin / length, 0.0)
    result[differ] = inside + share[:, None] * step
    return result


def _last_on_earth(start: Floats, step: Floats, exists: Exists) -> Floats:
    """Return the share of each step that lies on Earth, from 0 to 1, shape (n,).

    Args:
        start: columns and rows of the points where the steps begin, px, shape (n, 2). These points are on Earth.
        step: columns and rows from the start to the end of each step, px, shape (n, 2). The ends are off Earth.
        exists: function that returns which pixel positions are on Earth.
    """
    share, length = np.zeros(len(start)), 1.0
    for _ in range(_ROUNDS if len(start) else 0):
        length /= _SECTIONS
        shares = share[:, None] + length * np.arange(1, _SECTIONS + 1)
        on = exists(start[:, :1] + shares * step[:, :1], start[:, 1:] + shares * step[:, 1:])
        on[:, -1] = False
        share = share + length * np.argmin(on, axis=1)
    return share


def middles(ring: Floats, tile: Tiles, exists: Exists, margin: float) -> tuple[Floats, Floats]:
    """Return a point between each two neighbours of a ring, and its distance from the straight line between them.

    On the window's sides, the point is the middle of the line. Elsewhere it is the point beside the middle that is on
    the edge of the map.

    Args:
        ring: columns (x) and rows (y) of a closed ring, px, shape (n + 1, 2). In a plot whose y axis points
            upwards, the interior is at the left of the ring.
        tile: exactly one tile.
        exists: function that returns which pixel positions are on Earth.
        margin: distance of the points from the edge of the map, px.

    Returns:
        Columns and rows of the points, px, shape (n, 2). Distances of the points from their lines, px, shape (n,):
        positive at the left of the line, and NaN if no point on Earth is near.
    """
    start, step = ring[:-1], np.diff(ring, axis=0)
    middle = start + step / 2
    length = np.hypot(step[:, 0], step[:, 1])
    left = np.stack([-step[:, 1], step[:, 0]], axis=1) / np.maximum(length, np.finfo(float).tiny)[:, None]
    off = ~exists(*middle.T)
    # If the middle is off Earth, the edge of the map is at the left of the line. If the middle is on Earth, the line
    # can cut off a corner of the Earth. The edge is then at the right.
    reach = np.where(off, length / 2, -length / 2)[:, None] * left
    far_on = exists(*(middle + reach).T)
    distance = np.where(off, np.nan, 0.0)
    search = (off & far_on) | (~off & ~far_on & ~_on_one_side(ring, tile))
    inside = np.where(off[:, None], middle + reach, middle)[search]
    outward = np.where(off[:, None], -reach, reach)[search]
    share = _last_on_earth(inside, outward, exists)
    share = np.maximum(share - margin / np.maximum(length[search] / 2, margin), 0.0)
    found = inside + share[:, None] * outward
    distance[search] = np.where(exists(*found.T), ((found - middle[search]) * left[search]).sum(axis=1), np.nan)
    result = middle.copy()
    result[search] = found
    return result, distance


def _on_one_side(ring: Floats, tile: Tiles) -> Bools:
    """Return True for each line of a ring that has both ends on the same side of the window, shape (n,)."""
    result = np.zeros(len(ring) - 1, dtype=bool)
    for axis, offset, size in ((0, tile.col_off, tile.width), (1, tile.row_off, tile.height)):
        for side in (int(offset[0]), int(offset[0] + size[0])):
            near = np.abs(ring[:, axis] - side) < _SIDE_PX
            result |= near[:-1] & near[1:]
    return result
