"""The tile at each pixel of a map tile is the one that shapely finds at the centre of the pixel."""

from __future__ import annotations

import math

import numpy as np
import pyarrow as pa
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from rasterembed.explorer.map_tile import SIDE, MapTile, lonlat_of
from rasterembed.explorer.tiles.painting import top_shapes
from rasterembed.explorer.tiles.shapes import Shapes, rings_of_footprints

CENTRES = np.arange(SIDE) + 0.5


def shapes_of(footprints: list[shapely.Geometry | None], rank: NDArray[np.integer] | None = None) -> Shapes:
    column = pa.array([None if one is None else shapely.to_wkb(one) for one in footprints], pa.binary())
    return Shapes(rings_of_footprints(column, 0), np.arange(len(footprints)) if rank is None else rank)


def tiles_on_top(shapes: Shapes, at: MapTile, passing: NDArray[np.bool_] | None = None) -> NDArray[np.integer]:
    top = top_shapes(shapes, at, passing)
    return np.where(top >= 0, shapes.tile[top], -1) if shapes.count else top


def world(footprint: shapely.Geometry, at: MapTile) -> shapely.Geometry:
    """Return a footprint in pixels of a map tile. Only its corners are projected, as maps do."""

    def pixels(points: NDArray[np.float64]) -> NDArray[np.float64]:
        x = (points[:, 0] + 180) / 360
        y = 0.5 - np.log(np.tan(np.pi / 4 + np.radians(points[:, 1]) / 2)) / (2 * np.pi)
        return np.stack([(x * 2**at.z - at.x) * SIDE, (y * 2**at.z - at.y) * SIDE], axis=1)

    return shapely.transform(footprint, pixels)


def check(footprints: list[shapely.Geometry], at: MapTile, found: NDArray[np.integer]) -> None:
    """Compare each pixel with the last footprint that contains its centre. Pixels on an edge may have either side."""
    col, row = (axis.ravel() for axis in np.meshgrid(CENTRES, CENTRES))
    expected, unsure = np.full(SIDE * SIDE, -1), np.zeros(SIDE * SIDE, bool)
    for number, footprint in enumerate(footprints):
        shape = world(footprint, at)
        shapely.prepare(shape)
        expected[shapely.contains_xy(shape, col, row)] = number
        edge = shape.boundary.buffer(1e-3)
        shapely.prepare(edge)
        unsure |= shapely.intersects_xy(edge, col, row)
    np.testing.assert_array_equal(found.ravel()[~unsure], expected[~unsure])


def map_tile_at(lon: float, lat: float, z: int) -> MapTile:
    y = 0.5 - math.asinh(math.tan(math.radians(lat))) / (2 * math.pi)
    return MapTile(z, int((lon + 180) / 360 * 2**z), int(y * 2**z))


def star(place: tuple[float, float], reach: list[float]) -> shapely.Geometry:
    """Return a star with as many corners as there are distances from the middle."""
    angles, distances = 2 * np.pi * np.arange(len(reach)) / len(reach), np.array(reach)
    corners = np.stack([distances * np.cos(angles), distances * np.sin(angles) / 2], axis=1)
    return shapely.Polygon(np.array(place) + corners)


def is_large(footprint: shapely.Geometry, at: MapTile) -> bool:
    """Return whether a footprint and all of similar size are painted exactly."""
    west, south, east, north = world(footprint, at).bounds
    return bool(max(east - west, north - south) > 13)


places = st.tuples(st.floats(23.9, 24.3), st.floats(59.9, 60.1))
hulls = st.lists(places, min_size=3, max_size=9).map(lambda points: shapely.MultiPoint(points).convex_hull)
polygons = hulls.filter(lambda hull: hull.geom_type == "Polygon")
stars = st.builds(star, places, st.lists(st.floats(0.01, 0.1), min_size=5, max_size=40))


@settings(max_examples=15)
@given(st.lists(polygons | stars, min_size=1, max_size=6))
def test_large_tiles_are_painted_where_shapely_finds_them(footprints: list[shapely.Geometry]) -> None:
    at = map_tile_at(24.1, 60.0, 11)
    large = [footprint for footprint in footprints if is_large(footprint, at)]
    check(large, at, tiles_on_top(shapes_of(large), at))


def test_tiles_with_common_sides_leave_no_gap_and_no_overlap() -> None:
    angle = math.radians(17)
    step = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]]) * 0.003
    place = np.array([24.0, 60.0])
    footprints = [
        shapely.Polygon([place + step @ corner for corner in ((i, j), (i + 1, j), (i + 1, j + 1), (i, j + 1))])
        for i in range(40)
        for j in range(40)
    ]
    at = map_tile_at(24.05, 60.06, 12)
    first = tiles_on_top(shapes_of(footprints), at)
    backwards = tiles_on_top(shapes_of(footprints, -np.arange(len(footprints))), at)
    np.testing.assert_array_equal(first, backwards)
    inside = shapely.contains_xy(
        world(shapely.union_all([footprint.buffer(1e-9) for footprint in footprints]).buffer(-1e-5), at),
        *np.meshgrid(CENTRES, CENTRES),
    )
    assert inside.any()
    assert (first[inside] >= 0).all()


