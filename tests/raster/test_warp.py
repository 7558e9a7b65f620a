"""Compare warped rasters with GDAL's warper, with pyproj, and with means that NumPy computes."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyproj
import pytest
import rasterio
from numpy.typing import NDArray
from rasterio.enums import Resampling
from rasterio.transform import Affine
from rasterio.warp import reproject
from rasterio.windows import Window

from rasterembed.errors import DataError, RasterEmbedError, UsageError
from rasterembed.raster import warped_pixels
from rasterembed.raster.grid import Grid
from rasterembed.raster.pixels import open_pixels
from rasterembed.raster.profile import RasterProfile, inspect_raster
from rasterembed.raster.scene import register_scene
from rasterembed.raster.scene_profile import inspect_scene
from rasterembed.raster.sharding import plan_shards
from rasterembed.raster.validity import Validity, apply_validity
from rasterembed.raster.warp import warp_profile
from rasterembed.raster.warped_places import WarpedPlaces
from rasterembed.store.object_store import ObjectStore
from tests.raster.test_anchored_grid import at
from tests.raster.test_shard_reader import counted_reads, noise, read_all, shard_reader
from tests.support.rasters import write
from tests.support.servers import S3Server
from tests.support.stores import at as in_bucket

WEST = {"crs": "EPSG:32634", "transform": Affine(10, 0, 700_003, 0, -10, 6_700_007)}
"""A place in the east of its UTM zone. Its edges are not on the lattice."""

Read = tuple[RasterProfile, NDArray[Any], NDArray[np.bool_]]


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return ObjectStore(root=str(tmp_path / "store"))


def anchored(resolution: float, crs: str | None = None, **options: Any) -> Grid:
    return Grid(size=64, anchor="crs", resolution=resolution, crs=crs, **options)


def waves(count: int, dtype: str, *, height: int = 300, width: int = 280) -> NDArray[Any]:
    """Return an image whose values change by at most 20 from pixel to pixel, without zeros."""
    rows, cols = np.mgrid[0:height, 0:width]
    bands = [128 + 60 * np.sin(rows / 7 + band) + 60 * np.cos(cols / 9 - band) for band in range(count)]
    return np.array(bands).astype(dtype)


def profile_at(store: ObjectStore, path: Path, grid: Grid) -> RasterProfile:
    return warp_profile(inspect_raster(store, str(path)), grid, str(path))


def read_whole(store: ObjectStore, path: Path, grid: Grid) -> Read:
    profile = profile_at(store, path, grid)
    with open_pixels(store, str(path), profile) as raster:
        bands = tuple(range(1, min(profile.count, 3) + 1))
        return profile, *raster.read(bands, Window(0, 0, profile.width, profile.height))


def warped_by_gdal(path: Path, profile: RasterProfile) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Return the raster as GDAL warps it with exact places: bilinear pixels, and the nearest pixel's validity."""
    with rasterio.open(path) as dataset:
        pixels, mask = dataset.read(), dataset.dataset_mask()
        place = {"src_transform": dataset.transform, "src_crs": dataset.crs, "src_nodata": dataset.nodata}
    place |= {"dst_transform": profile.affine, "dst_crs": rasterio.CRS.from_wkt(profile.crs_wkt), "tolerance": 0}
    # Without these options, GDAL blurs a raster that is turned, as if it were made smaller.
    place |= {"XSCALE": 1, "YSCALE": 1}
    shape = profile.height, profile.width
    smooth, valid = np.zeros((len(pixels), *shape), pixels.dtype), np.zeros(shape, np.uint8)
    reproject(pixels, smooth, resampling=Resampling.bilinear, **place)
    reproject(mask, valid, resampling=Resampling.nearest, **(place | {"src_nodata": None}))
    return smooth, valid > 0


