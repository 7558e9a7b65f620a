"""Plan how a raster is warped onto the lattice of a grid: CRS, pixel size, bounds, and number of samples of a pixel."""

from __future__ import annotations

import math

import numpy as np
import pyproj

from rasterembed.errors import DataError, UsageError
from rasterembed.number_text import number_text, significant_text
from rasterembed.raster.anchor import check_distance, find_anchor, place_without_transform
from rasterembed.raster.crs_files import named_path
from rasterembed.raster.georeference import Floats, crs_of, native_degrees, transformer_between
from rasterembed.raster.grid import Anchor, Grid
from rasterembed.raster.place_on_earth import why_crs_is_not_of_earth
from rasterembed.raster.profile import RasterProfile, Warp
from rasterembed.raster.rings import make_continuous
from rasterembed.raster.same_grid import crs_name, same_crs
from rasterembed.raster.warped_places import WarpedPlaces

MAX_SAMPLES = 8
"""Largest number of samples along each side of a pixel. More would read most pixels of a large raster for nothing."""

WARPED_FIELDS = frozenset(
    {"width", "height", "crs_wkt", "transform", "block_height", "block_width", "overviews", "warp"}
)
"""Fields of a header that a warp changes."""

_SAME_SIZE = 1e-9
"""Two pixel sizes are the same if they differ by at most this share."""

_BLOCK_PX = 16
"""Side of a block of the warped raster, px. It has no blocks, and a small number lets shards end at any tile."""

_BORDER_POINTS, _INNER_POINTS = 257, 33
"""Numbers of points from which the bounds are computed: along each side of the raster, and along each side of a net of
points inside it."""

_MAX_SIDE = 2**31 - 1
"""Largest width and height of a raster in GDAL, px."""

_MAX_SPREAD = 1000
"""Largest area of the warped raster's bounds, in multiples of the raster's own area. More means that the raster is torn
apart, or lies where the CRS is of no use."""

_EDGE_PX = 1e-6
"""A bound this near to a pixel edge, in px, is on it."""


def warp_profile(profile: RasterProfile, grid: Grid, uri: str) -> RasterProfile:
    """Return the header of a raster as it is seen on the lattice of a grid.

    Args:
        profile: the raster's header.
        grid: the grid.
        uri: address of the raster, for errors.

    Returns:
        The header of the warped raster. If the grid asks for no warp, or if the raster's pixels are on the lattice
        already, it is the raster's own header.

    Raises:
        UsageError: if the CRS of the grid is not understood, or is not of the Earth.
        DataError: if the raster cannot be warped to the lattice.
    """
    if grid.resolution is None:
        return profile
    found = place_without_transform(profile)
    if found is not None:
        raise DataError(f"{uri}: it has {found}, so it cannot be warped to the grid: {_WARP_BEFORE}")
    assert profile.crs_wkt is not None
    crs_wkt = profile.crs_wkt if grid.crs is None else crs_of_grid(grid.crs)
    if _is_on_lattice(profile, grid, crs_wkt):
        return profile
    left, bottom, right, top = _bounds(profile, crs_wkt, uri) / grid.resolution
    x, y = (coordinate / grid.resolution for coordinate in grid.origin)
    if max(right - left, top - bottom) > _MAX_SIDE:
        raise _too_large(uri, right - left, top - bottom)
    check_distance(max(map(abs, (left - x, right - x, bottom - y, top - y))), f"{uri}: ")
    anchor = Anchor(col=math.floor(left - x + _EDGE_PX), row=math.ceil(top - y - _EDGE_PX))
    width = max(1, math.ceil(right - x - _EDGE_PX) - anchor.col)
    height = max(1, anchor.row - math.floor(bottom - y + _EDGE_PX))
    if max(width, height) > _MAX_SIDE:
        raise _too_large(uri, width, height)
    warped = _with_warp(profile, grid, crs_wkt, anchor, (width, height), samples=1)
    found_scale = _scale(warped)
    scale = _scale_on_raster(profile, grid.resolution, crs_wkt) if found_scale is None else found_scale
    if round(scale) > MAX_SAMPLES:
        raise _too_coarse(uri, grid.resolution, scale, crs_wkt)
    if width * height * scale * scale > _MAX_SPREAD * profile.width * profile.height + width + height:
        raise DataError(
            f"{uri}: in CRS {crs_name(crs_wkt)}, its bounds have {width}x{height} px, most of them without data: the "
            "raster lies across an edge of that CRS's map. Choose another `crs`"
        )
    # Datasets of very narrow rasters are stored with one sample.
    samples = 1 if found_scale is None else max(1, round(scale))
    return _with_warp(profile, grid, crs_wkt, anchor, (width, height), samples=samples)


