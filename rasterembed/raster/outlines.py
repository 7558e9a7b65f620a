"""Outlines: the part of a window that lies on Earth, as rings in pixel space.

1. A lattice of points is laid over the window. Each point is on Earth or not.
2. Where two neighbours differ, the edge of the Earth is found between them.
3. In each cell of the lattice, the points on Earth and the points on the edge make a polygon. The union of the polygons
   is the part of the window on Earth.
4. `middles` gives further points between the points of a ring. They follow the edge of the Earth.
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
"""Returns whether pixel positions, given as columns and rows, are on Earth."""

_CELL_PX, _LEAST_CELLS, _MOST_CELLS = 16, 16, 64
"""Wished side of a cell, in px, and bounds for the number of cells along each side of a window."""

_SECTIONS, _ROUNDS = 16, 5
"""In how many parts a line is cut to find the edge of the Earth in one of them, and how often. A line of 64 px comes to
0.0001 px. A few calls of PROJ with many points take less time than many calls with few."""

_SIDE_PX = 1e-6
"""A point this near a window's side, in px, lies on the side."""


@dataclass(frozen=True)
class Lattice:
    """Points at equal distances over a window, including its border, and which of them are on Earth."""

    cols: Floats
    """Columns of the points, px, shape (n,)."""
    rows: Floats
    """Rows of the points, px, shape (n,)."""
    on_earth: Bools
    """Shape (n rows, n columns)."""

    @property
    def has_ground(self) -> bool:
        """Whether all corners of at least one cell are on Earth. Otherwise the window counts as off Earth."""
        on = self.on_earth
        return bool((on[1:, 1:] & on[1:, :-1] & on[:-1, 1:] & on[:-1, :-1]).any())


def lattice(tile: Tiles, exists: Exists) -> Lattice:
    """Return the lattice of a single tile's window."""
    left, top, width, height = (int(v[0]) for v in (tile.col_off, tile.row_off, tile.width, tile.height))
    cells = int(np.clip(max(width, height) // _CELL_PX, _LEAST_CELLS, _MOST_CELLS))
    cols, rows = left + width * np.linspace(0, 1, cells + 1), top + height * np.linspace(0, 1, cells + 1)
    return Lattice(cols, rows, exists(*np.meshgrid(cols, rows)))


def part_on_earth(points: Lattice, exists: Exists, margin: float) -> BaseGeometry:
    """Return the part of a window that is on Earth, in px. Its rings have their interior at the left, with y upwards.

    Args:
        points: the window's lattice.
        exists: whether pixel positions are on Earth.
        margin: distance of the result from the edge of the Earth, px.
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
    """Return where each edge of the lattice crosses the edge of the Earth, shape (..., 2). Others are NaN."""
    result = np.full(start.shape, np.nan)
    differ = on != on_end
    inside = np.where(on[..., None], start, end)[differ]
    outside = np.where(on[..., None], end, start)[differ]
    step = outside - inside
    length = np.hypot(step[:, 0], step[:, 1])
    share = _last_on_earth(inside, step, exists)
    # The margin stays away from points that are barely on Earth, which have a place on the wrong side.
    share = np.maximum(share - margin / length, 0.0)
    result[differ] = inside + share[:, None] * step
    return result


def _last_on_earth(start: Floats, step: Floats, exists: Exists) -> Floats:
    """Return how far one can go from each start along its step and stay on Earth, as a share of the step, shape (n,).

    Args:
        start: columns and rows of points on Earth, shape (n, 2).
        step: steps that end off Earth, px, shape (n, 2).
        exists: whether pixel positions are on Earth.
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
    """Return a point between each two neighbours of a ring, and how far it is from the straight line between them.

    On the window's sides the point is the middle. Elsewhere it is the point of the edge of the Earth beside the middle.

    Args:
        ring: columns and rows of a closed ring with its interior at the left, px, shape (n + 1, 2).
        tile: the single tile.
        exists: whether pixel positions are on Earth.
        margin: distance of the points from the edge of the Earth, px.

    Returns:
        Columns and rows of the points, shape (n, 2), and distances to the left in px, shape (n,). A distance is NaN if
        no point on Earth is near.
    """
    start, step = ring[:-1], np.diff(ring, axis=0)
    middle = start + step / 2
    length = np.hypot(step[:, 0], step[:, 1])
    left = np.stack([-step[:, 1], step[:, 0]], axis=1) / np.maximum(length, np.finfo(float).tiny)[:, None]
    off = ~exists(*middle.T)
    # Where the ring cuts a corner off the Earth, the edge is at the right. Where it cuts through space, at the left.
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
    """Return whether both ends of each edge of a ring lie on the same side of the window, shape (n,)."""
    result = np.zeros(len(ring) - 1, dtype=bool)
    for axis, offset, size in ((0, tile.col_off, tile.width), (1, tile.row_off, tile.height)):
        for side in (int(offset[0]), int(offset[0] + size[0])):
            near = np.abs(ring[:, axis] - side) < _SIDE_PX
            result |= near[:-1] & near[1:]
    return result
