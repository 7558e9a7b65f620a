"""Places of many pixels in another raster, computed from a net of nodes.

PROJ converts only the nodes of a net. The places between the nodes are interpolated. If the interpolation in a cell of
the net would be too inaccurate, PROJ converts all places in that cell.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from rasterembed.raster.georeference import Floats

Convert = Callable[[NDArray[np.number], NDArray[np.number]], tuple[Floats, Floats]]
"""Function that takes x and y of points, any shape, and returns their positions in the other raster, px."""

_SPACING = 16
"""Distance of the nodes, in points."""

_CELL = 2 * _SPACING
"""Side of a cell, in points. A cell has 3 x 3 nodes."""


def places_on_net(convert: Convert, box: tuple[int, int, int, int], tolerance_px: float) -> tuple[Floats, Floats]:
    """Return the positions of the centres of all points of a box.

    The net is fixed to the point (0, 0), so the position of a point does not depend on the box.

    Args:
        convert: returns the exact positions of points. A place that is not on the other raster's map is NaN or
            infinite.
        box: left, top, right and bottom edge of the box, in points.
        tolerance_px: largest distance between the true place of a node and the place interpolated from the corners of
            its cell, px. Nodes lie twice as dense as these corners, and the error of an interpolation grows with the
            square of the distance. The places between nodes are therefore accurate to about a quarter of this.

    Returns:
        Positions from the left and from the upper edge of the other raster, px, both of the shape of the box.
    """
    x0, y0, x1, y1 = box
    cell_x, cell_y = x0 // _CELL * _CELL, y0 // _CELL * _CELL
    xs = np.arange(cell_x, -(-x1 // _CELL) * _CELL + 1, _SPACING)
    ys = np.arange(cell_y, -(-y1 // _CELL) * _CELL + 1, _SPACING)
    nodes = convert(*np.meshgrid(xs, ys))
    with np.errstate(invalid="ignore"):  # Infinities, where a place is not on the map.
        accurate = np.logical_and.reduce([_is_accurate(axis, tolerance_px) for axis in nodes])
        across, down = slice(x0 - cell_x, x1 - cell_x), slice(y0 - cell_y, y1 - cell_y)
        places = [_between(axis, down, across) for axis in nodes]
    for row, col in np.argwhere(~accurate):
        left_x, top_y = max(cell_x + int(col) * _CELL, x0), max(cell_y + int(row) * _CELL, y0)
        right_x = min(cell_x + (int(col) + 1) * _CELL, x1)
        bottom_y = min(cell_y + (int(row) + 1) * _CELL, y1)
        centres = np.meshgrid(np.arange(left_x, right_x) + 0.5, np.arange(top_y, bottom_y) + 0.5)
        part = slice(top_y - y0, bottom_y - y0), slice(left_x - x0, right_x - x0)
        for axis, exact in zip(places, convert(*centres), strict=True):
            axis[part] = exact
    return places[0], places[1]


def _is_accurate(nodes: Floats, tolerance_px: float) -> NDArray[np.bool_]:
    """Return for each cell whether its nodes are near the places interpolated from its corners.

    Args:
        nodes: positions of the nodes along one axis, px, shape (2 * rows + 1, 2 * columns + 1).
        tolerance_px: see `places_on_net`.

    Returns:
        Booleans, shape (rows, columns).
    """
    corners = nodes[::2, ::2]
    sides = (corners[:, :-1] + corners[:, 1:]) / 2
    ends = (corners[:-1] + corners[1:]) / 2
    beside = np.abs(nodes[::2, 1::2] - sides) <= tolerance_px
    above = np.abs(nodes[1::2, ::2] - ends) <= tolerance_px
    middle = np.abs(nodes[1::2, 1::2] - (sides[:-1] + sides[1:]) / 2) <= tolerance_px
    accurate: NDArray[np.bool_] = middle & beside[:-1] & beside[1:] & above[:, :-1] & above[:, 1:]
    return accurate


def _between(nodes: Floats, down: slice, across: slice) -> Floats:
    """Interpolate between nodes.

    Args:
        nodes: positions of the nodes along one axis, px.
        down: rows to return, in points from the first node.
        across: columns to return, in points from the first node.
    """
    share = (np.arange(_SPACING) + 0.5) / _SPACING
    rows = len(nodes)
    wide = nodes[:, :-1, None] * (1 - share) + nodes[:, 1:, None] * share
    wide = wide.reshape(rows, -1)[:, across]
    high = wide[:-1, None] * (1 - share)[:, None] + wide[1:, None] * share[:, None]
    return high.reshape(-1, wide.shape[1])[down]
