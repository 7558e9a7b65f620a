"""Compare the pixel grids of two rasters: size, CRS, transform and ground control points."""

from __future__ import annotations

import math

import pyproj
from pyproj.exceptions import CRSError

from rasterembed.raster.profile import RasterProfile

_SAME_PLACE = 0.01
"""Two corners count as the same place if their distance is at most this share of a pixel."""


def grid_difference(one: RasterProfile, other: RasterProfile, name: str) -> str | None:
    """Return the first difference between the pixel grids of two rasters, with both values. Return None if equal.

    Args:
        one: header of the raster that the text calls "it".
        other: header of the other raster.
        name: word for the other raster in the text.
    """
    if (one.width, one.height) != (other.width, other.height):
        return f"it has {one.width}x{one.height} px, and {name} has {other.width}x{other.height} px"
    if not same_crs(one.crs_wkt, other.crs_wkt):
        return f"its CRS is {crs_name(one.crs_wkt)}, and that of {name} is {crs_name(other.crs_wkt)}"
    if not _same_place(one, other):
        return f"its transform is {list(one.transform)}, and that of {name} is {list(other.transform)}"
    if one.gcps != other.gcps:
        return f"its ground control points are not those of {name}"
    return None


def same_crs(one: str | None, other: str | None) -> bool:
    """Return whether two CRS as WKT are the same. Two missing CRS are the same."""
    if one is None or other is None:
        return one is other
    if one == other:
        return True
    from rasterio.crs import CRS  # rasterio takes long to import.

    return bool(CRS.from_wkt(one) == CRS.from_wkt(other))


def crs_name(wkt: str | None) -> str:
    """Return the name of a CRS for errors."""
    if wkt is None:
        return "missing"
    try:
        return repr(pyproj.CRS.from_wkt(wkt).name)
    except CRSError:
        return repr(wkt[:60])


def _same_place(one: RasterProfile, other: RasterProfile) -> bool:
    """Return whether the corners of two rasters with the same size and CRS lie at the same places."""
    a, b, _, d, e, _ = other.transform
    limit = _SAME_PLACE * min(math.hypot(a, d), math.hypot(b, e))
    a, b, c, d, e, f = (mine - theirs for mine, theirs in zip(one.transform, other.transform, strict=True))
    corners = ((0, 0), (other.width, 0), (0, other.height))
    return all(math.hypot(a * col + b * row + c, d * col + e * row + f) <= limit for col, row in corners)
