"""Compare footprints with what rasterio and pyproj compute, in pixels of the raster."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyproj
import pytest
import rasterio
import rasterio.transform
import rasterio.warp
import shapely
from affine import Affine
from hypothesis import example, given, settings
from hypothesis import strategies as st
from rasterio.crs import CRS

from rasterembed.errors import DataError
from rasterembed.raster.footprints import Footprinter, Footprints
from rasterembed.raster.grid import Grid, Tiles, tiles_in
from rasterembed.raster.profile import RasterProfile, inspect_raster
from rasterembed.store.object_store import ObjectStore

GEOD = pyproj.Geod(ellps="WGS84")
ROTATED_POLE = "+proj=ob_tran +o_proj=longlat +o_lon_p=0 +o_lat_p=39.25 +lon_0=18 +R=6371229 +type=crs"
TOWGS84 = "+proj=longlat +ellps=clrk66 +towgs84=-8,160,176 +type=crs"
SINUSOIDAL = "+proj=sinu +R=6371007.181 +units=m +type=crs"
GEOSTATIONARY = "+proj=geos +h=35785831 +lon_0=0 +ellps=WGS84 +units=m +type=crs"


def centred(crs: str, lon: float, lat: float, pixel: float, side: int, turn: float = 0.0) -> Affine:
    """Return the transform of a square raster of `side` px around a place, turned by `turn` degrees."""
    x, y = pyproj.Transformer.from_crs("OGC:CRS84", crs, always_xy=True).transform(lon, lat)
    half = Affine.translation(-side / 2, -side / 2)
    return Affine.translation(x, y) @ Affine.rotation(turn) @ Affine.scale(pixel, -pixel) @ half


def profile_of(crs: Any, transform: Affine, width: int, height: int) -> RasterProfile:
    wkt = CRS.from_user_input(crs).to_wkt(version="WKT2_2019")
    return RasterProfile(
        driver="GTiff",
        width=width,
        height=height,
        count=1,
        dtype="uint8",
        colorinterp=("gray",),
        descriptions=(None,),
        crs_wkt=wkt,
        transform=tuple(transform)[:6],
        nodata=(None,),
        block_height=512,
        block_width=512,
        interleave="band",
    )


def all_tiles(profile: RasterProfile, grid: Grid) -> Tiles:
    rows, cols = grid.count(profile.height), grid.count(profile.width)
    return tiles_in(grid, profile.height, profile.width, (0, rows), (0, cols))


def windows(tiles: Tiles) -> list[tuple[int, int, int, int]]:
    """Return left, top, right and bottom of each tile, px."""
    return [
        (int(c), int(r), int(c + w), int(r + h))
        for c, r, w, h in zip(tiles.col_off, tiles.row_off, tiles.width, tiles.height, strict=True)
    ]


def walk(window: tuple[int, int, int, int], points: int = 400) -> tuple[Any, Any]:
    """Return columns and rows around a window, counter-clockwise on a north-up map, `points` on each side."""
    left, top, right, bottom = window
    corners = [(left, top), (left, bottom), (right, bottom), (right, top), (left, top)]
    edges = [np.linspace(a, b, points, endpoint=False) for a, b in pairwise(corners)]
    around = np.concatenate([*edges, [corners[-1]]])
    return around[:, 0], around[:, 1]


def drawn_lines(geometry: Any) -> list[Any]:
    """Return a footprint's edges in longitude and latitude, 9 points each.

    Edges that only close the footprint along the antimeridian or a pole are left out.
    """
    lines = []
    for ring in (part.exterior for part in shapely.get_parts(geometry)):
        xy = np.asarray(ring.coords)
        for a, b in pairwise(xy):
            on_the_seam = abs(a[0]) == 180.0 and a[0] == b[0]
            along_the_pole = abs(a[1]) == 90.0 and a[1] == b[1]
            if not (on_the_seam or along_the_pole):
                lines.append(np.linspace(a, b, 9))
    return lines


@lru_cache
def transformer_from(wkt: str) -> pyproj.Transformer:
    return pyproj.Transformer.from_crs(wkt, "OGC:CRS84", always_xy=True)


def transformer(profile: RasterProfile) -> pyproj.Transformer:
    assert profile.crs_wkt
    return transformer_from(profile.crs_wkt)


def whole_turn(profile: RasterProfile) -> float:
    """Return once around the globe in native x if x can go on beyond it, else 0."""
    crs = pyproj.CRS(profile.crs_wkt)
    if crs.name == "WGS 84 / Pseudo-Mercator":
        return 2 * np.pi * 6378137
    if crs.is_geographic and not crs.is_derived:
        return 2 * np.pi / crs.axis_info[0].unit_conversion_factor
    return 0.0


def pixels_off(profile: RasterProfile, window: tuple[int, int, int, int], geometry: Any) -> float:
    """Return the largest distance of a footprint's edges from the window's sides, px."""
    lonlat = np.concatenate(drawn_lines(geometry))
    x, y = np.array(transformer(profile).transform(lonlat[:, 0], lonlat[:, 1], direction="INVERSE"))
    edge = shapely.box(*window).exterior
    # a place may be a turn of the globe away from the raster's own x, or at both ends of it
    turns = whole_turn(profile) * np.arange(-2, 3)[:, None]
    cols, rows = ~profile.affine @ (x + turns, y)
    return float(shapely.distance(edge, shapely.points(cols, rows)).min(axis=0).max())


def true_border(profile: RasterProfile, window: tuple[int, int, int, int], points: int = 400) -> tuple[Any, Any]:
    """Return longitude and latitude around a window, computed with the affine and pyproj alone."""
    lon, lat = transformer(profile).transform(*(profile.affine @ walk(window, points)))
    return np.asarray(lon), np.asarray(lat)


def true_area(profile: RasterProfile, window: tuple[int, int, int, int]) -> float:
    """Return the square metres inside the true border. Geodesics need no care at the antimeridian or a pole."""
    lon, lat = true_border(profile, window, 2000)
    return abs(float(GEOD.polygon_area_perimeter(lon, lat)[0]))


def drawn_area(geometry: Any) -> float:
    """Return the square metres of a footprint, with edges that are straight in longitude and latitude."""
    area = 0.0
    for part in shapely.get_parts(geometry):
        lon, lat = np.asarray(shapely.segmentize(part, 0.02).exterior.coords).T
        area += float(GEOD.polygon_area_perimeter(lon, lat)[0])  # positive: counter-clockwise
    return area


def check(profile: RasterProfile, grid: Grid) -> tuple[Tiles, Footprints]:
    """Check what must be true of every footprint."""
    tiles = all_tiles(profile, grid)
    footprints = Footprinter(profile)(tiles)
    for window, geometry, bounds in zip(windows(tiles), footprints.geometry, footprints.bounds, strict=True):
        assert geometry.geom_type in ("Polygon", "MultiPolygon")
        assert geometry.is_valid, shapely.is_valid_reason(geometry)
        assert tuple(bounds) == geometry.bounds
        assert bounds[0] >= -180.0
        assert bounds[2] <= 180.0
        for part in shapely.get_parts(geometry):
            assert part.exterior.is_ccw
            assert len(part.interiors) == 0
        assert pixels_off(profile, window, geometry) <= 0.1
        left, top, right, bottom = window
        a_tenth_of_a_pixel_around = 0.2 * (right - left + bottom - top) / ((right - left) * (bottom - top))
        assert drawn_area(geometry) == pytest.approx(true_area(profile, window), rel=a_tenth_of_a_pixel_around)
    return tiles, footprints


PLACES: dict[str, tuple[str, Affine, int, int]] = {
    "UTM": ("EPSG:32633", centred("EPSG:32633", 17, 60, 30, 500), 500, 500),
    "UTM, turned": ("EPSG:32633", centred("EPSG:32633", 15, 45, 10, 500, 33.0), 500, 430),
    "UTM, sheared": ("EPSG:32733", Affine(10, 3, 5e5, 2, -12, 6e6), 300, 300),
    "UTM, south up": ("EPSG:32733", Affine(10, 0, 5e5, 0, 10, 6e6), 300, 300),
    "UTM, oblong pixels": ("EPSG:32633", Affine(300, 0, 5e5, 0, -30, 7e6), 300, 300),
    "UTM and a height": ("EPSG:32633+5773", centred("EPSG:32633", 15, 45, 10, 300), 300, 300),
    "Web Mercator": ("EPSG:3857", centred("EPSG:3857", 10, 70, 150, 500), 500, 500),
    "degrees": ("EPSG:4326", Affine(0.01, 0, 10, 0, -0.005, 70), 500, 500),
    "degrees, turned": ("EPSG:4326", centred("EPSG:4326", 10, 60, 0.02, 500, 40), 500, 500),
    "NAD27": ("EPSG:4267", Affine(0.01, 0, -100, 0, -0.01, 45), 300, 300),
    "grads from Paris": ("EPSG:4807", Affine(0.01, 0, 0.5, 0, -0.01, 54), 400, 300),
    "degrees from Ferro": ("EPSG:4805", Affine(0.002, 0, 32, 0, -0.002, 48), 300, 300),
    "northing first": ("EPSG:2193", centred("EPSG:2193", 173, -41, 100, 500), 500, 500),
    "zoned easting": ("EPSG:31467", centred("EPSG:31467", 9, 48, 100, 300), 300, 300),
    "westing, southing": ("EPSG:2053", centred("EPSG:2053", 29, -27, 100, 300), 300, 300),
    "feet": ("EPSG:2263", centred("EPSG:2263", -74, 40.7, 30, 300), 300, 300),
    "Lambert": ("EPSG:2154", centred("EPSG:2154", 3, 46, 250, 500), 500, 500),
    "Albers, coarse": ("EPSG:5070", centred("EPSG:5070", -96, 40, 5000, 500), 500, 500),
    "sinusoidal": (SINUSOIDAL, centred(SINUSOIDAL, 60, 50, 463.3, 600), 600, 600),
    "rotated pole": (ROTATED_POLE, Affine(0.1, 0, -20, 0, -0.1, 20), 300, 300),
    "rotated pole over the pole": (ROTATED_POLE, centred(ROTATED_POLE, 0, 90, 0.1, 200), 200, 200),
}


@pytest.mark.parametrize("name", PLACES)
def test_edges_and_areas(name: str) -> None:
    crs, transform, width, height = PLACES[name]
    _, footprints = check(profile_of(crs, transform, width, height), Grid(size=224))
    whole = shapely.orient_polygons(shapely.union_all(footprints.geometry))
    assert drawn_area(whole) == pytest.approx(sum(map(drawn_area, footprints.geometry)), rel=1e-3)


@pytest.mark.parametrize("name", ["UTM, turned", "degrees", "Web Mercator"])
def test_a_footprint_has_its_windows_corners_and_not_the_paddings(name: str) -> None:
    crs, transform, width, height = PLACES[name]
    profile = profile_of(crs, transform, width, height)
    tiles = all_tiles(profile, Grid(size=224))
    footprints = Footprinter(profile)(tiles)
    assert (tiles.width < 224).any()
    for window, geometry in zip(windows(tiles), footprints.geometry, strict=True):
        left, top, right, bottom = window
        rows, cols = [top, bottom, bottom, top], [left, left, right, right]
        xs, ys = rasterio.transform.xy(transform, rows, cols, offset="ul")
        lon, lat = rasterio.warp.transform(crs, "OGC:CRS84", xs, ys)
        vertices = shapely.MultiPoint(geometry.exterior.coords)
        for place in zip(lon, lat, strict=True):
            assert vertices.distance(shapely.Point(place)) < 1e-9


def test_straight_edges_have_no_points_to_spare() -> None:
    near_the_equator = profile_of("EPSG:32633", centred("EPSG:32633", 15, 1, 10, 448), 448, 448)
    for crs_profile in (near_the_equator, profile_of("EPSG:4326", Affine(0.1, 0, 0, 0, -0.1, 60), 448, 448)):
        footprints = Footprinter(crs_profile)(all_tiles(crs_profile, Grid(size=224)))
        assert set(shapely.get_num_coordinates(footprints.geometry)) == {5}


@pytest.mark.parametrize("name", ["Albers, coarse", "rotated pole over the pole"])
def test_a_footprint_does_not_depend_on_the_tiles_made_with_it(name: str) -> None:
    crs, transform, width, height = PLACES[name]
    profile = profile_of(crs, transform, width, height)
    tiles = all_tiles(profile, Grid(size=112))
    together = shapely.to_wkb(Footprinter(profile)(tiles).geometry)
    for i in range(len(tiles)):
        alone = Footprinter(profile)(tiles.take(np.array([i])))
        assert shapely.to_wkb(alone.geometry[0]) == together[i]


POLAR: dict[str, tuple[str, Affine, int]] = {
    "north, inside a tile": ("EPSG:3413", Affine(1000, 0, -112e3, 0, -1000, 112e3), 224),
    "north, off the middle": ("EPSG:3413", Affine(1000, 0, -60e3, 0, -1000, 100.5e3), 224),
    "north, on a corner": ("EPSG:3413", Affine(1000, 0, -224e3, 0, -1000, 224e3), 448),
    "north, on an edge": ("EPSG:3413", Affine(1000, 0, -100e3, 0, -1000, 224e3), 448),
    "north, on the raster's edge": ("EPSG:3995", Affine(1000, 0, -100e3, 0, -1000, 0), 224),
    "north, a hair inside": ("EPSG:3413", Affine(1000, 0, -30, 0, -1000, 100e3), 224),
    "north, half a pixel outside": ("EPSG:3413", Affine(1000, 0, 500, 0, -1000, 100e3), 448),
    "north, three pixels outside": ("EPSG:3413", Affine(1000, 0, 3000, 0, -1000, 100e3), 448),
    "north, turned": ("EPSG:3413", centred("EPSG:3413", 30, 89.8, 1000, 224, 21), 224),
    "north, south up": ("EPSG:3413", Affine(1000, 0, -100e3, 0, 1000, -112e3), 224),
    "south, inside a tile": ("EPSG:3031", Affine(1000, 0, -100e3, 0, -1000, 112e3), 224),
    "south, on a corner": ("EPSG:3031", Affine(1000, 0, -224e3, 0, -1000, 224e3), 448),
    "south, on an edge": ("EPSG:3976", Affine(1000, 0, -224e3, 0, -1000, 100e3), 448),
    "north, UPS": ("EPSG:5041", Affine(100, 0, 1990e3, 0, -100, 2010e3), 224),
    "north, in UTM": ("EPSG:32633", centred("EPSG:32633", 15, 89.95, 100, 224), 224),
    "north, on a corner of a rotated pole's grid": (ROTATED_POLE, centred(ROTATED_POLE, 0, 90, 0.05, 448), 448),
    "north, on a tile of one pixel": ("EPSG:3413", Affine(1000, 0, -224.5e3, 0, -1000, 224e3), 225),
    "north, small tile": ("EPSG:3413", Affine(10, 0, -80, 0, -10, 85), 16),
}


@pytest.mark.parametrize("name", POLAR)
def test_poles(name: str) -> None:
    crs, transform, side = POLAR[name]
    profile = profile_of(crs, transform, side, side)
    tiles, footprints = check(profile, Grid(size=min(side, 224)))
    x, y = pyproj.Transformer.from_crs("OGC:CRS84", crs, always_xy=True).transform(0, 90 if "north" in name else -90)
    pole = shapely.Point(~transform @ (x, y))
    for window, geometry, bounds in zip(windows(tiles), footprints.geometry, footprints.bounds, strict=True):
        box = shapely.box(*window)
        if box.contains(pole) and box.exterior.distance(pole) > 0.1:
            assert (bounds[0], bounds[2]) == (-180.0, 180.0)
            assert geometry.geom_type == "Polygon"
        if box.distance(pole) < 0.01:
            assert max(abs(bounds[1]), abs(bounds[3])) == 90.0
        if box.distance(pole) > 0.1:
            assert max(abs(bounds[1]), abs(bounds[3])) < 90.0


def test_four_tiles_that_meet_at_the_pole_are_a_quarter_of_the_longitudes_each() -> None:
    crs, transform, side = POLAR["north, on a corner"]
    profile = profile_of(crs, transform, side, side)
    footprints = Footprinter(profile)(all_tiles(profile, Grid(size=224)))
    # EPSG:3413 has longitude -45 straight down: the tiles meet along -135, -45, 45 and 135, as drawn anti-clockwise
    spans = {
        (0, 0): [(135.0, 180.0), (-180.0, -135.0)],
        (0, 1): [(45.0, 135.0)],
        (1, 0): [(-135.0, -45.0)],
        (1, 1): [(-45.0, 45.0)],
    }
    for (row, col), expected in spans.items():
        parts = shapely.get_parts(footprints.geometry[row * 2 + col])
        found = sorted((part.bounds[0], part.bounds[2]) for part in parts)
        assert np.allclose(found, sorted(expected), atol=1e-6)


def test_an_equal_area_tile_over_the_pole_has_its_pixels_area() -> None:
    profile = profile_of("EPSG:6931", Affine(1000, 0, -90e3, 0, -1000, 130e3), 224, 224)
    footprint = Footprinter(profile)(all_tiles(profile, Grid(size=224))).geometry[0]
    assert drawn_area(footprint) == pytest.approx(224e3**2, rel=1e-3)


def test_a_tile_of_more_than_half_the_globe() -> None:
    profile = profile_of("EPSG:3413", Affine(200e3, 0, -22.4e6, 0, -200e3, 22.4e6), 224, 224)
    footprints = Footprinter(profile)(all_tiles(profile, Grid(size=224)))
    assert footprints.geometry[0].is_valid
    west, south, east, north = footprints.bounds[0]
    assert (west, east, north) == (-180.0, 180.0, 90.0)
    assert south < -40.0
    assert footprints.geometry[0].contains(shapely.Point(100, -29))


# where the pole is in the raster, as parts of its width and height
parts = st.one_of(st.sampled_from([0.0, 0.5, 1.0, 0.9999]), st.floats(-1, 2))


@settings(max_examples=60, deadline=None)
@given(
    crs=st.sampled_from(["EPSG:3413", "EPSG:3031", "EPSG:6931"]),
    pixel=st.sampled_from([30.0, 1000.0, 5000.0]),
    turn=st.one_of(st.sampled_from([0.0, 45.0, 90.0]), st.floats(0, 360)),
    width=st.sampled_from([1, 3, 200]),
    height=st.sampled_from([1, 5, 200]),
    across=parts,
    down=parts,
)
@example(crs="EPSG:6931", pixel=30.0, turn=0.0, width=1, height=5, across=0.0, down=1.0)
@example(crs="EPSG:6931", pixel=30.0, turn=0.0, width=1, height=200, across=1.0, down=0.0)
def test_any_tile_near_a_pole(
    crs: str, pixel: float, turn: float, width: int, height: int, across: float, down: float
) -> None:
    to_the_pole = Affine.translation(-across * width, -down * height)
    transform = Affine.rotation(turn) @ Affine.scale(pixel, -pixel) @ to_the_pole
    check(profile_of(crs, transform, width, height), Grid(size=208))


@pytest.mark.parametrize("size", [112, 224])
def test_a_cone_has_its_tip_at_the_pole_and_a_gap_beside_it(size: int) -> None:
    profile = profile_of("EPSG:3347", centred("EPSG:3347", 0, 90, 1000, 224), 224, 224)
    footprints = Footprinter(profile)(all_tiles(profile, Grid(size=size)))
    assert shapely.is_valid(footprints.geometry).all()
    assert footprints.bounds[:, 3].tolist() == [90.0] * len(footprints.bounds)
    whole = shapely.union_all(footprints.geometry)
    # The gap is along one meridian, and its sides are drawn to a tenth of a pixel.
    assert shapely.box(-180, 89.7, 180, 90).difference(whole).area < 1e-2


ANTIMERIDIAN: dict[str, tuple[str, Affine, int, int, int]] = {
    "UTM": ("EPSG:32660", centred("EPSG:32660", 179.9, 50, 100, 500), 500, 500, 224),
    "UTM, turned": ("EPSG:32601", centred("EPSG:32601", -180, 70, 100, 500, 30), 500, 500, 224),
    "Web Mercator": ("EPSG:3857", Affine(100, 0, 20037508.342789244 - 22222, 0, -100, 5e6), 448, 448, 224),
    "Web Mercator, from the east": (
        "EPSG:3857",
        Affine(100, 0, -20037508.342789244 - 22222, 0, -100, 5e6),
        448,
        448,
        224,
    ),
    "0 to 360": ("EPSG:4326", Affine(0.25, 0, 0.0, 0, -0.25, 90), 1440, 720, 224),
    "0 to 360 by pixel centres": ("EPSG:4326", Affine(0.25, 0, -0.125, 0, -0.25, 89.875), 1440, 719, 224),
    "-360 to 0": ("EPSG:4326", Affine(0.25, 0, -360.0, 0, -0.25, 90), 1440, 720, 224),
    "grads": ("EPSG:4807", Affine(0.1, 0, 190.0, 0, -0.1, 60), 200, 100, 96),
    "another meridian": ("EPSG:4813", Affine(0.1, 0, 60.0, 0, -0.1, 5), 200, 100, 96),
    "bound to WGS 84": (TOWGS84, Affine(0.1, 0, 170, 0, -0.1, 5), 200, 100, 96),
    "polar": ("EPSG:3413", centred("EPSG:3413", 180, 70, 1000, 500), 500, 500, 224),
}


@pytest.mark.parametrize("name", ANTIMERIDIAN)
def test_antimeridian(name: str) -> None:
    crs, transform, width, height, size = ANTIMERIDIAN[name]
    profile = profile_of(crs, transform, width, height)
    tiles, footprints = check(profile, Grid(size=size))
    crossing = 0
    for window, geometry in zip(windows(tiles), footprints.geometry, strict=True):
        lon, lat = true_border(profile, window)
        lon = lon[np.abs(lat) < 90] % 360.0
        crosses = bool((lon < 179.999).any() and (lon > 180.001).any() and np.ptp(lon) < 180)
        crossing += crosses
        parts = shapely.get_parts(geometry)
        assert (len(parts) == 2) == crosses
        if crosses:
            east, west = sorted(parts, key=lambda part: part.bounds[0])
            assert east.bounds[0] == -180.0
            assert west.bounds[2] == 180.0
            assert east.bounds[2] < 0.0 < west.bounds[0]
    assert crossing > 0


WORLDS: dict[str, tuple[str, Affine, int, int]] = {
    "degrees": ("EPSG:4326", Affine(0.703125, 0, -180, 0, -0.703125, 90), 512, 256),
    "degrees, rounded": ("EPSG:4326", Affine(0.7031250001, 0, -180, 0, -0.7031250001, 90), 512, 256),
    "degrees, 0 to 360": ("EPSG:4326", Affine(0.703125, 0, 0, 0, -0.703125, 90), 512, 256),
    "Web Mercator": (
        "EPSG:3857",
        Affine(40075016.685578488 / 256, 0, -20037508.342789244, 0, -40075016.685578488 / 256, 20037508.342789244),
        256,
        256,
    ),
    "Web Mercator, rounded": ("EPSG:3857", Affine(156543.034, 0, -20037508.35, 0, -156543.034, 20037508.35), 256, 256),
    "Web Mercator, a hair to the east": (
        "EPSG:3857",
        Affine(40074926.6 / 256, 0, -20037408.3, 0, -156543.034, 20037508.35),
        256,
        256,
    ),
    "cylindrical equal area": (
        "EPSG:6933",
        Affine(17367530.45 / 128, 0, -17367530.45, 0, -7314540.83 / 64, 7314540.83),
        256,
        128,
    ),
}


@pytest.mark.parametrize("size", [16, 64, 512])
@pytest.mark.parametrize("name", WORLDS)
def test_whole_worlds_have_no_part_on_the_other_side(name: str, size: int) -> None:
    crs, transform, width, height = WORLDS[name]
    profile = profile_of(crs, transform, width, height)
    tiles = all_tiles(profile, Grid(size=size))
    footprints = Footprinter(profile)(tiles)
    assert {g.geom_type for g in footprints.geometry} == {"Polygon"}
    assert all(g.is_valid and g.exterior.is_ccw for g in footprints.geometry)
    turn = 360.0 / width
    wests = ((tiles.col_off * turn - (180 if "360" not in name else 0)) + 180) % 360 - 180
    if size == 512:
        wests = np.full(len(tiles), -180.0)
    assert np.allclose(footprints.bounds[:, 0], wests, atol=2e-3)
    assert np.allclose(footprints.bounds[:, 2], wests + tiles.width * turn, atol=2e-3)
    if size == 512:
        assert (footprints.bounds[0, 0], footprints.bounds[0, 2]) == (-180.0, 180.0)
        assert shapely.get_num_coordinates(footprints.geometry[0]) < 300


def sample(rasters: Path, name: str) -> RasterProfile:
    return inspect_raster(ObjectStore(root=str(rasters)), str(rasters / name))


def test_a_real_scene_across_the_antimeridian(rasters: Path) -> None:
    profile = sample(rasters, "cog_dateline.tif")
    tiles, footprints = check(profile, Grid(size=224))
    sides = [
        tuple(sorted({np.sign(p.bounds[0] + p.bounds[2]) for p in shapely.get_parts(g)})) for g in footprints.geometry
    ]
    assert set(sides) == {(1.0,), (-1.0,), (-1.0, 1.0)}
    with rasterio.open(rasters / "cog_dateline.tif") as dataset:
        lon, lat = rasterio.warp.transform(
            dataset.crs, "OGC:CRS84", *zip(*(dataset.xy(r, c) for r, c in centres(tiles)), strict=True)
        )
    for geometry, place in zip(footprints.geometry, zip(lon, lat, strict=True), strict=True):
        assert geometry.contains(shapely.Point(place))


def centres(tiles: Tiles) -> list[tuple[float, float]]:
    """Return row and column of each tile's centre, counted so that pixel centres are whole numbers."""
    return [((t + b) / 2 - 0.5, (left + r) / 2 - 0.5) for left, t, r, b in windows(tiles)]


