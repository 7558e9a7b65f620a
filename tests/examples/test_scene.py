"""Test the generated landscape: its files, its nodata, its classes and its colours."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from rasterio.enums import ColorInterp
from rasterio.warp import transform as transform_coordinates

from examples.landscape import CLASSES, Scene, make_scene
from examples.landscape import files as scene_files
from rasterembed.errors import UsageError

BORDER = 40


def pixels(path: Path) -> Any:
    """Return all bands, shape (3, height, width), or (height, width) for the class raster."""
    with rasterio.open(path) as source:
        return source.read().squeeze()


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    return make_scene(tmp_path_factory.mktemp("scene"), width=1024, height=1024, border=BORDER)


@pytest.fixture(scope="module")
def rgb(scene: Scene) -> Any:
    return pixels(scene.raster)


@pytest.fixture(scope="module")
def classes(scene: Scene) -> Any:
    return pixels(scene.classes)


def test_class_names_are_the_values_of_the_class_raster() -> None:
    assert CLASSES == ("nodata", "water", "forest", "field", "town", "bare")


def test_only_the_two_files_are_left_in_a_folder_made_on_the_way(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "er"
    made = make_scene(folder, width=64, height=64)
    assert made == Scene(raster=folder / "scene.tif", classes=folder / "scene-classes.tif")
    assert sorted(p.name for p in folder.iterdir()) == ["scene-classes.tif", "scene.tif"]


def test_a_failed_write_leaves_the_earlier_scene_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = make_scene(tmp_path, width=64, height=64)
    before = {p: p.read_bytes() for p in tmp_path.iterdir()}

    def full_disk(*_: object) -> None:
        raise OSError("No space left on device")

    # The class raster is the second file written, so that the first is whole when this fails.
    monkeypatch.setattr(scene_files, "_write_classes", full_disk)
    with pytest.raises(OSError, match="No space left"):
        make_scene(tmp_path, width=64, height=64, seed=8)
    assert {p: p.read_bytes() for p in tmp_path.iterdir()} == before
    assert set(before) == {made.raster, made.classes}


def test_the_same_seed_gives_the_same_pixels_whatever_the_global_state(tmp_path: Path) -> None:
    np.random.seed(1)
    first = make_scene(tmp_path / "a", width=320, height=200, seed=3)
    np.random.seed(2)
    second = make_scene(tmp_path / "b", width=320, height=200, seed=3)
    assert pixels(first.raster).tobytes() == pixels(second.raster).tobytes()
    assert pixels(first.classes).tobytes() == pixels(second.classes).tobytes()


def test_another_seed_is_another_landscape(tmp_path: Path) -> None:
    first = make_scene(tmp_path / "a", width=320, height=200, seed=3, border=0)
    second = make_scene(tmp_path / "b", width=320, height=200, seed=4, border=0)
    # Far more than sensor noise: most of the ground is something else, or looks otherwise.
    difference = np.abs(pixels(first.raster).astype(int) - pixels(second.raster))
    assert np.mean(difference > 10) > 0.5
    assert np.mean(pixels(first.classes) != pixels(second.classes)) > 0.2


def test_the_raster_is_an_rgb_cog(scene: Scene) -> None:
    with rasterio.open(scene.raster) as source:
        assert source.driver == "GTiff"
        assert source.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert source.tags(ns="IMAGE_STRUCTURE")["PREDICTOR"] == "2"
        assert (source.width, source.height, source.count) == (1024, 1024, 3)
        assert source.dtypes == ("uint8", "uint8", "uint8")
        assert source.nodatavals == (0, 0, 0)
        assert source.block_shapes == [(512, 512)] * 3
        assert [source.overviews(band) for band in (1, 2, 3)] == [[2]] * 3
        assert source.compression.value == "DEFLATE"
        assert source.colorinterp == (ColorInterp.red, ColorInterp.green, ColorInterp.blue)
        assert source.tags()["TIFFTAG_DATETIME"] == "2024:07:03 09:41:00"


def test_the_classes_are_a_cog_with_names_and_colours(scene: Scene) -> None:
    with rasterio.open(scene.classes) as source:
        assert source.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert (source.width, source.height, source.dtypes) == (1024, 1024, ("uint8",))
        assert source.nodata == 0
        assert source.block_shapes == [(512, 512)]
        assert source.overviews(1) == [2]
        assert source.colorinterp == (ColorInterp.palette,)
        names = [source.tags(1)[f"CLASS_{value}"] for value in range(len(CLASSES))]
        assert tuple(names) == CLASSES
        colours = [source.colormap(1)[value] for value in range(len(CLASSES))]
        assert len(set(colours)) == len(CLASSES)


def test_overviews_hold_classes_and_no_dark_fringe(scene: Scene) -> None:
    with rasterio.open(scene.classes, overview_level=0) as source:
        small = source.read(1)
    assert small.shape == (512, 512)
    full = pixels(scene.classes)
    # Each value of the overview stands in the two by two pixels it is for.
    blocks = full.reshape(512, 2, 512, 2).swapaxes(1, 2).reshape(512, 512, 4)
    assert (blocks == small[..., None]).any(axis=2).all()

    with rasterio.open(scene.raster, overview_level=0) as source:
        bands = source.read()
    # Averages leave nodata out: where one pixel in four is valid, its colour is not diluted.
    assert ((bands == 0).all(axis=0) == (bands == 0).any(axis=0)).all()
    assert ((bands[0] > 0) == (blocks > 0).any(axis=2)).all()


def test_it_lies_in_southern_finland(scene: Scene) -> None:
    with rasterio.open(scene.raster) as raster, rasterio.open(scene.classes) as classes:
        assert raster.crs.to_epsg() == 32635
        assert raster.transform == classes.transform
        assert raster.crs == classes.crs
        assert raster.res == (1.0, 1.0)
        xs, ys = transform_coordinates(raster.crs, "OGC:CRS84", [raster.bounds.left], [raster.bounds.top])
    assert xs[0] == pytest.approx(24.9, abs=1e-4)
    assert ys[0] == pytest.approx(60.2, abs=1e-4)


def test_crs_pixel_size_and_compression_are_the_callers(tmp_path: Path) -> None:
    made = make_scene(tmp_path, width=96, height=64, crs="EPSG:3067", pixel_size=0.5, compress="zstd")
    with rasterio.open(made.raster) as source:
        assert source.crs.to_epsg() == 3067
        assert source.res == (0.5, 0.5)
        assert (source.width, source.height) == (96, 64)
        assert source.compression.value == "ZSTD"
        xs, ys = transform_coordinates(source.crs, "OGC:CRS84", [source.bounds.left], [source.bounds.top])
    assert (xs[0], ys[0]) == pytest.approx((24.9, 60.2), abs=1e-4)


def test_without_compression_the_pixels_are_the_same(tmp_path: Path) -> None:
    plain = make_scene(tmp_path / "a", width=64, height=80, compress="none")
    packed = make_scene(tmp_path / "b", width=64, height=80)
    with rasterio.open(plain.raster) as source:
        assert source.compression is None
    assert pixels(plain.raster).tobytes() == pixels(packed.raster).tobytes()


def test_nodata_is_zero_in_every_band_where_the_class_is_nodata_and_nowhere_else(rgb: Any, classes: Any) -> None:
    assert (rgb[:, classes == 0] == 0).all()
    assert (rgb[:, classes != 0] > 0).all()


def test_the_nodata_border_is_as_deep_as_asked_and_irregular(classes: Any) -> None:
    valid = classes > 0
    assert valid[BORDER:-BORDER, BORDER:-BORDER].all()
    half = BORDER // 2
    for side in (valid, valid[::-1], valid.T, valid.T[::-1]):
        assert not side[:half].any()
        depths = side[:, BORDER:-BORDER].argmax(axis=0)
        assert half <= depths.min() < depths.max() <= BORDER
        assert len(np.unique(depths)) > 3


def test_a_border_of_zero_leaves_no_nodata(tmp_path: Path) -> None:
    made = make_scene(tmp_path, width=130, height=70, border=0)
    assert pixels(made.classes).min() > 0
    assert pixels(made.raster).min() > 0


def test_a_border_never_takes_more_than_a_quarter_from_a_side(tmp_path: Path) -> None:
    made = make_scene(tmp_path, width=100, height=64, border=1000)
    assert (pixels(made.classes)[16:-16, 16:-16] > 0).all()


@pytest.mark.parametrize("seed", [0, 7, 2024])
def test_each_class_covers_a_fair_share(tmp_path: Path, seed: int) -> None:
    made = make_scene(tmp_path, width=1000, height=1000, seed=seed)
    counts = np.bincount(pixels(made.classes).ravel(), minlength=len(CLASSES))[1:]
    assert len(counts) == len(CLASSES) - 1
    shares = dict(zip(CLASSES[1:], counts / counts.sum(), strict=True))
    assert min(shares.values()) >= 0.06, shares
    assert max(shares.values()) <= 0.5, shares


def test_most_tiles_have_a_main_class_and_many_are_mixed(classes: Any) -> None:
    tiles = classes[64:960, 64:960].reshape(4, 224, 4, 224).swapaxes(1, 2).reshape(16, -1)
    main = np.array([np.bincount(tile).max() / tile.size for tile in tiles])
    assert np.mean(main > 0.5) > 0.6
    assert np.mean(main < 0.8) > 0.2


def test_the_classes_look_as_they_do_from_the_air(rgb: Any, classes: Any) -> None:
    mean = {name: rgb[:, classes == value].mean(axis=1) for value, name in enumerate(CLASSES) if name != "nodata"}
    light = {name: colour.mean() for name, colour in mean.items()}
    blueness = {name: colour[2] / colour.sum() for name, colour in mean.items()}
    greenness = {name: colour[1] / colour.sum() for name, colour in mean.items()}

    assert min(light, key=light.__getitem__) == "water"
    assert light["water"] < light["forest"] < light["town"] < light["field"] < light["bare"]
    assert max(blueness, key=blueness.__getitem__) == "water"
    assert blueness["water"] > blueness["bare"] + 0.08
    assert max(greenness, key=greenness.__getitem__) == "forest"
    red, green, blue = mean["bare"]
    assert red > green > blue


def test_the_classes_differ_in_texture(rgb: Any, classes: Any) -> None:
    """Compare neighbouring pixels: water is smooth, crowns and roofs are not."""
    grey = rgb.mean(axis=0)
    step = np.abs(grey[1:, 1:] - grey[:-1, :-1])
    same = classes[1:, 1:] == classes[:-1, :-1]
    rough = {name: step[same & (classes[1:, 1:] == value)].mean() for value, name in enumerate(CLASSES)}
    assert rough["water"] < rough["field"] < rough["forest"]
    assert rough["water"] < 3
    assert rough["town"] > 2 * rough["water"]


@pytest.mark.parametrize("seed", range(5))
def test_the_smallest_scene_still_has_two_classes(tmp_path: Path, seed: int) -> None:
    made = make_scene(tmp_path, width=64, height=64, seed=seed)
    classes = pixels(made.classes)
    assert len(np.unique(classes[classes > 0])) >= 2


@pytest.mark.parametrize(("width", "height"), [(700, 64), (64, 700), (513, 127)])
def test_any_shape_will_do(tmp_path: Path, width: int, height: int) -> None:
    made = make_scene(tmp_path, width=width, height=height)
    classes = pixels(made.classes)
    assert pixels(made.raster).shape == (3, height, width)
    assert classes.shape == (height, width)
    assert len(np.unique(classes[classes > 0])) >= 3


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"width": 63}, "63 x 64"),
        ({"height": 0}, "64 x 0"),
        ({"seed": -1}, "seed -1"),
        ({"border": -1}, "border -1"),
        ({"pixel_size": 0.0}, "pixel size 0.0"),
        ({"pixel_size": float("nan")}, "pixel size nan"),
        ({"compress": "jpeg"}, "'jpeg'"),
        ({"crs": "EPSG:4326"}, "not projected"),
        ({"crs": "EPSG:999999"}, "not known"),
        ({"crs": "+proj=ortho +lat_0=-60 +lon_0=-155"}, "does not reach"),
        ({"crs": "IAU_2015:30130"}, "does not reach"),
        ({"crs": "nowhere"}, "not known"),
    ],
)
def test_wrong_parameters_are_refused_before_anything_is_written(
    tmp_path: Path, wrong: dict[str, Any], told: str
) -> None:
    folder = tmp_path / "out"
    with pytest.raises(UsageError, match=told) as refusal:
        make_scene(folder, **{"width": 64, "height": 64, **wrong})
    assert "\n" not in str(refusal.value)
    assert not folder.exists()
