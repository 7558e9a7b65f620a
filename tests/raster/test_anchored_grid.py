"""Compare grids that are anchored to the CRS with their definition, and with what rasterio and pyproj compute."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyproj
import pytest
import rasterio
import shapely
from hypothesis import assume, given
from hypothesis import strategies as st
from rasterio.transform import Affine
from rasterio.windows import Window

from rasterembed.errors import DataError, UsageError
from rasterembed.raster.anchor import find_anchor
from rasterembed.raster.footprints import Footprinter, Footprints
from rasterembed.raster.grid import Anchor, Grid, anchored_id, grid_shape, tiles_in
from rasterembed.raster.profile import GroundControlPoint as Point
from rasterembed.raster.profile import RasterProfile
from rasterembed.raster.scene import register_scene
from rasterembed.raster.scene_profile import inspect_scene
from rasterembed.raster.shard_reader import ShardReader
from rasterembed.raster.sharding import Sharding, plan_shards
from rasterembed.raster.validity import Validity, apply_validity
from rasterembed.search.query import TileRef
from rasterembed.store.object_store import ObjectStore
from tests.raster.test_footprints import profile_of
from tests.raster.test_shard_reader import counted_reads, noise, read_all, shard_reader
from tests.support.rasters import write

Edge = Literal["pad", "drop"]
UTM = "EPSG:32635"
ANCHORED = Grid(anchor="crs")


def at(
    x: float, y: float, pixel: float = 10.0, *, width: int = 300, height: int = 200, crs: str = UTM
) -> RasterProfile:
    """Return the header of a raster whose upper left corner is at x, y."""
    return profile_of(crs, Affine(pixel, 0, x, 0, -pixel, y), width, height)


def touched(begin: int, length: int, size: int, step: int, edge: Edge) -> list[int]:
    """Return the numbers of the tiles along an axis, by trying every number whose tile could be near."""
    pixels = set(range(begin, begin + length))
    numbers = range((begin - size) // step - 2, (begin + length) // step + 3)
    rule = pixels.issuperset if edge == "drop" else lambda tile: not pixels.isdisjoint(tile)
    return [n for n in numbers if rule(range(n * step, n * step + size))]


@given(
    st.sampled_from([16, 48]),
    st.one_of(st.none(), st.integers(1, 70)),
    st.tuples(st.integers(1, 200), st.integers(1, 200)),
    st.tuples(st.integers(-300, 300), st.integers(-300, 300)),
    st.sampled_from(["pad", "drop"]),
)
def test_tiles_are_those_of_the_definition(
    size: int, stride: int | None, shape: tuple[int, int], place: tuple[int, int], edge: Edge
) -> None:
    (height, width), (col, row) = shape, place
    grid, anchor = Grid(size=size, stride=stride, edge=edge, anchor="crs"), Anchor(col=col, row=row)
    xs = touched(col, width, size, grid.step, edge)
    ys = touched(row - height, height, size, grid.step, edge)
    if not xs or not ys:
        with pytest.raises(DataError, match="no whole tile" if edge == "drop" else "lies in a gap between tiles"):
            grid_shape(grid, height, width, anchor)
        return
    assume(len(xs) * len(ys) < 10_000)
    assert grid_shape(grid, height, width, anchor) == (len(ys), len(xs))
    tiles = tiles_in(grid, height, width, (0, len(ys)), (0, len(xs)), anchor)
    # Rows run from north to south, so the largest y comes first.
    places = [(y, x) for y in reversed(ys) for x in xs]
    assert tiles.ids().tolist() == [anchored_id(x, y) for y, x in places]
    assert (tiles.col_off + col).tolist() == [x * grid.step for _, x in places]
    assert (row - tiles.row_off - tiles.height).tolist() == [y * grid.step for y, _ in places]
    assert set(tiles.width.tolist()) | set(tiles.height.tolist()) == {size}
    middle = len(ys) // 2
    part = tiles_in(grid, height, width, (middle, len(ys)), (0, 1), anchor)
    assert part.ids().tolist() == [anchored_id(xs[0], y) for y in reversed(ys[: len(ys) - middle])]


@pytest.mark.parametrize(
    ("x", "y", "name"),
    [(0, 0, "x+000000_y+000000"), (-1, 160, "x-000001_y+000160"), (3_000_000, -30_000, "x+3000000_y-030000")],
)
def test_ids_have_a_sign_and_at_least_six_digits(x: int, y: int, name: str) -> None:
    """Pixels of a centimetre in UTM need seven digits."""
    assert anchored_id(x, y) == name
    anchor = Anchor(col=x * 16, row=(y + 1) * 16)
    tiles = tiles_in(Grid(size=16, anchor="crs"), 16, 16, (0, 1), (0, 1), anchor)
    assert tiles.ids().tolist() == [tiles.id(0)] == [name]
    assert TileRef.parse(f"scene/{name}") == TileRef(tile_id=name, dataset_id="scene")


def test_a_grid_with_the_default_anchor_is_stored_as_in_version_0_1() -> None:
    """Otherwise the fingerprints of old datasets would change."""
    assert Grid(size=32).model_dump(mode="json") == {"size": 32, "stride": None, "edge": "pad"}
    anchored = Grid(size=32, anchor="crs")
    assert Grid.model_validate_json(anchored.model_dump_json()) == anchored
    plain = plan_shards(Grid(size=32), at(500_003, 6_700_000), 16)
    assert "anchor" not in plain.model_dump_json()
    sharding = plan_shards(anchored, at(500_000, 6_700_000), 16)
    assert Sharding.model_validate_json(sharding.model_dump_json()) == sharding
    assert sharding.anchor == Anchor(col=50_000, row=670_000)


def test_shifted_tiles_cannot_be_anchored() -> None:
    with pytest.raises(UsageError, match="tiles of `anchor=crs` have fixed places: use pad or drop"):
        Grid(edge="shift", anchor="crs")


def test_pixel_edges_may_lie_a_hundredth_of_a_pixel_off_the_lattice() -> None:
    assert find_anchor(at(500_000.09, 6_699_999.91), ANCHORED) == Anchor(col=50_000, row=670_000)
    assert find_anchor(at(-60.0, -40.0), ANCHORED) == Anchor(col=-6, row=-4)
    assert find_anchor(at(24.0, 60.5, 1 / 1200, crs="EPSG:4326"), ANCHORED) == Anchor(col=28_800, row=72_600)


def test_a_raster_off_the_lattice_is_refused_with_the_numbers() -> None:
    with pytest.raises(DataError) as refused:
        find_anchor(at(500_003.0, 6_700_000.0), ANCHORED)
    assert "x=500003 is 50000.3000 px of 10" in str(refused.value)
    assert "y=6700000 is 670000.0000 px of 10" in str(refused.value)
    assert "while it is read with `resolution=10`, or " in str(refused.value)
    assert "gdalwarp -tap -tr 10 10" in str(refused.value)
    with pytest.raises(DataError, match=r"y=6699999\.89 is 669999\.9890 px"):
        find_anchor(at(500_000.0, 6_699_999.89), ANCHORED)
    # Landsat's pixel centres, not its edges, are at multiples of 30 m.
    with pytest.raises(DataError, match=r"x=330285 is 11009\.5000 px of 30 .* give `origin=15 15`"):
        find_anchor(at(330_285.0, 6_700_005.0, 30.0), ANCHORED)


def test_an_origin_shifts_the_lattice_and_the_tiles() -> None:
    """All Landsat scenes share the lattice whose origin is at 15, 15."""
    grid = Grid(size=64, anchor="crs", origin=(15.0, 15.0))
    profile = at(330_285.0, 6_700_005.0, 30.0)
    assert find_anchor(profile, grid) == Anchor(col=11_009, row=223_333)
    found, _ = footprints(profile, grid)
    to_utm = pyproj.Transformer.from_crs("OGC:CRS84", UTM, always_xy=True)
    assert len(found) == 5 * 4
    for name, footprint in found.items():
        x, y = 15 + int(name[1:8]) * 1920.0, 15 + int(name[10:17]) * 1920.0
        square = shapely.transform(footprint, lambda lon, lat: to_utm.transform(lon, lat), interleaved=False)
        assert shapely.hausdorff_distance(square, shapely.box(x, y, x + 1920, y + 1920)) < 0.1 * 30
    with pytest.raises(DataError, match=r"from the origin \(15, 15\).* give `origin=0 0`"):
        find_anchor(at(330_270.0, 6_700_020.0, 30.0), grid)
    with pytest.raises(DataError, match=r"give `origin=0 7\.5`"):
        find_anchor(at(500_000.001, 6_699_997.5), ANCHORED)


def test_an_origin_is_stored_only_if_it_is_given() -> None:
    shifted = Grid(size=32, anchor="crs", origin=(15.0, 15.0))
    assert Grid.model_validate_json(shifted.model_dump_json()) == shifted
    assert "origin" not in Grid(size=32, anchor="crs").model_dump_json()
    with pytest.raises(UsageError, match="give `anchor=crs` too"):
        Grid(origin=(15.0, 15.0))


CONTROL_POINTS = tuple(Point(row=r, col=c, x=24 + c / 1e3, y=60 - r / 1e3) for r in (0, 70) for c in (0, 90))
NOT_NORTH_UP = "whose rows run from west to east and whose columns run from north to south"
UNFIT: dict[str, tuple[dict[str, Any], str]] = {
    "no place": ({"on_earth": False}, "no place on Earth"),
    "control points": ({"gcps": CONTROL_POINTS}, "only ground control points"),
    "south up": ({"transform": (10.0, 0.0, 0.0, 0.0, 10.0, 0.0)}, NOT_NORTH_UP),
    "mirrored": ({"transform": (-10.0, 0.0, 0.0, 0.0, -10.0, 0.0)}, NOT_NORTH_UP),
    "turned": ({"transform": (10.0, 0.001, 0.0, 0.0, -10.0, 0.0)}, NOT_NORTH_UP),
    "rows for columns": ({"transform": (0.0, 10.0, 0.0, 10.0, 0.0, 0.0)}, NOT_NORTH_UP),
    "far away": ({"transform": (1e-9, 0.0, 1e6, 0.0, -1e-9, 0.0)}, "its transform is wrong"),
    "infinitely far": ({"transform": (1e-300, 0.0, 1e300, 0.0, -1e-300, 0.0)}, "its transform is wrong"),
}


@pytest.mark.parametrize("name", UNFIT)
def test_a_raster_that_cannot_be_anchored_is_refused(name: str) -> None:
    changes, reason = UNFIT[name]
    with pytest.raises(DataError, match=reason):
        plan_shards(Grid(anchor="crs"), at(0, 0).model_copy(update=changes), 16)


def footprints(profile: RasterProfile, grid: Grid) -> tuple[dict[str, shapely.Geometry], Footprints]:
    sharding = plan_shards(grid, profile, 100_000)
    tiles = sharding.tiles(0)
    found = Footprinter.of_grid(profile, sharding)(tiles)
    return dict(zip(tiles.ids().tolist(), found.geometry, strict=True)), found


def test_footprints_are_those_of_the_lattice_and_equal_in_overlapping_rasters() -> None:
    """The corners of the two rasters lie up to 0.009 px off the lattice, in opposite directions."""
    grid = Grid(size=64, stride=48, anchor="crs")
    one, _ = footprints(at(500_000.09, 6_700_000.09), grid)
    other, _ = footprints(at(500_729.91, 6_699_069.91), grid)
    shared = one.keys() & other.keys()
    assert 10 < len(shared) < len(one)
    to_utm = pyproj.Transformer.from_crs("OGC:CRS84", UTM, always_xy=True)
    for name in shared:
        x, y = int(name[1:8]) * 480.0, int(name[10:17]) * 480.0
        first, second = (
            shapely.transform(each[name], lambda lon, lat: to_utm.transform(lon, lat), interleaved=False)
            for each in (one, other)
        )
        assert shapely.hausdorff_distance(first, second) < 0.01 * 10
        # A footprint's straight edges in longitude and latitude are within a tenth of a pixel of the true square.
        assert shapely.hausdorff_distance(first, shapely.box(x, y, x + 640, y + 640)) < 0.1 * 10


def test_tiles_may_reach_beyond_a_pole_of_a_map_of_longitude_and_latitude() -> None:
    profile = at(-180.0, 90.0, 1.0, width=360, height=180, crs="EPSG:4326")
    found, all_found = footprints(profile, Grid(size=64, anchor="crs"))
    assert np.nanmax(all_found.bounds[:, 3]) == 90.0
    # Tile 1 reaches from 64 to 128 degrees north.
    assert found["x+000000_y+000001"].bounds == pytest.approx((0.0, 64.0, 64.0, 90.0), abs=0.1)
    # Tile 2 reaches from 128 to 192 degrees east, across the antimeridian.
    assert found["x+000002_y+000000"].geom_type == "MultiPolygon"


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return ObjectStore(root=str(tmp_path / "store"))


def check_against_gdal(store: ObjectStore, path: Path, grid: Grid, **options: Any) -> None:
    """Check that every tile equals the whole raster's pixels and GDAL's mask, with zeros around the raster."""
    reader = shard_reader(store, path, grid, **options)
    found = read_all(reader)
    assert found.pixels.keys() | found.skipped.keys() == {
        name for number in range(reader.sharding.count) for name in reader.sharding.tiles(number).ids().tolist()
    }
    with rasterio.open(path) as dataset:
        bands = list(reader.bands)
        pixels, valid = dataset.read(bands), dataset.dataset_mask() > 0
        left, top = round(dataset.transform.c / 10), round(dataset.transform.f / 10)
    for name in found.pixels.keys() | found.skipped.keys():
        x, y = int(name[1:8]) * grid.step - left, top - int(name[10:17]) * grid.step - grid.size
        whole = np.zeros((len(bands), grid.size, grid.size), pixels.dtype)
        mask = np.zeros((grid.size, grid.size), dtype=bool)
        rows = slice(max(y, 0), min(y + grid.size, valid.shape[0]))
        cols = slice(max(x, 0), min(x + grid.size, valid.shape[1]))
        inside = slice(rows.start - y, rows.stop - y), slice(cols.start - x, cols.stop - x)
        whole[:, *inside], mask[inside] = pixels[:, rows, cols], valid[rows, cols]
        if name in found.skipped:
            assert mask.mean() < reader.min_valid_fraction
            continue
        np.testing.assert_array_equal(found.pixels[name], whole)
        np.testing.assert_array_equal(found.valid[name], mask)
        assert found.valid_fraction[name] == np.float32(mask.mean())


ODD: dict[str, Any] = {"crs": UTM, "transform": Affine(10, 0, 500_070, 0, -10, 6_700_130)}
"""A place on the lattice, but on no tile's corner."""


