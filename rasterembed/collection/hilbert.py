"""The Hilbert curve over the whole Earth. Places that are near on the curve are near on the ground."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

ORDER = 26
"""Number of bits of each coordinate. A cell of the curve is 0.6 m wide at the equator, less than any tile."""

NOWHERE = np.int64(2**62)
"""Key of a row without a place on Earth. It is larger than every key of a place."""


def hilbert_keys(lon: NDArray[np.float64], lat: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the position of each place on the Hilbert curve.

    The curve always covers the whole Earth, so the key of a place does not depend on the other places.

    Args:
        lon: longitudes in degrees, shape (n,). NaN for a row without a place.
        lat: latitudes in degrees, shape (n,).

    Returns:
        Keys from 0 to 4**ORDER - 1, or `NOWHERE`, shape (n,).
    """
    placed = np.isfinite(lon) & np.isfinite(lat)
    keys = np.full(lon.shape, NOWHERE)
    cells = 2**ORDER
    x = np.clip((lon[placed] + 180.0) / 360.0 * cells, 0, cells - 1).astype(np.int64)
    y = np.clip((lat[placed] + 90.0) / 180.0 * cells, 0, cells - 1).astype(np.int64)
    keys[placed] = curve_positions(x, y, ORDER)
    return keys


def curve_positions(x: NDArray[np.int64], y: NDArray[np.int64], order: int) -> NDArray[np.int64]:
    """Return the position of each cell on a Hilbert curve through 2**order x 2**order cells.

    The algorithm goes from the largest quadrant to the smallest one. In each step, it turns the quadrant so that the
    curve inside has the shape of the whole curve. Source: https://en.wikipedia.org/wiki/Hilbert_curve, function xy2d.

    Args:
        x: columns of the cells, from 0 to 2**order - 1, shape (n,).
        y: rows of the cells, shape (n,).
        order: number of steps.
    """
    x, y = x.copy(), y.copy()
    position = np.zeros(x.shape, np.int64)
    for step in range(order - 1, -1, -1):
        side = np.int64(1) << step
        right, up = (x & side) > 0, (y & side) > 0
        position += side * side * ((3 * right) ^ up)
        mirrored = right & ~up
        x[mirrored], y[mirrored] = ~x[mirrored], ~y[mirrored]
        turned = ~up
        x[turned], y[turned] = y[turned], x[turned]
    return position