@pytest.mark.parametrize(
    "name",
    [
        "RGB.byte.tif",
        "RGBA.uint16.tif",
        "all-nodata.tif",
        "cogeo.tif",
        "world.rgb.tif",
        "mosaic_cog1.tif",
        "cog_rgb_mask.tif",
        "TCI.tif",
    ],
)
def test_real_scenes(rasters: Path, name: str) -> None:
    check(sample(rasters, name), Grid(size=224))


def test_a_scene_with_ground_control_points(rasters: Path) -> None:
    profile = sample(rasters, "cog_gcps.tif")
    tiles = all_tiles(profile, Grid(size=224))
    footprints = Footprinter(profile)(tiles)
    with rasterio.open(rasters / "cog_gcps.tif") as dataset:
        points, _ = dataset.gcps
    transformer = rasterio.transform.GCPTransformer(points)
    for window, geometry in zip(windows(tiles), footprints.geometry, strict=True):
        assert geometry.is_valid
        assert geometry.exterior.is_ccw
        cols, rows = walk(window, 50)
        lon, lat = transformer.xy(rows, cols, offset="ul")
        true = shapely.Polygon(np.stack([lon, lat], axis=1))
        pixel = np.sqrt(true.area / ((window[2] - window[0]) * (window[3] - window[1])))
        assert shapely.hausdorff_distance(true.exterior, geometry.exterior, densify=0.05) <= 0.1 * pixel
    # the polynomial passes near every point that was measured
    whole = shapely.union_all(footprints.geometry)
    inside = [p for p in points if 20 < p.col < profile.width - 20 and 20 < p.row < profile.height - 20]
    assert len(inside) > 100
    assert all(whole.contains(shapely.Point(p.x, p.y)) for p in inside)