GRIDS = {
    "touching": Grid(size=64, anchor="crs"),
    "overlapping": Grid(size=64, stride=24, anchor="crs"),
    "small gaps": Grid(size=48, stride=60, anchor="crs"),
    "wide gaps": Grid(size=32, stride=90, anchor="crs"),
    "whole only": Grid(size=64, edge="drop", anchor="crs"),
    "larger than the raster": Grid(size=512, anchor="crs"),
}


@pytest.mark.parametrize("interleave", ["pixel", "band"])
@pytest.mark.parametrize("grid", GRIDS)
def test_every_tile_is_read_once_with_its_padding(
    store: ObjectStore, tmp_path: Path, grid: str, interleave: str
) -> None:
    pixels = noise(3, "uint8")
    pixels[:, :100, 60:150] = 0
    options = {"tiled": True, "blockxsize": 64, "blockysize": 64, "nodata": 0, "interleave": interleave}
    path = write(tmp_path / "r.tif", pixels, **(ODD | options))
    check_against_gdal(store, path, GRIDS[grid], shard_tiles=6)


def test_padding_is_invalid_in_rasters_without_nodata_with_alpha_and_with_a_mask(
    store: ObjectStore, tmp_path: Path
) -> None:
    grid = GRIDS["touching"]
    check_against_gdal(store, write(tmp_path / "plain.tif", noise(3, "uint16"), **ODD), grid)
    with_alpha = noise(4, "uint8")
    with_alpha[3] = np.where(with_alpha[3] > 100, 255, 0)
    check_against_gdal(store, write(tmp_path / "a.tif", with_alpha, **ODD, photometric="rgb"), grid)
    masked = write(tmp_path / "m.tif", noise(3, "uint8"), **ODD)
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(masked, "r+") as dataset:
        dataset.write_mask(with_alpha[3] > 0)
    check_against_gdal(store, masked, grid)