def _too_large(uri: str, width: float, height: float) -> DataError:
    return DataError(f"{uri}: it would have {width:.0f}x{height:.0f} px on the grid: give a larger `resolution`")


def _too_coarse(uri: str, resolution: float, scale: float, crs_wkt: str) -> DataError:
    side, unit = significant_text(scale, 5), crs_of(crs_wkt).axis_info[0].unit_name
    return DataError(
        f"{uri}: a pixel of {number_text(resolution)} covers {side} x {side} px of the raster, more than "
        f"{MAX_SAMPLES} x {MAX_SAMPLES}: give a smaller `resolution`, in units of the CRS ({unit}), or write a "
        "raster with larger pixels first (gdalwarp -tr X Y -r average FILE NEW.tif)"
    )


_WARP_BEFORE = "warp it before (gdalwarp -t_srs EPSG:... FILE NEW.tif)"


def crs_of_grid(text: str) -> str:
    """Return a CRS that a person gave as WKT2.

    Args:
        text: an authority's code, such as EPSG:32635, or WKT.

    Raises:
        UsageError: if it is not understood, names a file, or is not of the Earth.
    """
    from rasterio.crs import CRS  # rasterio takes long to import.

    path = named_path(text)
    if path is not None:
        raise UsageError(f"`crs` names a file ({path[:100]!r}), and no such file is opened: give a code as EPSG:32635")
    try:
        wkt = CRS.from_wkt(pyproj.CRS.from_user_input(text).to_wkt()).to_wkt(version="WKT2_2019")
    except (pyproj.exceptions.CRSError, ValueError) as error:
        raise UsageError(f"`crs` {text[:100]!r} is not understood: give a code as EPSG:32635, or WKT") from error
    problem = why_crs_is_not_of_earth(wkt)
    if problem is not None:
        raise UsageError(f"`crs` {text[:100]!r} cannot be used: {problem}")
    return str(wkt)


def _with_warp(
    profile: RasterProfile, grid: Grid, crs_wkt: str, anchor: Anchor, size: tuple[int, int], *, samples: int
) -> RasterProfile:
    assert grid.resolution is not None
    x, y = grid.origin
    pixel = grid.resolution
    return profile.model_copy(
        update={
            "width": size[0],
            "height": size[1],
            "crs_wkt": crs_wkt,
            "transform": (pixel, 0.0, x + anchor.col * pixel, 0.0, -pixel, y + anchor.row * pixel),
            "block_height": _BLOCK_PX,
            "block_width": _BLOCK_PX,
            "overviews": (),
            "warp": Warp(unwarped=profile, anchor=anchor, samples=samples),
        }
    )


def _is_on_lattice(profile: RasterProfile, grid: Grid, crs_wkt: str) -> bool:
    """Return whether the raster's own pixels are those of the lattice."""
    assert grid.resolution is not None
    if not same_crs(profile.crs_wkt, crs_wkt):
        return False
    sizes = profile.transform[0], -profile.transform[4]
    if any(abs(size - grid.resolution) > _SAME_SIZE * grid.resolution for size in sizes):
        return False
    try:
        find_anchor(profile, grid)
    except DataError:
        return False
    return True