def gcps_across(lon: Sequence[float]) -> RasterProfile:
    place = [
        (0.0, 0.0, lon[0], 10.0),
        (0.0, 400.0, lon[1], 10.0),
        (400.0, 0.0, lon[0], 6.0),
        (400.0, 400.0, lon[1], 6.0),
    ]
    profile = profile_of("EPSG:4326", Affine.identity(), 400, 400)
    points = [{"row": r, "col": c, "x": x, "y": y} for r, c, x, y in place]
    return RasterProfile.model_validate(profile.model_dump() | {"gcps": points})


def test_ground_control_points_on_both_sides_of_the_antimeridian() -> None:
    profile = gcps_across([178.0, -178.0])
    footprints = Footprinter(profile)(all_tiles(profile, Grid(size=208)))
    bounds = [[part.bounds for part in shapely.get_parts(g)] for g in footprints.geometry[:2]]
    assert np.allclose(sorted(bounds[0]), [(-180, 7.92, -179.92, 10), (178, 7.92, 180, 10)], atol=1e-6)
    assert np.allclose(bounds[1], [(-179.92, 7.92, -178, 10)], atol=1e-6)


def test_no_crs_gives_pixels(rasters: Path) -> None:
    store = ObjectStore(root=str(rasters))
    with pytest.raises(DataError, match=r"rotated\.tif.*no CRS.*allow_no_crs"):
        inspect_raster(store, str(rasters / "rotated.tif"))
    profile = inspect_raster(store, str(rasters / "rotated.tif"), allow_no_crs=True)
    footprints = Footprinter(profile)(all_tiles(profile, Grid(size=16)))
    assert footprints.geometry[0].equals(shapely.box(0, 0, 10, 15))
    assert footprints.geometry[0].exterior.is_ccw
    assert footprints.bounds.tolist() == [[0, 0, 10, 15]]


