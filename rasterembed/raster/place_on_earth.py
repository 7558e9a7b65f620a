"""Say whether a raster's header gives its pixels a place on Earth, and what a person can do if it does not."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyproj
from pyproj.exceptions import CRSError

from rasterembed.errors import one_line

if TYPE_CHECKING:
    from rasterembed.raster.profile import RasterProfile

_EARTH_RADIUS_M = (6.3e6, 6.45e6)
"""Range of radii, in metres, that holds every ellipsoid and sphere in use for Earth. Of the other bodies Venus is
nearest, with 6.05e6 m."""

_IDENTITY = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
"""The transform that GDAL reports for a raster without georeferencing."""

_SET_PLACE = "gdal_translate -a_srs EPSG:... -a_ullr WEST NORTH EAST SOUTH FILE NEW.tif"
_ORTHORECTIFY = "gdalwarp -rpc -t_srs EPSG:... FILE NEW.tif"


def why_not_on_earth(profile: RasterProfile, *, has_rpcs: bool) -> str | None:
    """Return what keeps the pixels from having places on Earth and what to do, or None if they have places.

    Args:
        profile: the raster's header.
        has_rpcs: whether the file holds rational polynomial coefficients (RPCs).
    """
    # A CRS alone is no place: GDAL would put the pixels at x = column and y = row.
    georeferenced = bool(profile.gcps) or profile.transform != _IDENTITY
    if profile.crs_wkt is None:
        return f"it has no CRS: {_how_to_assign_crs(profile.driver, georeferenced=georeferenced, has_rpcs=has_rpcs)}"
    problem = _why_crs_is_not_of_earth(profile.crs_wkt)
    if problem is not None:
        advice = _how_to_assign_crs(profile.driver, georeferenced=georeferenced, has_rpcs=has_rpcs)
        return f"{problem}: {advice}"
    if georeferenced:
        return None
    if has_rpcs:
        return (
            "it has a CRS but no georeferencing except RPCs, which need the height of the ground: orthorectify it "
            f"({_ORTHORECTIFY}, with -to RPC_DEM=DEM.tif in hilly country)"
        )
    return (
        "it has a CRS but no georeferencing: its transform is the identity, which is what a raster without any "
        "transform has, and which cannot be told from a true pixel of 1 unit at the origin. "
        f"{_how_to_georeference(profile.driver)}"
    )


def _why_crs_is_not_of_earth(crs_wkt: str) -> str | None:
    try:
        crs = pyproj.CRS.from_wkt(crs_wkt)
    except CRSError as error:
        return f"its CRS is not understood ({one_line(error)})"
    if crs.ellipsoid is None:
        return f"its CRS {crs.name!r} is not tied to Earth"
    low, high = _EARTH_RADIUS_M
    radius = crs.ellipsoid.semi_major_metre
    if not low < radius < high:
        return f"its CRS {crs.name!r} is of another body (radius {radius:.0f} m)"
    return None


def _how_to_georeference(driver: str) -> str:
    """Return advice for a raster with a CRS but without georeferencing. It begins a sentence."""
    if driver == "GTiff":
        return (
            "Set its transform (rio edit-info --transform '[A, B, C, D, E, F]' FILE), or its corners or ground control "
            f"points in a copy ({_SET_PLACE}; -gcp)"
        )
    return f"A world file beside it is not read here. Write its place into a GeoTIFF ({_SET_PLACE})"


def _how_to_assign_crs(driver: str, *, georeferenced: bool, has_rpcs: bool) -> str:
    """Return advice for a raster without a CRS of Earth."""
    if georeferenced:
        if driver == "GTiff":
            return "assign its CRS (rio edit-info --crs EPSG:... FILE)"
        return "assign its CRS in a GeoTIFF (gdal_translate -a_srs EPSG:... FILE NEW.tif)"
    if has_rpcs:
        return f"assign its CRS and place by orthorectifying it with its RPCs ({_ORTHORECTIFY})"
    # With a CRS alone the raster would still have no place.
    return f"assign its CRS and its place, for it has no georeferencing either ({_SET_PLACE})"
