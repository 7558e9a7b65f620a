"""A map tile: a square of the web map, named by zoom, column and row (WebMercatorQuad of OGC 17-083r4)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rasterembed.errors import UsageError

Floats = NDArray[np.float64]

SIDE = 512
"""Width and height of a map tile, px."""

MAX_ZOOM = 24
"""Largest zoom. A pixel of a map tile is then 5 mm wide at the equator."""

MAX_LATITUDE = math.degrees(math.atan(math.sinh(math.pi)))
"""Latitude of the upper edge of the web map, in degrees: 85.05."""

EARTH_WIDTH_M = 2 * math.pi * 6_378_137.0
"""Width of the web map in the unit of EPSG:3857."""


@dataclass(frozen=True, slots=True)
class MapTile:
    """A map tile.

    Example:
        >>> MapTile(1, 1, 0).bounds
        (0.0, 0.0, 180.0, 85.0511287798066)
    """

    z: int
    """Zoom. At zoom 0, one map tile shows the whole web map, and each further zoom halves the side of a map tile."""
    x: int
    """Column, from 0 at the antimeridian eastwards."""
    y: int
    """Row, from 0 at the upper edge southwards."""

    @classmethod
    def of(cls, z: int, x: int, y: int) -> MapTile:
        """Return a map tile that was asked for.

        Raises:
            UsageError: if the web map has no such map tile.
        """
        if not 0 <= z <= MAX_ZOOM:
            raise UsageError(f"zoom {str(z)[:20]} does not exist: choose a zoom from 0 to {MAX_ZOOM}")
        if not (0 <= x < 2**z and 0 <= y < 2**z):
            raise UsageError(
                f"zoom {z} has no map tile {str(x)[:20]}/{str(y)[:20]}: its columns and rows are 0 to {2**z - 1}"
            )
        return cls(z, x, y)

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """West, south, east, north in degrees."""
        lon, lat = lonlat_of(np.array([self.x, self.x + 1]) / 2.0**self.z, np.array([self.y + 1, self.y]) / 2.0**self.z)
        return float(lon[0]), float(lat[0]), float(lon[1]), float(lat[1])

    def lonlat(self, cols: NDArray[np.number], rows: NDArray[np.number]) -> tuple[Floats, Floats]:
        """Return longitude and latitude of positions in the map tile, in degrees.

        Args:
            cols: positions from the left edge, px, any shape.
            rows: positions from the upper edge, px, of the same shape.
        """
        u, v = self.x + np.asarray(cols, np.float64) / SIDE, self.y + np.asarray(rows, np.float64) / SIDE
        return lonlat_of(u / 2.0**self.z, v / 2.0**self.z)

    def pixels(self, lon: Floats, lat: Floats) -> tuple[Floats, Floats]:
        """Return the positions of places in the map tile, px. They may lie outside. This is the inverse of `lonlat`."""
        u, v = world_of(lon, lat)
        return (u * 2.0**self.z - self.x) * SIDE, (v * 2.0**self.z - self.y) * SIDE


def world_of(lon: Floats, lat: Floats) -> tuple[Floats, Floats]:
    """Return the positions of places on the web map, from 0 to 1 eastwards and southwards.

    Latitudes beyond the edge of the web map are moved to the edge.

    Args:
        lon: longitudes in degrees, any shape. A longitude outside -180 to 180 gives a position outside 0 to 1.
        lat: latitudes in degrees, of the same shape.
    """
    north = np.radians(np.clip(lat, -MAX_LATITUDE, MAX_LATITUDE))
    return (lon + 180.0) / 360.0, 0.5 - np.arcsinh(np.tan(north)) / (2.0 * np.pi)


def lonlat_of(u: Floats, v: Floats) -> tuple[Floats, Floats]:
    """Return longitude and latitude of positions on the web map, in degrees. This is the inverse of `world_of`."""
    return 360.0 * u - 180.0, np.degrees(np.arctan(np.sinh(np.pi * (1.0 - 2.0 * v))))
