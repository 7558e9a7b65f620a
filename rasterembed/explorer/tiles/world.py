"""World coordinates: places on the web map as whole numbers, and their order along a Morton curve.

The web map is a square of 2^32 by 2^32 units. x grows eastwards from longitude -180, y grows southwards from latitude
85.05. A unit is at most 1 cm, so whole numbers of 32 bits are exact enough for a map. A place beyond 85.05 degrees of
latitude lies on the edge of the square, because Web Mercator ends there.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rasterembed.explorer.map_tile import EARTH_WIDTH_M, SIDE, MapTile, lonlat_of, world_of

WORLD = 2**32
"""Side of the web map, in units."""

Units = NDArray[np.uint32]
"""World coordinates."""


def to_world(lon: NDArray[np.float64], lat: NDArray[np.float64]) -> tuple[Units, Units]:
    """Return longitudes and latitudes in degrees as world coordinates x and y."""
    u, v = world_of(lon, lat)
    return _units(u), _units(v)


def metres_to_world(x: NDArray[np.float64], y: NDArray[np.float64]) -> tuple[Units, Units]:
    """Return places in Web Mercator (EPSG:3857, metres) as world coordinates x and y."""
    return _units(0.5 + x / EARTH_WIDTH_M), _units(0.5 - y / EARTH_WIDTH_M)


def _units(share: NDArray[np.float64]) -> Units:
    # A damaged file may hold numbers that are not finite. They lie on the edge of the map.
    units = np.nan_to_num(np.rint(share * WORLD), nan=0.0)
    whole: Units = np.clip(units, 0, WORLD - 1).astype(np.uint32)
    return whole


def to_lonlat(x: NDArray[np.number], y: NDArray[np.number]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return world coordinates as longitudes and latitudes in degrees."""
    return lonlat_of(np.asarray(x, np.float64) / WORLD, np.asarray(y, np.float64) / WORLD)


class Frame:
    """A map tile in world coordinates.

    Args:
        at: the map tile.
    """

    def __init__(self, at: MapTile) -> None:
        self.units = WORLD >> at.z
        """Side of the map tile, in units."""
        self.left, self.top = at.x * self.units, at.y * self.units
        """West side and north side, in units."""
        self.pixel = self.units / SIDE
        """Side of a pixel, in units."""


def morton(x: NDArray[np.integer], y: NDArray[np.integer]) -> NDArray[np.uint64]:
    """Return the Morton codes of numbers of 16 bits: their bits by turns, the highest first.

    Source: G. M. Morton, "A computer oriented geodetic data base and a new technique in file sequencing", IBM, 1966.

    Args:
        x: columns, 0 to 65535, shape (n,).
        y: rows, 0 to 65535, shape (n,).

    Returns:
        Codes of 32 bits, shape (n,).
    """
    return _spread(x) | (_spread(y) << np.uint64(1))


def _spread(values: NDArray[np.integer]) -> NDArray[np.uint64]:
    """Return numbers with a zero bit before each of their 16 bits."""
    bits = np.asarray(values).astype(np.uint64)
    for shift, mask in ((8, 0x00FF00FF), (4, 0x0F0F0F0F), (2, 0x33333333), (1, 0x55555555)):
        bits = (bits | (bits << np.uint64(shift))) & np.uint64(mask)
    return bits
