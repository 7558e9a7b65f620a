"""Say whether a raster's header gives its pixels a place on Earth, and what a person can do if it does not."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from pyproj.exceptions import CRSError, ProjError

from rasterembed.errors import one_line
from rasterembed.raster.crs_files import named_path
from rasterembed.raster.georeference import Georeference, crs_of, transformer_to_lonlat

if TYPE_CHECKING:
    from rasterembed.raster.profile import RasterProfile

_EARTH_RADIUS_M = (6.3e6, 6.45e6)
"""Smallest and largest radius, in metres, of a CRS of the Earth. All ellipsoids and spheres in use for the Earth lie
between them. Of the other bodies, Venus has the nearest radius, 6.05e6 m."""

_IDENTITY = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
"""The transform that GDAL reports for a raster without georeferencing."""

_SET_PLACE = "gdal_translate -a_srs EPSG:... -a_ullr WEST NORTH EAST SOUTH FILE NEW.tif"
_SET_POINTS = "gdal_translate -a_srs EPSG:... -gcp COLUMN LINE X Y ... FILE NEW.tif"
_ORTHORECTIFY = "gdalwarp -rpc -t_srs EPSG:... FILE NEW.tif"


def why_not_on_earth(profile: RasterProfile, *, has_rpcs: bool) -> str | None:
    """Return the reason why the pixels have no places on Earth, and what to do. Return None if they have places.

    Args:
        profile: the raster's header.
        has_rpcs: whether the file holds rational polynomial coefficients (RPCs).
    """
    # A CRS alone does not place the pixels. GDAL would place them at x = column and y = row.
    georeferenced = bool(profile.gcps) or profile.transform != _IDENTITY
    if profile.crs_wkt is None:
        return f"it has no CRS: {_how_to_assign_crs(profile.driver, georeferenced=georeferenced, has_rpcs=has_rpcs)}"
    problem = why_crs_is_not_of_earth(profile.crs_wkt)
    if problem is not None:
        advice = _how_to_assign_crs(profile.driver, georeferenced=georeferenced, has_rpcs=has_rpcs)
        return f"{problem}: {advice}"
    if georeferenced:
        problem = why_points_place_nothing(profile)
        if problem is not None:
            return f"{problem}: write at least three that do not lie on one line ({_SET_POINTS})"
        return _why_off_earth(profile)
    if has_rpcs:
        return (
            "it has a CRS but no georeferencing except RPCs, which need the height of the ground: orthorectify it "
            f"({_ORTHORECTIFY}, with -to RPC_DEM=DEM.tif in hilly country)"
        )
    return (
        "it has a CRS but no georeferencing: its transform is the identity, as in a raster without a transform, and a "
        "true transform with pixels of 1 unit from the origin looks the same. "
        f"{_how_to_georeference(profile.driver)}"
    )


def why_crs_is_not_of_earth(crs_wkt: str) -> str | None:
    """Return the reason why a CRS gives no places on Earth, or None if it does. The reason begins with "its CRS".

    Args:
        crs_wkt: the CRS as WKT.
    """
    path = named_path(crs_wkt)
    if path is not None:
        return f"its CRS names a file ({path[:100]!r}), and no file but the raster is opened"
    try:
        crs = crs_of(crs_wkt)
    except CRSError as error:
        return f"its CRS is not understood ({one_line(error)})"
    if crs.ellipsoid is None:
        return f"its CRS {crs.name!r} is not tied to Earth"
    low, high = _EARTH_RADIUS_M
    radius = crs.ellipsoid.semi_major_metre
    if not low < radius < high:
        return f"its CRS {crs.name!r} is of another body (radius {radius:.0f} m)"
    try:
        transformer_to_lonlat(crs_wkt)
    except ProjError as error:
        return f"its CRS {crs.name!r} cannot be converted to longitude and latitude ({one_line(error)})"
    return None


def why_points_place_nothing(profile: RasterProfile) -> str | None:
    """Return the reason why the ground control points give no transform.

    Return None if they give one, or if the raster has no ground control points.
    """
    if not profile.gcps:
        return None
    from rasterio._err import CPLE_BaseError  # rasterio takes long to import.
    from rasterio.control import GroundControlPoint as RasterioGCP
    from rasterio.errors import RasterioError
    from rasterio.transform import GCPTransformer

    points = [RasterioGCP(p.row, p.col, p.x, p.y, p.z) for p in profile.gcps]
    try:
        with GCPTransformer(points) as transformer:
            places = transformer.xy([0, 0, profile.height], [0, profile.width, 0], offset="ul")
    except (RasterioError, CPLE_BaseError) as error:
        return f"its {len(points)} ground control points give no transform ({one_line(error)})"
    if not all(math.isfinite(value) for axis in places for value in axis):
        return f"its {len(points)} ground control points give no transform (a coordinate is not a number)"
    return None


def _why_off_earth(profile: RasterProfile) -> str | None:
    a, b, _, d, e, _ = profile.transform
    if a * e == b * d:
        return f"its transform puts all pixels on one line: set the transform ({_SET_PLACE})"
    if Georeference(profile).has_ground:
        return None
    return (
        "none of its pixels is on Earth: its transform puts them beyond the edge of its CRS's map (longitude and "
        f"latitude may be swapped). Set its transform or its CRS ({_SET_PLACE})"
    )


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
