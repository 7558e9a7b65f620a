"""The place of a whole raster on Earth."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import shapely

from rasterembed.dataset.plan import Plan
from rasterembed.raster.footprints import Footprinter
from rasterembed.raster.grid import Tiles
from rasterembed.raster.profile import RasterProfile


def outline(plan: Plan) -> shapely.Geometry | None:
    """Return the footprint of the whole raster, or None if the raster has no place on Earth.

    It is the outline of the raster in its files, also if the raster is warped.
    """
    profile = plan.profile.original
    return _outline(profile) if profile.on_earth else None


@lru_cache(maxsize=16)  # The STAC Item of a dataset and the row of a catalogue both need it.
def _outline(profile: RasterProfile) -> shapely.Geometry:
    zero = np.zeros(1, dtype=np.int32)
    width = np.array([profile.width], dtype=np.int32)
    height = np.array([profile.height], dtype=np.int32)
    whole = Tiles(row=zero, col=zero, col_off=zero, row_off=zero, width=width, height=height)
    return Footprinter(profile)(whole).geometry[0]


def bounding_box(geometry: shapely.Geometry) -> tuple[float, float, float, float]:
    """Return west, south, east, north in degrees.

    If the geometry crosses the antimeridian, west is greater than east (RFC 7946, section 5.2).
    """
    west, south, east, north = geometry.bounds
    parts = [part.bounds for part in shapely.get_parts(geometry)]
    if (west, east) == (-180.0, 180.0) and all(part[2] - part[0] < 360.0 for part in parts):
        west = min(part[0] for part in parts if part[0] > -180.0)
        east = max(part[2] for part in parts if part[2] < 180.0)
    return west, south, east, north