def check_against_gdal(store: ObjectStore, path: Path, grid: Grid, *, most: float = 1) -> None:
    profile, pixels, valid = read_whole(store, path, grid)
    expected, nearest = warped_by_gdal(path, profile)
    # Places that lie between two pixels of the raster to 0.01 px may go to either of them.
    assert np.count_nonzero(valid != nearest) <= 0.002 * valid.size
    assert np.count_nonzero(valid) > 0.3 * valid.size
    both = valid & nearest
    assert np.abs(pixels[:, both].astype(float) - expected[:, both]).max() <= most
    assert not pixels[:, ~valid].any()


@pytest.mark.parametrize(
    ("crs", "resolution"), [("EPSG:32635", 10.0), ("EPSG:4326", 8e-5), ("EPSG:3035", 9.0), (None, 7.0)]
)
def test_colours_and_validity_are_those_of_gdal(
    store: ObjectStore, tmp_path: Path, crs: str | None, resolution: float
) -> None:
    pixels = waves(3, "uint8")
    pixels[:, 60:110, 30:90] = 0
    path = write(tmp_path / "r.tif", pixels, **WEST, nodata=0, tiled=True, blockxsize=64, blockysize=64)
    check_against_gdal(store, path, anchored(resolution, crs))


@pytest.mark.parametrize("dtype", ["int16", "uint16", "int32", "float32", "float64"])
def test_other_types_of_pixels_are_those_of_gdal(store: ObjectStore, tmp_path: Path, dtype: str) -> None:
    path = write(tmp_path / "r.tif", waves(1, dtype, height=90, width=80) * 100, **WEST, nodata=0)
    check_against_gdal(store, path, anchored(10.0, "EPSG:32635"), most=20)


def test_a_rotated_raster_is_turned_to_north(store: ObjectStore, tmp_path: Path) -> None:
    turned = Affine(10, 0, 700_003, 0, -10, 6_700_007) @ Affine.rotation(30)
    path = write(tmp_path / "r.tif", waves(1, "uint8"), crs="EPSG:32634", transform=turned, nodata=0)
    check_against_gdal(store, path, anchored(10.0))


def applied(affine: Affine, x: Any, y: Any) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    a, b, c, d, e, f = tuple(affine)[:6]
    return a * x + b * y + c, d * x + e * y + f