def _bounds(profile: RasterProfile, crs_wkt: str, uri: str) -> Floats:
    """Return left, bottom, right, top of the raster in another CRS, in units of that CRS."""
    along, inner = np.linspace(0, 1, _BORDER_POINTS), np.linspace(0, 1, _INNER_POINTS)
    zeros, ones = np.zeros(len(along)), np.ones(len(along))
    # The sides follow each other as a ring, one side in each row.
    border = _native(profile, np.stack([along, ones, along[::-1], zeros]), np.stack([zeros, along, ones, along[::-1]]))
    inside = _native(profile, *np.meshgrid(inner, inner))
    if not same_crs(profile.crs_wkt, crs_wkt):
        to_new = transformer_between(profile.crs_wkt or "", crs_wkt)
        border, inside = to_new.transform(*border), to_new.transform(*inside)
        degrees = native_degrees(crs_of(crs_wkt))
        if degrees is not None:
            _check_longitudes(border[0] * degrees, crs_wkt, uri)
    points = [np.concatenate([one.ravel(), other.ravel()]) for one, other in zip(border, inside, strict=True)]
    on_map = np.isfinite(points[0]) & np.isfinite(points[1])
    if not on_map.any():
        raise DataError(f"{uri}: no pixel of it is on the map of CRS {crs_name(crs_wkt)}: choose another `crs`")
    low, high = ([float(reduced(axis[on_map])) for axis in points] for reduced in (np.min, np.max))
    # A curved side reaches beyond its points by an eighth of the second difference.
    with np.errstate(invalid="ignore"):
        bends = [np.abs(np.diff(axis, 2, axis=1)) / 8 for axis in border]
    x, y = (float(np.max(bend, where=np.isfinite(bend), initial=0.0)) for bend in bends)
    return np.array([low[0] - x, low[1] - y, high[0] + x, high[1] + y])


def _native(profile: RasterProfile, u: Floats, v: Floats) -> tuple[Floats, Floats]:
    """Return native x and y of places that are given as shares of the raster's width and height."""
    a, b, c, d, e, f = profile.transform
    cols, rows = u * profile.width, v * profile.height
    return a * cols + b * rows + c, d * cols + e * rows + f


def _check_longitudes(ring: Floats, crs_wkt: str, uri: str) -> None:
    """Refuse a raster whose border crosses the antimeridian, or goes around a pole.

    Args:
        ring: longitudes along the border, in degrees.
        crs_wkt: the CRS with longitudes, for errors.
        uri: address of the raster, for errors.
    """
    flat = ring.ravel()
    longitudes = make_continuous(flat[np.isfinite(flat)])
    if longitudes.size and (longitudes.min() < -180.001 or longitudes.max() > 180.001):
        raise DataError(
            f"{uri}: it crosses the antimeridian or has a pole, so CRS {crs_name(crs_wkt)} tears it apart: choose "
            "a projected `crs` for it"
        )


def _scale(warped: RasterProfile) -> float | None:
    """Return how many px of the original a side of a warped pixel covers, as the median of places on the raster.

    It is None if none of these places is on the raster: the raster is very narrow, or smaller than a warped pixel.
    """
    assert warped.warp is not None
    places = WarpedPlaces(warped, warped.warp)
    width, height = places.original_size
    share = np.linspace(0.0, 1.0, _INNER_POINTS)
    cols, rows = (
        grid.astype(np.int64) for grid in np.meshgrid(share * (warped.width - 1), share * (warped.height - 1))
    )
    corner, right, below = (places.at(cols + dx, rows + dy) for dx, dy in ((0, 0), (1, 0), (0, 1)))
    sides = []
    with np.errstate(invalid="ignore"):
        on_raster = (corner[0] >= -1) & (corner[0] <= width) & (corner[1] >= -1) & (corner[1] <= height)
        for end in (right, below):
            lengths = np.hypot(end[0] - corner[0], end[1] - corner[1])[on_raster]
            lengths = lengths[np.isfinite(lengths)]
            if lengths.size:
                sides.append(float(np.median(lengths)))
    return max(sides, default=None)


def _scale_on_raster(profile: RasterProfile, resolution: float, crs_wkt: str) -> float:
    """Return what `_scale` does, but from steps of one px of the original. So every place is on the raster."""
    u, v = np.meshgrid(np.linspace(0, 1, _INNER_POINTS), np.linspace(0, 1, _INNER_POINTS))
    corner, right, below = (
        _native(profile, u + du, v + dv) for du, dv in ((0, 0), (1 / profile.width, 0), (0, 1 / profile.height))
    )
    if not same_crs(profile.crs_wkt, crs_wkt):
        to_new = transformer_between(profile.crs_wkt or "", crs_wkt)
        corner, right, below = (to_new.transform(*points) for points in (corner, right, below))
    with np.errstate(invalid="ignore", divide="ignore"):
        (a, c), (b, d) = (
            [(end - start) / resolution for end, start in zip(points, corner, strict=True)] for points in (right, below)
        )
        # One px eastwards and one px northwards on the grid are the columns of the inverse of this matrix.
        sides = [np.hypot(*column) / np.abs(a * d - b * c) for column in ((d, c), (b, a))]
    return max(float(np.median(side[np.isfinite(side)])) for side in sides)
