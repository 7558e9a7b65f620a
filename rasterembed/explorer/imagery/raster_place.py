"""The place of a raster on the web map."""

from __future__ import annotations

import math

import numpy as np
import shapely
from numpy.typing import NDArray
from pyproj.exceptions import CRSError, ProjError

from rasterembed.dataset.extent import outline
from rasterembed.dataset.plan import Plan
from rasterembed.errors import DataError, one_line
from rasterembed.explorer.made_up_place import MadeUpPlace
from rasterembed.explorer.map_tile import MAX_ZOOM, SIDE, MapTile, world_of
from rasterembed.raster.georeference import Floats, Georeference
from rasterembed.raster.place_net import places_on_net

PixelBox = tuple[int, int, int, int]
"""Left, top, right and bottom edge of a part of a map tile, px."""

_MARGIN_PX = 2
"""A raster's outline is accurate to a tenth of its pixels. The parts of a map tile that are drawn reach this far beyond
the outline, in px of the map tile."""

_MOST_BOXES = 4
"""Largest number of parts of a map tile that are drawn one by one. A raster across the antimeridian has two. Of one
with more parts, the box around all of them is drawn."""

_PROBES = 9
"""Number of points along each side of a box at which the scale is measured."""

_TOLERANCE_PX = 0.1
"""Tolerance of the net of places, in px of the map tile. Places are accurate to about a quarter of this."""


class RasterPlace:
    """Converts positions in map tiles to positions in one raster.

    A raster with ground control points has an object of GDAL, which threads may not share. Each thread then needs its
    own `RasterPlace`.

    Args:
        plan: plan of the raster's dataset. Positions are those of the raster in its files, also if it is warped. A
            raster without a place on Earth lies at its made-up place.

    Raises:
        DataError: if the raster has a place that cannot be computed.
    """

    def __init__(self, plan: Plan) -> None:
        profile = plan.profile.original
        self._size = profile.width, profile.height
        self._georeference: Georeference | None = None
        try:
            geometry = outline(plan)
            if geometry is not None:
                self._georeference = Georeference(profile)
        except (CRSError, ProjError) as error:
            raise DataError(f"{plan.source.uri}: its CRS cannot be used ({one_line(error)})") from error
        if geometry is None:
            self._made_up = MadeUpPlace(*self._size)
            lon, lat = self._made_up.lonlats(np.array([0.0, profile.width]), np.array([0.0, profile.height]))
            geometry = shapely.box(lon[0], lat[1], lon[1], lat[0])
        west, south, east, north = shapely.bounds(shapely.get_parts(geometry)).T
        left, top = world_of(west, north)
        right, bottom = world_of(east, south)
        # Sides of the parts of the outline on the web map, from 0 to 1, shape (n, 4).
        self._parts = np.stack([left, top, right, bottom], axis=1)
        if len(self._parts) > _MOST_BOXES:
            low, high = self._parts.min(axis=0), self._parts.max(axis=0)
            self._parts = np.array([[low[0], low[1], high[2], high[3]]])

    def boxes(self, tile: MapTile) -> list[PixelBox]:
        """Return the parts of a map tile that may show the raster. The list is empty if the raster is elsewhere."""
        edges = (self._parts * 2.0**tile.z - [tile.x, tile.y, tile.x, tile.y]) * SIDE
        low = np.clip(np.floor(edges[:, :2]) - _MARGIN_PX, 0, SIDE).astype(int)
        high = np.clip(np.ceil(edges[:, 2:]) + _MARGIN_PX, 0, SIDE).astype(int)
        seen = (low < high).all(axis=1)
        return [(int(a), int(b), int(c), int(d)) for (a, b), (c, d) in zip(low[seen], high[seen], strict=True)]

    def scale(self, tile: MapTile, box: PixelBox) -> float | None:
        """Return the width of a map tile's pixel, in px of the raster. None if no place is on the raster's map.

        The width is the median at a few points of a box: at those inside the raster, if any point is.
        """
        left, top, right, bottom = box
        cols, rows = np.meshgrid(
            left + (right - left - 1) * np.linspace(0, 1, _PROBES),
            top + (bottom - top - 1) * np.linspace(0, 1, _PROBES),
        )
        x, y = self._convert(tile, np.stack([cols, cols + 1, cols]), np.stack([rows, rows, rows + 1]))
        with np.errstate(invalid="ignore"):
            area = np.abs((x[1] - x[0]) * (y[2] - y[0]) - (x[2] - x[0]) * (y[1] - y[0]))
            inside = (x[0] >= 0) & (x[0] <= self._size[0]) & (y[0] >= 0) & (y[0] <= self._size[1])
        known = np.isfinite(area) & (area > 0)
        chosen = known & inside if (known & inside).any() else known
        return math.sqrt(float(np.median(area[chosen]))) if chosen.any() else None

    def positions(self, tile: MapTile, box: PixelBox, scale: float) -> tuple[Floats, Floats]:
        """Return the positions in the raster of all pixels of a box.

        Args:
            tile: the map tile.
            box: part of the map tile.
            scale: from `scale`.

        Returns:
            Columns and rows, px, both of the shape of the box. NaN or infinite if a place is not on the raster's map.
        """
        return places_on_net(lambda x, y: self._convert(tile, x, y), box, _TOLERANCE_PX * scale)

    def native_zoom(self) -> int:
        """Return the smallest zoom at which a pixel of a map tile is at most as wide as one of the raster.

        It is measured at the place nearest to the middle of the raster that is on Earth.
        """
        width, height = self._size
        steps = np.linspace(0, 1, _PROBES)
        cols, rows = (axis.ravel() for axis in np.meshgrid(width * steps, height * steps))
        order = np.argsort(np.hypot(cols / width - 0.5, rows / height - 0.5), kind="stable")
        if self._georeference is None:
            lon, lat = self._made_up.lonlats(cols[order[:1]], rows[order[:1]])
        else:
            exist = order[self._georeference.exist(cols, rows)[order]]
            if not exist.size:
                return 0
            lon, lat = self._georeference.lonlat(cols[exist[:1]], rows[exist[:1]])
        world = MapTile(0, 0, 0)
        col, row = world.pixels(lon, lat)
        step = 2.0**-30
        x, y = self._convert(
            world, np.stack([col - step, col + step, col, col]), np.stack([row, row, row - step, row + step])
        )
        (left, right, above, below), (left_y, right_y, above_y, below_y) = x[:, 0].tolist(), y[:, 0].tolist()
        area = abs((right - left) * (below_y - above_y) - (below - above) * (right_y - left_y)) / (4 * step**2)
        if not math.isfinite(area) or area <= 0:
            return 0
        return min(max(math.ceil(math.log2(area) / 2 - 0.01), 0), MAX_ZOOM)

    def _convert(self, tile: MapTile, cols: NDArray[np.number], rows: NDArray[np.number]) -> tuple[Floats, Floats]:
        places = tile.lonlat(cols, rows)
        return self._made_up.pixels(*places) if self._georeference is None else self._georeference.pixels(*places)