@pytest.mark.parametrize("radius", [3396190, 1737400, 6051800], ids=["Mars", "Moon", "Venus"])
def test_another_body_is_refused_or_in_pixels(tmp_path: Path, radius: int) -> None:
    path = tmp_path / "body.tif"
    crs = f"+proj=longlat +R={radius} +no_defs"
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        width=20,
        height=20,
        count=1,
        dtype="uint8",
        crs=crs,
        transform=Affine(1, 0, 10, 0, -1, 10),
    ) as dataset:
        dataset.write(np.ones((1, 20, 20), np.uint8))
    store = ObjectStore(root=str(tmp_path))
    with pytest.raises(DataError, match=f"another body.*{radius}.*allow_no_crs"):
        inspect_raster(store, str(path))
    profile = inspect_raster(store, str(path), allow_no_crs=True)
    footprints = Footprinter(profile)(all_tiles(profile, Grid(size=16)))
    assert footprints.bounds.tolist() == [[0, 0, 16, 16], [16, 0, 20, 16], [0, 16, 16, 20], [16, 16, 20, 20]]


def test_a_world_map_whose_corners_are_off_earth_is_drawn_with_bounded_work(tmp_path: Path) -> None:
    """Outside its domain an inverse projection sends neighbours far apart: pyproj's own values jump."""
    crs, transform = "ESRI:54042", Affine(40e6 / 200, 0, -20e6, 0, -20e6 / 100, 10e6)
    profile = profile_of(crs, transform, 200, 100)
    lon, lat = true_border(profile, (0, 0, 200, 100))
    x, y = transformer(profile).transform(lon, lat, direction="INVERSE")
    assert np.hypot(*(np.array([x, y]) - transform @ walk((0, 0, 200, 100)))).max() > 1e6
    header = tmp_path / "profile.json"
    header.write_text(profile.model_dump_json())
    draw = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_AS, (3 * 2**30,) * 2)\n"
        "from rasterembed.raster.footprints import Footprinter\n"
        "from rasterembed.raster.grid import Grid, tiles_in\n"
        "from rasterembed.raster.profile import RasterProfile\n"
        "profile = RasterProfile.model_validate_json(open(sys.argv[1]).read())\n"
        "print(Footprinter(profile)(tiles_in(Grid(size=224), 100, 200, (0, 1), (0, 1))).geometry[0].wkt)\n"
    )
    found = subprocess.run(
        [sys.executable, "-c", draw, str(header)],
        env=os.environ | {"OPENBLAS_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=240,
        check=True,
    )
    geometry = shapely.from_wkt(found.stdout)
    assert shapely.get_num_coordinates(geometry) < 1000
    # Plate carrée: the whole world has 360 x 180 square degrees. The raster leaves out a little of both poles.
    assert geometry.area == pytest.approx(360 * 180, rel=0.02)


def test_the_middle_of_a_full_disk_has_the_footprint_that_it_has_alone() -> None:
    profile = profile_of(GEOSTATIONARY, Affine(11000, 0, -5.5e6, 0, -11000, 5.5e6), 1000, 1000)
    tiles = all_tiles(profile, Grid(size=224))
    middle = tiles.take((tiles.row == 2) & (tiles.col == 2))
    left, top, right, bottom = windows(middle)[0]
    footprint = Footprinter(profile)(middle).geometry[0]
    assert drawn_area(footprint) == pytest.approx(true_area(profile, (left, top, right, bottom)), rel=1e-3)
    alone = profile_of(GEOSTATIONARY, profile.affine @ Affine.translation(left, top), right - left, bottom - top)
    expected = Footprinter(alone)(all_tiles(alone, Grid(size=224))).geometry[0]
    assert shapely.get_num_coordinates(footprint) == shapely.get_num_coordinates(expected)
    assert footprint.equals_exact(expected, 1e-9)


def test_a_tile_beyond_the_poles_has_no_footprint() -> None:
    swapped = profile_of("EPSG:4326", Affine(0.1, 0, 40, 0, -0.1, 170), 200, 200)
    footprints = Footprinter(swapped)(all_tiles(swapped, Grid(size=224)))
    assert footprints.geometry.tolist() == [None]
    assert np.isnan(footprints.bounds).all()