def test_padding_of_a_scene_of_several_files_with_a_mask_is_invalid(store: ObjectStore, tmp_path: Path) -> None:
    """The mask of a scene is read beside its files, and must not be stretched over the padding."""
    pixels, shown = noise(3, "uint8"), noise(1, "uint8")
    shown[:] = np.where(shown > 100, 1, 0)
    files = {
        name: str(write(tmp_path / f"{name}.tif", pixels[i : i + 1], **ODD))
        for i, name in enumerate(("red", "green", "blue"))
    }
    mask = write(tmp_path / "mask.tif", shown, **ODD)
    stacked = write(tmp_path / "stacked.tif", np.where(shown, pixels, 0), **ODD, nodata=0)
    source = register_scene(store, files)
    profile = apply_validity(store, source.uri, inspect_scene(store, source), Validity(mask=str(mask)))
    expected = read_all(shard_reader(store, stacked, GRIDS["touching"]))
    reader = shard_reader(store, stacked, GRIDS["touching"])
    found = read_all(replace(reader, source=source, profile=profile))
    assert found.valid_fraction == expected.valid_fraction
    for name, valid in expected.valid.items():
        np.testing.assert_array_equal(found.valid[name], valid)
        np.testing.assert_array_equal(np.where(valid, found.pixels[name], 0), expected.pixels[name])


def test_several_rows_of_tiles_are_read_at_once_from_a_server(
    store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ShardReader, "remote", True)
    path = write(tmp_path / "r.tif", noise(3, "uint8"), **ODD)
    check_against_gdal(store, path, GRIDS["touching"])
    calls = counted_reads(monkeypatch)
    read_all(shard_reader(store, path, GRIDS["touching"]))
    # The whole grid is one window, and the part of it inside the raster is read.
    assert Window(0, 0, 300, 210) in calls


def test_a_window_that_cannot_be_decoded_is_named_by_its_anchored_id(store: ObjectStore, tmp_path: Path) -> None:
    path = write(tmp_path / "r.tif", noise(3, "uint8"), **ODD, compress="deflate")
    with rasterio.open(path) as dataset:
        offset = int(dataset.get_tag_item("BLOCK_OFFSET_0_0", "TIFF", 1))
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(b"\xff" * 16)
    # The tile reaches from 781 * 64 = 49,984 px eastwards and up to 10,469 * 64 = 670,016 px northwards.
    with pytest.raises(DataError, match=r"tile x\+000781_y\+010468 \(window col_off=-23 row_off=-3 width=64"):
        read_all(shard_reader(store, path, GRIDS["touching"]))
