"""A made-up place for a raster that has no place on Earth, so that the web map can show it.

The middle of the raster lies at longitude 0 and latitude 0. All parts of the explorer use this module, so the raster,
its tiles and a click on the map agree.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import shapely
from numpy.typing import NDArray
from rasterio.transform import Affine

from rasterembed.collection.collection import Collection
from rasterembed.dataset.dataset import Dataset
from rasterembed.explorer.map_tile import EARTH_WIDTH_M, lonlat_of, world_of

_METRES_PER_PIXEL, _MOST_METRES = 10.0, 8_000_000.0
"""Size of a pixel on the map, and the largest side of a raster on the map. The pixels of a larger raster are smaller.
The whole raster then lies below 40 degrees of latitude, where the map has little distortion."""


@dataclass(frozen=True)
class MadeUpPlace:
    """The place on the map of a raster without a place on Earth.

    Example:
        >>> place = MadeUpPlace(width=200, height=100)
        >>> place.metres(np.array([100.0]), np.array([50.0]))
        (array([0.]), array([0.]))
    """

    width: int
    """Width of the raster, px."""
    height: int
    """Height of the raster, px."""

    @property
    def pixel(self) -> float:
        """Side of a pixel on the map, in metres of Web Mercator."""
        return min(_METRES_PER_PIXEL, _MOST_METRES / max(self.width, self.height))

    @property
    def transform(self) -> Affine:
        """Affine transform from pixels (column, row) to Web Mercator (EPSG:3857, metres)."""
        return Affine(self.pixel, 0.0, -self.pixel * self.width / 2, 0.0, -self.pixel, self.pixel * self.height / 2)

    def metres(
        self, cols: NDArray[np.float64], rows: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the place of pixel positions in Web Mercator, in metres.

        Args:
            cols: distances from the left edge, px, shape (n,).
            rows: distances from the upper edge, px, shape (n,).

        Returns:
            x and y, shape (n,).
        """
        return (cols - self.width / 2) * self.pixel, (self.height / 2 - rows) * self.pixel

    def lonlats(
        self, cols: NDArray[np.float64], rows: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the place of pixel positions as longitude and latitude in degrees. See `metres`."""
        x, y = self.metres(cols, rows)
        return lonlat_of(0.5 + x / EARTH_WIDTH_M, 0.5 - y / EARTH_WIDTH_M)

    def pixels(
        self, lon: NDArray[np.float64], lat: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return columns and rows of places on the map, px. They may lie outside the raster. The inverse of `lonlats`.

        Args:
            lon: longitudes in degrees, shape (n,).
            lat: latitudes in degrees, shape (n,).
        """
        u, v = world_of(lon, lat)
        x, y = (u - 0.5) * EARTH_WIDTH_M, (0.5 - v) * EARTH_WIDTH_M
        return x / self.pixel + self.width / 2, self.height / 2 - y / self.pixel

    @classmethod
    def of(cls, content: Dataset | Collection) -> MadeUpPlace | None:
        """Return the made-up place of a dataset without a place on Earth. Return None for everything else.

        The scenes of a collection would lie on top of each other, so those without a place on Earth are not shown.
        """
        if isinstance(content, Collection) or content.plan.profile.on_earth:
            return None
        return cls(content.plan.profile.width, content.plan.profile.height)

    def geometry(self, footprint: shapely.Geometry) -> shapely.Geometry:
        """Return a footprint in pixels as a geometry in longitude and latitude.

        Args:
            footprint: a geometry with x = column and y = row, px.
        """

        def places(points: NDArray[np.float64]) -> NDArray[np.float64]:
            return np.stack(self.lonlats(points[:, 0], points[:, 1]), axis=1)

        return shapely.transform(footprint, places)