@pytest.mark.parametrize("z", [3, 7, 9])
def test_small_tiles_are_within_two_pixels_of_their_places(z: int) -> None:
    lons, lats = np.meshgrid(20 + 0.02 * np.arange(90), 50 + 0.012 * np.arange(90))
    boxes = shapely.box(lons.ravel(), lats.ravel(), lons.ravel() + 0.02, lats.ravel() + 0.012)
    at = map_tile_at(21.0, 50.5, z)
    found = tiles_on_top(shapes_of(list(boxes)), at)
    row, col = np.nonzero(found >= 0)
    places = shapely.points(col + 0.5, row + 0.5)
    shown = world(boxes[found[row, col]], at)
    assert len(row)
    assert shapely.distance(places, shown).max() < 1.5
    whole = world(shapely.box(20, 50, 21.8, 51.08), at).buffer(-1)
    inside = shapely.contains_xy(whole, *np.meshgrid(CENTRES, CENTRES))
    assert (found[inside] >= 0).all()


def test_a_tile_that_reaches_in_from_far_outside_is_painted() -> None:
    footprints = [shapely.box(-170, -80, 170, 80), shapely.box(24, 60, 24.001, 60.001)]
    at = map_tile_at(24.0005, 60.0005, 14)
    check(footprints, at, tiles_on_top(shapes_of(footprints), at))


def test_the_tile_with_the_largest_rank_lies_on_top_at_every_size() -> None:
    boxes = [shapely.box(24, 60, 24.01 + 0.0001 * i, 60.01) for i in range(5)]
    shapes = shapes_of(boxes, np.array([3, 9, 1, 7, 5]))
    for z in (0, 8, 10, 12, 15):
        found = tiles_on_top(shapes, map_tile_at(24.005, 60.005, z))
        assert 1 in found
        assert set(np.unique(found[found >= 0])) <= ({1} if z < 10 else {1, 3, 4})


def test_only_tiles_that_pass_are_painted() -> None:
    boxes = [shapely.box(24 + i, 60, 25 + i, 61) for i in range(4)]
    at = map_tile_at(25, 60.5, 5)
    found = tiles_on_top(shapes_of(boxes), at, np.array([True, False, True, False]))
    assert set(np.unique(found)) == {-1, 0, 2}


def test_both_parts_of_a_tile_across_the_antimeridian_are_painted() -> None:
    parts = shapely.MultiPolygon([shapely.box(179.5, 10, 180, 11), shapely.box(-180, 10, -179.4, 11)])
    shapes = shapes_of([None, parts])
    assert shapes.count == 2
    for lon in (179.9, -179.9):
        at = map_tile_at(lon, 10.5, 9)
        check([shapely.Point(0, 0).buffer(1e-9), parts], at, tiles_on_top(shapes, at))
        assert (tiles_on_top(shapes, at) == 1).any()
    assert (tiles_on_top(shapes, map_tile_at(0, 10.5, 9)) == -1).all()


def test_a_tile_around_the_pole_reaches_the_edge_of_the_map() -> None:
    pole = shapely.Polygon([(-180, 80), *((lon, 80) for lon in range(-170, 171, 10)), (180, 80), (180, 90), (-180, 90)])
    found = tiles_on_top(shapes_of([pole]), MapTile(3, 4, 0))
    _, lat = lonlat_of(np.full(SIDE, 0.5), CENTRES / SIDE / 8)
    np.testing.assert_array_equal(found[:, 0] == 0, lat > 80)


def test_many_layers_of_tiles_show_the_one_on_top() -> None:
    rng = np.random.default_rng(3)
    lons, lats = np.meshgrid(24 + 0.004 * np.arange(100), 60 + 0.002 * np.arange(100))
    boxes = shapely.box(lons.ravel(), lats.ravel(), lons.ravel() + 0.004, lats.ravel() + 0.002)
    rank = rng.permutation(60_000)
    shapes = shapes_of(list(boxes) * 6, rank)
    top = rank.reshape(6, -1).argmax(axis=0) * 10_000 + np.arange(10_000)
    at = map_tile_at(24.2, 60.1, 11)
    found = tiles_on_top(shapes, at)
    painted = np.unique(found[found >= 0])
    assert len(painted) > 1000
    assert np.isin(painted, top).all()


@pytest.mark.parametrize("z", [19, 24])
def test_many_layers_of_tiles_that_are_much_larger_than_the_map_tile(z: int) -> None:
    lons, lats = np.meshgrid(24 + 0.04 * np.arange(3), 60 + 0.02 * np.arange(3))
    boxes = list(shapely.box(lons.ravel(), lats.ravel(), lons.ravel() + 0.04, lats.ravel() + 0.02))
    shapes = shapes_of(boxes * 60)
    # The map tile has the corner of four tiles.
    found = tiles_on_top(shapes, map_tile_at(24.04, 60.02, z))
    assert set(np.unique(found)) == {59 * 9 + number for number in (0, 1, 3, 4)}


def test_no_tile_gives_an_empty_map_tile() -> None:
    assert (tiles_on_top(shapes_of([None]), MapTile(0, 0, 0)) == -1).all()
    assert shapes_of([]).bounds is None


@given(st.binary(max_size=200) | st.just(shapely.to_wkb(shapely.box(0, 0, 1, 1))[:13] + b"\xff" * 80))
def test_a_damaged_footprint_is_refused_or_harmless(data: bytes) -> None:
    try:
        rings = rings_of_footprints(pa.array([data], pa.binary()), 0)
    except ValueError:
        return
    top_shapes(Shapes(rings, np.arange(1)), MapTile(2, 1, 1))