def exact_colours(path: Path, profile: RasterProfile, window: Window) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Return bilinear pixels and validity of a window. PROJ gives the place of every pixel.

    A colour is NaN where the nearest pixel has no data.
    """
    with rasterio.open(path) as dataset:
        pixels, crs, to_px, nodata = dataset.read().astype(float), dataset.crs, ~dataset.transform, dataset.nodata
    transformer = pyproj.Transformer.from_crs(pyproj.CRS.from_wkt(profile.crs_wkt or ""), crs, always_xy=True)
    axes = (
        begin + 0.5 + np.arange(n) for begin, n in ((window.col_off, window.width), (window.row_off, window.height))
    )
    cols, rows = np.meshgrid(*axes)
    x, y = applied(to_px, *transformer.transform(*applied(profile.affine, cols, rows)))
    known = np.pad(pixels != nodata, ((0, 0), (1, 1), (1, 1)))
    padded = np.pad(pixels, ((0, 0), (1, 1), (1, 1)))
    on_raster = (x >= 0) & (x < pixels.shape[2]) & (y >= 0) & (y < pixels.shape[1])
    x, y = np.where(on_raster, x, 0) + 0.5, np.where(on_raster, y, 0) + 0.5
    col, row = np.floor(x).astype(int), np.floor(y).astype(int)
    sums, weights = np.zeros((2, len(pixels), *x.shape))
    for down, right in ((0, 0), (0, 1), (1, 0), (1, 1)):
        weight = np.abs(1 - down - (y - row)) * np.abs(1 - right - (x - col)) * known[:, row + down, col + right]
        sums += weight * padded[:, row + down, col + right]
        weights += weight
    nearest = known[:, np.floor(y + 0.5).astype(int), np.floor(x + 0.5).astype(int)] & on_raster
    return np.where(nearest, sums / np.where(weights > 0, weights, 1), np.nan), nearest.any(axis=0)


@pytest.mark.parametrize(
    ("name", "crs", "resolution"),
    [
        ("RGB.byte.tif", "EPSG:32617", 300.0),
        ("cog_dateline.tif", "EPSG:32601", 120.0),
    ],
)
def test_real_rasters_have_the_colours_of_their_exact_places(
    rasters: Path, store: ObjectStore, name: str, crs: str, resolution: float
) -> None:
    """A place that is 0.005 px off would change a colour by that share of the largest difference of two neighbours."""
    profile = profile_at(store, rasters / name, anchored(resolution, crs))
    window = Window(profile.width // 2 - 200, profile.height // 2 - 200, 400, 400)
    with open_pixels(store, str(rasters / name), profile) as raster:
        pixels, valid = raster.read(tuple(range(1, profile.count + 1)), window)
    expected, expected_valid = exact_colours(rasters / name, profile, window)
    assert np.count_nonzero(valid != expected_valid) < 20
    known = np.isfinite(expected) & valid
    assert known.mean() > 0.3
    most = 1.0 if pixels.dtype == np.uint8 else 2.0
    assert np.abs(pixels[known] - expected[known]).max() <= most


PLACES = {
    "zone to zone": (at(700_003.0, 6_700_007.0), "EPSG:32634", anchored(10.0, "EPSG:32635")),
    "kilometres": (at(200_000.0, 6_700_000.0, 1000.0), "EPSG:32635", anchored(1000.0, "EPSG:3035")),
    "degrees": (at(20.0, 65.0, 0.01), "EPSG:4326", anchored(500.0, "EPSG:32634")),
    "across 180 degrees": (at(179.0, 5.0, 0.01), "EPSG:4326", anchored(1000.0, "EPSG:3832")),
    "to a pole": (at(-180.0, 90.0, 1.0, width=360, height=30), "EPSG:4326", anchored(20_000.0, "EPSG:3995")),
}


@pytest.mark.parametrize("name", PLACES)
def test_places_are_accurate_to_a_hundredth_of_a_pixel(name: str) -> None:
    profile, crs, grid = PLACES[name]
    profile = profile.model_copy(update={"crs_wkt": pyproj.CRS(crs).to_wkt()})
    warped = warp_profile(profile, grid, "r.tif")
    assert warped.warp is not None
    width, height = min(warped.width, 500), min(warped.height, 400)
    left, top = (warped.width - width) // 2, (warped.height - height) // 2
    x, y = WarpedPlaces(warped, warped.warp).positions(left, top, width, height)
    samples = warped.warp.samples
    cols, rows = np.meshgrid(
        left + (np.arange(width * samples) + 0.5) / samples, top + (np.arange(height * samples) + 0.5) / samples
    )
    east, north = applied(warped.affine, cols, rows)
    transformer = pyproj.Transformer.from_crs(pyproj.CRS.from_wkt(warped.crs_wkt or ""), crs, always_xy=True)
    east, north = transformer.transform(east, north)
    if name == "across 180 degrees":
        east = east % 360
    exact = applied(~profile.affine, east, north)
    on_raster = (exact[0] >= 0) & (exact[0] < profile.width) & (exact[1] >= 0) & (exact[1] < profile.height)
    assert on_raster.mean() > 0.3
    for found, true in zip((x, y), exact, strict=True):
        assert np.abs(found - true)[on_raster].max() < 0.01


def test_pixels_do_not_depend_on_the_window(
    store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise two workers, or a run that continues, would write other vectors."""
    random = np.random.default_rng(3)
    pixels = noise(3, "uint16", height=150, width=140)
    pixels[:, random.random((150, 140)) < 0.05] = 0
    whole_numbers = write(tmp_path / "r.tif", pixels, **WEST, nodata=0)
    values = write(tmp_path / "f.tif", np.where(pixels > 0, pixels * 1.1, np.nan).astype(np.float32), **WEST)
    for path, grid in ((whole_numbers, anchored(10.0, "EPSG:32635")), (values, anchored(31.0, "EPSG:3035"))):
        profile, whole, valid = read_whole(store, path, grid)
        for limit in (2**19, 2**10):
            monkeypatch.setattr(warped_pixels, "_REGION_SAMPLES", limit)
            monkeypatch.setattr(warped_pixels, "_PIECE_SAMPLES", limit // 8)
            with open_pixels(store, str(path), profile) as raster:
                for _ in range(15):
                    left, top = random.integers(-20, profile.width), random.integers(-20, profile.height)
                    width, height = random.integers(1, 90, 2)
                    left, top = max(left, 1 - width), max(top, 1 - height)
                    found, found_valid = raster.read((1, 2, 3), Window(left, top, width, height))
                    around = ((0, 0), (100, 100), (100, 100))
                    part = slice(top + 100, top + 100 + height), slice(left + 100, left + 100 + width)
                    np.testing.assert_array_equal(found, np.pad(whole, around)[:, *part])
                    np.testing.assert_array_equal(found_valid, np.pad(valid, around[1:])[part])


def test_memory_does_not_grow_with_the_window(store: ObjectStore, tmp_path: Path) -> None:
    path = write(tmp_path / "r.tif", np.ones((1, 600, 6000), np.uint8), **WEST, tiled=True)
    profile = profile_at(store, path, anchored(10.0, "EPSG:32635"))
    peaks = []
    for width in (1500, 6000):
        with open_pixels(store, str(path), profile) as raster:
            tracemalloc.start()
            pixels, valid = raster.read((1,), Window(0, 0, width, profile.height))
            peaks.append(tracemalloc.get_traced_memory()[1] - pixels.nbytes - 2 * valid.nbytes)
            tracemalloc.stop()
    assert peaks[1] < 1.2 * peaks[0]
    assert peaks[1] < 64 * 2**20


def test_one_place_of_a_source_grid_has_equal_pixels_in_two_scenes(store: ObjectStore, tmp_path: Path) -> None:
    """The scenes are parts of one image, as two products of one satellite pass."""
    image = waves(1, "uint16", height=300, width=300) * 50
    reads = []
    for name, (row, col) in {"one": (0, 0), "two": (70, 90)}.items():
        place = WEST | {"transform": WEST["transform"] @ Affine.translation(col, row)}
        path = write(tmp_path / f"{name}.tif", image[:, row : row + 210, col : col + 210], **place)
        profile, pixels, valid = read_whole(store, path, anchored(10.0, "EPSG:32635"))
        assert profile.warp is not None
        reads.append((profile.warp.anchor, pixels[0], valid))
    (one, pixels, valid), (two, other_pixels, other_valid) = reads
    down, right = one.row - two.row, two.col - one.col
    rows, cols = min(pixels.shape[0] - down, 200), min(pixels.shape[1] - right, 200)
    both = valid[down : down + rows, right : right + cols] & other_valid[:rows, :cols]
    assert both.sum() > 10_000
    differences = pixels[down : down + rows, right : right + cols] != other_pixels[:rows, :cols]
    # Only at an edge of a scene, a pixel beside the scene is missing.
    assert np.count_nonzero(differences & both) < 3 * (rows + cols)


def test_a_raster_on_the_lattice_is_read_unchanged(store: ObjectStore, tmp_path: Path) -> None:
    place = {"crs": "EPSG:32635", "transform": Affine(10, 0, 500_070, 0, -10, 6_700_130)}
    path = write(tmp_path / "r.tif", noise(3, "uint8"), **place)
    own = inspect_raster(store, str(path))
    for grid in (anchored(10.0), anchored(10.0, "EPSG:32635"), anchored(10.0, pyproj.CRS(32635).to_wkt())):
        assert warp_profile(own, grid, str(path)) is own
    assert "warp" not in own.model_dump_json()
    shifted = warp_profile(own, anchored(10.0, origin=(5.0, 0.0)), str(path))
    assert shifted.warp is not None
    assert RasterProfile.model_validate_json(shifted.model_dump_json()) == shifted


def test_a_shift_by_half_a_pixel_is_the_mean_of_neighbours(store: ObjectStore, tmp_path: Path) -> None:
    pixels = noise(3, "uint8")
    place = {"crs": "EPSG:32635", "transform": Affine(30, 0, 330_285, 0, -30, 6_700_020)}
    path = write(tmp_path / "r.tif", pixels, **place)
    profile, found, valid = read_whole(store, path, anchored(30.0))
    assert (profile.width, profile.height) == (pixels.shape[2] + 1, pixels.shape[1])
    assert profile.transform[2] == 330_270
    means = [(left.astype(float) + right) / 2 for left, right in pairwise(np.moveaxis(pixels, -1, 0))]
    np.testing.assert_array_equal(found[:, :, 1:-1], np.rint(np.stack(means, axis=-1)))
    np.testing.assert_array_equal(found[:, :, 0], pixels[:, :, 0])
    assert valid[:, :-1].all()
    assert not valid[:, -1].any()


@pytest.mark.parametrize("factor", [2, 3, 8])
def test_a_larger_pixel_is_the_mean_of_its_valid_pixels(store: ObjectStore, tmp_path: Path, factor: int) -> None:
    pixels = noise(3, "float32", height=48, width=96)
    pixels[:, 20:30, 50:64] = np.nan
    place = {"crs": "EPSG:32635", "transform": Affine(10, 0, 480_000, 0, -10, 6_720_000)}
    path = write(tmp_path / "r.tif", pixels, **place)
    profile, found, valid = read_whole(store, path, anchored(10.0 * factor))
    assert profile.warp is not None
    assert profile.warp.samples == factor
    blocks = pixels.reshape(3, 48 // factor, factor, 96 // factor, factor)
    expected = np.nansum(blocks, axis=(2, 4)) / np.maximum(1, np.isfinite(blocks).sum(axis=(2, 4)))
    centres = pixels[0, factor // 2 :: factor, factor // 2 :: factor]
    np.testing.assert_array_equal(valid, np.isfinite(centres))
    np.testing.assert_allclose(found[:, valid], expected[:, valid], rtol=1e-6)


def test_a_hole_does_not_bleed_into_the_colours(store: ObjectStore, tmp_path: Path) -> None:
    pixels = np.full((3, 100, 100), 200, np.int16)
    pixels[:, 40:60, 40:60] = -32768
    path = write(tmp_path / "r.tif", pixels, **WEST, nodata=-32768)
    _, found, valid = read_whole(store, path, anchored(10.0, "EPSG:32635"))
    assert np.unique(found[:, valid]).tolist() == [200]
    assert abs(np.count_nonzero(valid) - (100 * 100 - 20 * 20)) < 150


def test_nodata_of_one_band_hides_this_band_only(store: ObjectStore, tmp_path: Path) -> None:
    pixels = np.full((3, 100, 100), 200, np.int16)
    pixels[1, 40:60, 40:60] = -32768
    path = write(tmp_path / "r.tif", pixels, **WEST, nodata=-32768)
    _, found, valid = read_whole(store, path, anchored(10.0, "EPSG:32635"))
    assert valid[20:80, 20:80].all()
    assert np.unique(found[[0, 2]][:, valid]).tolist() == [200]
    assert np.unique(found[1, valid]).tolist() == [-32768, 200]


def test_a_palette_takes_the_nearest_pixel(store: ObjectStore, tmp_path: Path) -> None:
    pixels = noise(1, "uint8") % 16 * 10
    path = write(tmp_path / "r.tif", pixels, **WEST)
    with rasterio.open(path, "r+") as dataset:
        dataset.write_colormap(1, {value: (value, 0, 0, 255) for value in range(256)})
    profile, found, valid = read_whole(store, path, anchored(10.0, "EPSG:32635"))
    with rasterio.open(path) as dataset:
        nearest = np.zeros((profile.height, profile.width), np.uint8)
        target = {"dst_transform": profile.affine, "dst_crs": "EPSG:32635", "tolerance": 0}
        reproject(
            dataset.read(1), nearest, src_transform=dataset.transform, src_crs=dataset.crs,
            resampling=Resampling.nearest, **target,
        )  # fmt: skip
    assert np.mean(found[0, valid] != nearest[valid]) < 0.01


def test_masks_of_all_kinds_are_those_of_the_original(store: ObjectStore, tmp_path: Path) -> None:
    """The same pixels are hidden by alpha, by an internal mask, by a declared mask, and by nodata."""
    grid, shown = anchored(10.0, "EPSG:32635"), noise(1, "uint8")[0] > 100
    pixels = noise(3, "uint8")
    plain = write(tmp_path / "nodata.tif", np.where(shown, pixels, 0), **WEST, nodata=0)
    _, expected, valid = read_whole(store, plain, grid)
    alpha = np.concatenate([pixels, np.where(shown, 255, 0)[None].astype(np.uint8)])
    masked = write(tmp_path / "mask.tif", pixels, **WEST)
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(masked, "r+") as dataset:
        dataset.write_mask(shown)
    for path in (write(tmp_path / "alpha.tif", alpha, **WEST, photometric="rgb", alpha="yes"), masked):
        _, found, found_valid = read_whole(store, path, grid)
        np.testing.assert_array_equal(found_valid, valid)
        np.testing.assert_array_equal(found, expected)
    unmasked = write(tmp_path / "plain.tif", pixels, **WEST)
    mask = write(tmp_path / "declared.tif", shown[None].astype(np.uint8), **WEST)
    own = inspect_raster(store, str(unmasked))
    declared = apply_validity(store, str(unmasked), own, Validity(mask=str(mask)))
    profile = warp_profile(declared, grid, "r.tif")
    with open_pixels(store, str(unmasked), profile) as raster:
        found, found_valid = raster.read((1, 2, 3), Window(0, 0, profile.width, profile.height))
    np.testing.assert_array_equal(found_valid, valid)
    np.testing.assert_array_equal(found, expected)


def test_tiles_of_a_scene_of_several_files_are_those_of_its_stacked_bands(store: ObjectStore, tmp_path: Path) -> None:
    pixels = noise(3, "uint16")
    pixels[:, 20:60, 90:150] = 0
    stacked = write(tmp_path / "stacked.tif", pixels, **WEST, nodata=0)
    files = {
        name: str(write(tmp_path / f"{name}.tif", pixels[i : i + 1], **WEST, nodata=0))
        for i, name in enumerate(("red", "green", "blue"))
    }
    grid = anchored(10.0, "EPSG:32635")
    reader = shard_reader(store, stacked, Grid())
    one = replace(reader, profile=warp_profile(reader.profile, grid, "stacked.tif"))
    one = replace(one, sharding=plan_shards(grid, one.profile, 6))
    source = register_scene(store, files)
    scene = warp_profile(inspect_scene(store, source), grid, "scene")
    found = read_all(replace(one, source=source, profile=scene))
    expected = read_all(one)
    assert found.valid_fraction == expected.valid_fraction
    assert len(found.pixels) > 10
    for name, tile in expected.pixels.items():
        np.testing.assert_array_equal(found.pixels[name], tile)


def test_files_of_several_resolutions_are_resampled_before_they_are_warped(store: ObjectStore, tmp_path: Path) -> None:
    """Compare with the scene as it is read without a warp, written as one raster, and warped."""
    fine, coarse = noise(1, "uint8", height=120, width=100), noise(2, "uint8", height=60, width=50)
    coarse[:, 20:30, 10:25] = 0
    halves = WEST | {"transform": WEST["transform"] @ Affine.scale(2)}
    files = {"red": str(write(tmp_path / "red.tif", fine, **WEST, nodata=0))}
    for i, name in enumerate(("green", "blue")):
        files[name] = str(write(tmp_path / f"{name}.tif", coarse[i : i + 1], **halves, nodata=0))
    source = register_scene(store, files)
    scene = inspect_scene(store, source)
    with open_pixels(store, source.uri, scene) as raster:
        unwarped, _ = raster.read((1, 2, 3), Window(0, 0, 100, 120))
    stacked = write(tmp_path / "stacked.tif", unwarped, **WEST, nodata=0)
    profile, expected, expected_valid = read_whole(store, stacked, anchored(10.0, "EPSG:32635"))
    warped = warp_profile(scene, anchored(10.0, "EPSG:32635"), "scene")
    with open_pixels(store, source.uri, warped) as raster:
        found, valid = raster.read((1, 2, 3), Window(0, 0, profile.width, profile.height))
    np.testing.assert_array_equal(valid, expected_valid)
    np.testing.assert_array_equal(found, expected)


def test_a_warped_raster_in_a_bucket_is_read_in_one_call(
    store: ObjectStore, tmp_path: Path, moto: S3Server, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "r.tif", noise(3, "uint8"), **WEST, tiled=True, blockxsize=64, blockysize=64)
    moto.create_bucket(bucket)
    moto.client().upload_file(str(path), bucket, "r.tif")
    grid = anchored(10.0, "EPSG:32635")

    def read(store: ObjectStore, uri: str) -> Any:
        reader = shard_reader(store, uri, Grid())
        reader = replace(reader, profile=warp_profile(reader.profile, grid, uri))
        return read_all(replace(reader, sharding=plan_shards(grid, reader.profile, 1000)))

    expected = read(store, str(path))
    calls = counted_reads(monkeypatch)
    found = read(in_bucket(moto, bucket), f"s3://{bucket}/r.tif")
    assert len(calls) == 1
    assert found.valid_fraction == expected.valid_fraction
    for name, pixels in expected.pixels.items():
        np.testing.assert_array_equal(found.pixels[name], pixels)


def test_a_block_that_cannot_be_decoded_costs_its_tiles_only(store: ObjectStore, tmp_path: Path) -> None:
    options = {"tiled": True, "blockxsize": 64, "blockysize": 64, "compress": "deflate"}
    path = write(tmp_path / "r.tif", noise(3, "uint8"), **WEST, **options)
    grid = Grid(size=32, anchor="crs", crs="EPSG:32635", resolution=10.0)

    def read(**more: Any) -> Any:
        reader = shard_reader(store, path, Grid(), **more)
        reader = replace(reader, profile=warp_profile(reader.profile, grid, "r.tif"))
        return read_all(replace(reader, sharding=plan_shards(grid, reader.profile, 1000)))

    whole = read()
    with rasterio.open(path) as dataset:
        offset = int(dataset.get_tag_item("BLOCK_OFFSET_1_1", "TIFF", bidx=1))
    damaged = bytearray(path.read_bytes())
    damaged[offset : offset + 200] = bytes(200)
    path.write_bytes(damaged)
    with pytest.raises(DataError, match=r"tile x\+\d{6}_y\+\d{6} \(window .* cannot be read"):
        read()
    found = read(on_bad_window="skip")
    lost = whole.pixels.keys() - found.pixels.keys()
    assert 1 <= len(lost) < len(whole.pixels) / 2
    assert {found.skipped[name] for name in lost} == {"undecodable"}
    for name, pixels in found.pixels.items():
        np.testing.assert_array_equal(pixels, whole.pixels[name])


REFUSED: dict[str, tuple[dict[str, Any], Grid, str]] = {
    "no place": ({"on_earth": False}, anchored(10.0), "no place on Earth, so it cannot be warped"),
    "a CRS that names a file": ({}, anchored(10.0, "+proj=longlat +nadgrids=/etc/passwd"), "no such file is opened"),
    "no CRS": ({}, anchored(10.0, "EPSG:1"), "`crs` 'EPSG:1' is not understood"),
    "the Moon": ({}, anchored(10.0, "IAU_2015:30100"), "is of another body"),
    "much larger pixels": ({}, anchored(100.0), "covers 10 x 10 px of the raster"),
    "metres where the CRS has degrees": (
        {},
        anchored(10.0, "EPSG:4326"),
        r"covers \d+ x \d+ px of the raster.* in units of the CRS \(degree\)",
    ),
    "pixels of a whole zone": ({}, anchored(1e6), "covers 100000 x 100000 px of the raster"),
    "pixels beyond the Earth": ({}, anchored(1e5, "EPSG:4326"), r"px of the raster, more than 8 x 8"),
    "tiny pixels": ({}, anchored(1e-7), "give a larger `resolution`"),
    "an origin far away": ({}, anchored(20.0, origin=(1e300, 0.0)), "or the grid's `origin` or `resolution`"),
    "an origin beyond all numbers": ({}, anchored(1e-2, origin=(1e308, 0.0)), "lies inf px from the origin"),
    "an origin beyond a long integer": ({}, anchored(1e-2, origin=(1e18, 0.0)), "px from the origin"),
    "a CRS in units of 1e300 m": (
        {"transform": (1e12, 0.0, 4e5, 0.0, -1e12, 6.7e6)},
        anchored(1e-3, "+proj=utm +zone=35 +to_meter=1e300"),
        r"px of the raster, more than 8 x 8",
    ),
    "across an edge of the map": (
        {"transform": (10.0, 0.0, 833_000.0, 0.0, -10.0, 1_000.0), "crs_wkt": pyproj.CRS(32660).to_wkt()},
        anchored(10.0, "+proj=eqearth"),
        "most of them without data",
    ),
    "across the antimeridian": (
        {"transform": (10.0, 0.0, 833_000.0, 0.0, -10.0, 1_000.0), "crs_wkt": pyproj.CRS(32660).to_wkt()},
        anchored(1e-4, "EPSG:4326"),
        "crosses the antimeridian",
    ),
    "off the map": (
        {"transform": (0.1, 0.0, 0.0, 0.0, -0.1, -60.0), "crs_wkt": pyproj.CRS(4326).to_wkt()},
        anchored(1000.0, "+proj=gnom +lat_0=90"),
        "no pixel of it is on the map",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_raster_that_cannot_be_warped_is_refused(name: str) -> None:
    changes, grid, reason = REFUSED[name]
    with pytest.raises(RasterEmbedError, match=reason):
        warp_profile(at(500_003.0, 6_700_000.0).model_copy(update=changes), grid, "r.tif")


def test_a_raster_with_control_points_is_refused(rasters: Path, store: ObjectStore) -> None:
    with pytest.raises(DataError, match="only ground control points, so it cannot be warped"):
        profile_at(store, rasters / "cog_gcps.tif", anchored(10.0))


def test_a_warp_needs_an_anchored_grid_and_a_pixel_size() -> None:
    with pytest.raises(UsageError, match="give `resolution` too"):
        Grid(anchor="crs", crs="EPSG:32635")
    with pytest.raises(UsageError, match="give `anchor=crs` too"):
        Grid(resolution=10.0)
    for size in (1e-320, 1e308, float("nan"), float("inf")):
        with pytest.raises(UsageError, match="resolution"):
            anchored(size)
