"""Which bands become colours, and which values become black and white, checked with NumPy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from numpy.typing import NDArray
from rasterio.enums import ColorInterp, Resampling
from rasterio.io import DatasetReader
from rasterio.windows import Window

from rasterembed.errors import DataError, UsageError
from rasterembed.raster import radiometry
from rasterembed.raster.profile import inspect_raster
from rasterembed.raster.radiometry import (
    Radiometry,
    ResolvedRadiometry,
    palette_table,
    requested_radiometry,
    resolve_radiometry,
)
from rasterembed.store.object_store import ObjectStore
from tests.support.rasters import write

Colours = ColorInterp


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return ObjectStore(root=str(tmp_path / "store"))


def resolved(store: ObjectStore, path: Path, **asked: Any) -> ResolvedRadiometry:
    return resolve_radiometry(
        store, str(path), inspect_raster(store, str(path), allow_no_crs=True), Radiometry(**asked)
    )


def gamma(count: int, height: int, width: int, seed: int = 0) -> NDArray[np.uint16]:
    """Return values like those of a 16-bit scene, with a different distribution in each band."""
    rng = np.random.default_rng(seed)
    return np.stack([rng.gamma(2 + band, 300, (height, width)) for band in range(count)]).astype(np.uint16)


R, G, B, A, GREY, NONE = (
    Colours.red,
    Colours.green,
    Colours.blue,
    Colours.alpha,
    Colours.gray,
    Colours.undefined,
)


@pytest.mark.parametrize(
    ("colours", "bands"),
    [
        ([R, G, B], (1, 2, 3)),
        ([B, G, R], (3, 2, 1)),
        ([A, R, G, B], (2, 3, 4)),
        ([B, G, R, A], (3, 2, 1)),
        ([GREY], (1, 1, 1)),
        ([GREY, A], (1, 1, 1)),
        ([GREY, NONE], (1, 1, 1)),
        ([GREY, NONE, NONE], (1, 2, 3)),
        ([GREY, A, NONE, NONE], (1, 3, 4)),
        ([A, GREY, NONE], (2, 2, 2)),
        ([R, G, NONE], (1, 2, 3)),
        ([GREY, *[NONE] * 30], (1, 2, 3)),
        ([NONE, NONE, NONE, R, G, B], (4, 5, 6)),
    ],
)
def test_bands_follow_the_colour_interpretation(
    store: ObjectStore, tmp_path: Path, colours: list[ColorInterp], bands: tuple[int, ...]
) -> None:
    path = write(tmp_path / "r.tif", np.full((len(colours), 8, 8), 9, np.uint8), photometric="MINISBLACK")
    with rasterio.open(path, "r+") as dataset:
        dataset.colorinterp = colours
    found = resolved(store, path)
    assert found == ResolvedRadiometry(bands=bands, low=(0.0,) * 3, high=(255.0,) * 3, palette=False, method="uint8")


def test_bands_follow_their_descriptions(store: ObjectStore, tmp_path: Path) -> None:
    path = write(tmp_path / "r.tif", np.full((4, 8, 8), 9, np.uint8), photometric="MINISBLACK")
    with rasterio.open(path, "r+") as dataset:
        dataset.descriptions = ("Blue", "GREEN", "red", "nir")
    assert resolved(store, path).bands == (3, 2, 1)


def test_a_raster_of_alpha_alone(store: ObjectStore, tmp_path: Path) -> None:
    path = write(tmp_path / "r.tif", np.full((1, 8, 8), 9, np.uint8))
    with rasterio.open(path, "r+") as dataset:
        dataset.colorinterp = [A]
    with pytest.raises(DataError, match=r"r\.tif: its only band is alpha.*ignore_alpha"):
        resolved(store, path)


def test_bands_asked_for(store: ObjectStore, tmp_path: Path) -> None:
    path = write(tmp_path / "r.tif", np.full((5, 8, 8), 9, np.uint8))
    with rasterio.open(path, "r+") as dataset:
        dataset.colorinterp = [R, G, B, A, NONE]
    assert resolved(store, path, bands=(5, 1, 2)).bands == (5, 1, 2)
    assert resolved(store, path, bands=(5,)).bands == (5, 5, 5)
    with pytest.raises(UsageError, match=r"r\.tif: band 6 does not exist: choose from 1 to 5"):
        resolved(store, path, bands=(1, 2, 6))
    with pytest.raises(UsageError, match=r"r\.tif: band 4 is the alpha band.*ignore_alpha"):
        resolved(store, path, bands=(1, 2, 4))


def test_a_palette(store: ObjectStore, tmp_path: Path) -> None:
    path = write(tmp_path / "r.tif", np.zeros((1, 8, 8), np.uint8))
    with rasterio.open(path, "r+") as dataset:
        dataset.write_colormap(1, {0: (1, 2, 3, 255), 7: (40, 50, 60, 255)})
    found = resolved(store, path)
    assert (found.palette, found.bands, found.low, found.high) == (True, (1, 1, 1), (0.0,) * 3, (255.0,) * 3)
    assert resolved(store, path, range=(0, 1)).palette  # its values are names of colours, not quantities
    table = palette_table(inspect_raster(store, str(path)))
    assert (table.shape, table.dtype) == ((256, 3), np.uint8)
    assert table[[0, 7, 9]].tolist() == [[1, 2, 3], [40, 50, 60], [0, 0, 0]]


def test_ranges_and_presets(store: ObjectStore, tmp_path: Path) -> None:
    path = write(tmp_path / "r.tif", gamma(3, 8, 8))
    for asked, low, high, method in (
        ({"range": (-5, 12.5)}, -5.0, 12.5, "range"),
        # reflectance 0 and 0.3558 with the offset of 1000 that baseline 04.00 brought
        ({"scale": "sentinel2-l2a"}, 1000.0, 4558.0, "sentinel2-l2a"),
        # reflectance 0 and 0.3 by reflectance = 0.0000275 DN - 0.2
        ({"scale": "landsat-c2-l2"}, 7272.7272727, 18181.8181818, "landsat-c2-l2"),
    ):
        found = resolved(store, path, **asked)
        assert found.low == pytest.approx((low,) * 3)
        assert found.high == pytest.approx((high,) * 3)
        assert found.method == method


@pytest.mark.parametrize(
    "asked",
    [
        {"range": (0, 1), "percentile": (2, 98)},
        {"range": (0, 1), "scale": "landsat-c2-l2"},
        {"range": (1, 1)},
        {"range": (0, float("inf"))},
        {"range": (float("nan"), 1)},
        {"percentile": (98, 2)},
        {"percentile": (-1, 50)},
        {"percentile": (50, 101)},
        {"bands": (1, 2)},
        {"bands": (0, 1, 2)},
        {"scale": "spot"},
        {"gamma": 2},
    ],
)
def test_wrong_choices_are_refused_before_anything_is_read(asked: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        Radiometry(**asked)


def test_plans_keep_the_form_of_small_percentiles(store: ObjectStore, tmp_path: Path) -> None:
    path = write(tmp_path / "r.tif", gamma(3, 200, 300).astype("uint16"))
    # Plans of earlier versions have this text. With another one, a run would not go on with its dataset.
    assert resolved(store, path, percentile=(0.00001, 99.9)).method == "percentile 1e-05 99.9"


@pytest.mark.parametrize("dtype", ["uint16", "int16", "int32", "float32", "float64"])
def test_percentiles_of_a_small_raster(store: ObjectStore, tmp_path: Path, dtype: str) -> None:
    pixels = gamma(3, 200, 300).astype(dtype)
    found = resolved(store, write(tmp_path / "r.tif", pixels))
    assert found.method == "percentile 2 98"
    for band in range(3):
        assert (found.low[band], found.high[band]) == tuple(np.percentile(pixels[band], (2, 98)))
    wide = resolved(store, tmp_path / "r.tif", percentile=(0, 100), bands=(2, 2, 3))
    assert wide.low == (pixels[1].min(), pixels[1].min(), pixels[2].min())
    assert wide.high == (pixels[1].max(), pixels[1].max(), pixels[2].max())


def test_percentiles_of_8_bits_if_asked_for(store: ObjectStore, tmp_path: Path) -> None:
    pixels = np.arange(200, dtype=np.uint8).reshape(1, 10, 20)
    found = resolved(store, write(tmp_path / "r.tif", pixels), percentile=(10, 90))
    assert (found.low[0], found.high[0]) == (pytest.approx(19.9), pytest.approx(179.1))


def test_the_percentiles_that_a_person_gave_are_kept_exactly(store: ObjectStore, tmp_path: Path) -> None:
    pixels = np.arange(200, dtype=np.uint8).reshape(1, 10, 20)
    path = write(tmp_path / "r.tif", pixels)
    asked = Radiometry(percentile=(0.00012345678, 99.9999999))
    profile = inspect_raster(store, str(path), allow_no_crs=True)
    assert requested_radiometry(resolve_radiometry(store, str(path), profile, asked), profile) == asked


@pytest.mark.parametrize("marked_by", ["nodata", "nan", "mask", "mask file", "alpha"])
def test_percentiles_of_valid_pixels_alone(store: ObjectStore, tmp_path: Path, marked_by: str) -> None:
    pixels = gamma(3, 200, 300).astype(np.float32 if marked_by == "nan" else np.uint16)
    valid = np.hypot(*np.mgrid[-100:100, -150:150]) < 90
    path = tmp_path / "r.tif"
    if marked_by == "alpha":
        pixels[:, ~valid] = 60_000
        write(path, np.concatenate([pixels, np.where(valid, 65_535, 0)[None].astype(np.uint16)]))
        with rasterio.open(path, "r+") as dataset:
            dataset.colorinterp = [R, G, B, A]
    elif marked_by in ("nodata", "nan"):
        pixels[:, ~valid] = np.nan if marked_by == "nan" else 60_000
        write(path, pixels, nodata=np.nan if marked_by == "nan" else 60_000)
    else:
        pixels[:, ~valid] = 60_000
        write(path, pixels)
        with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=marked_by == "mask"), rasterio.open(path, "r+") as dataset:
            dataset.write_mask(valid)
    found = resolved(store, path)
    for band in range(3):
        assert (found.low[band], found.high[band]) == tuple(np.percentile(pixels[band][valid], (2, 98)))


def test_percentiles_of_an_overview(store: ObjectStore, tmp_path: Path) -> None:
    pixels = gamma(3, 1536, 2048, seed=3)
    pixels[:, :300] = 0
    path = write(tmp_path / "r.tif", pixels, tiled=True, blockxsize=512, blockysize=512, nodata=0)
    with rasterio.open(path, "r+") as dataset:
        dataset.build_overviews([2, 4], Resampling.nearest)
    found = resolved(store, path)
    with rasterio.open(path) as dataset:
        # a million pixels, in the raster's proportions
        overview = dataset.read(out_shape=(3, 887, 1182))
    for band in range(3):
        values = overview[band][(overview != 0).any(axis=0)]
        assert (found.low[band], found.high[band]) == tuple(np.percentile(values, (2, 98)))


def reads(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Window, tuple[int, ...]]]:
    """Record window and shape of all reads from now on."""
    calls: list[tuple[Window, tuple[int, ...]]] = []
    read = DatasetReader.read

    def counting(self: DatasetReader, *args: Any, **options: Any) -> Any:
        pixels = read(self, *args, **options)
        calls.append((options["window"], pixels.shape))
        return pixels

    monkeypatch.setattr(DatasetReader, "read", counting)
    return calls


@pytest.mark.parametrize("overviews", [[], [2]])
def test_reading_is_bounded_where_overviews_are_missing_or_large(
    store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, overviews: list[int]
) -> None:
    monkeypatch.setattr(radiometry, "_DECODED_PIXELS", 300_000)  # instead of 16 million, for the test's speed
    pixels = gamma(1, 1600, 2400)
    path = write(tmp_path / "r.tif", pixels, tiled=True, blockxsize=256, blockysize=256)
    with rasterio.open(path, "r+") as dataset:
        dataset.build_overviews(overviews, Resampling.nearest)
    calls = reads(monkeypatch)
    found = resolved(store, path)
    assert len(calls) == 64
    assert {(window.width, window.height, shape) for window, shape in calls} == {(256, 256, (1, 256, 256))}
    assert {window.col_off for window, _ in calls} == {int(x) for x in np.linspace(0, 2400 - 256, 8)}
    assert found.low[0] == pytest.approx(np.percentile(pixels, 2), rel=0.02)
    assert found.high[0] == pytest.approx(np.percentile(pixels, 98), rel=0.02)


def test_no_window_is_read_twice(store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(radiometry, "_DECODED_PIXELS", 1000)
    path = write(tmp_path / "r.tif", gamma(1, 3000, 100))
    calls = reads(monkeypatch)
    resolved(store, path)
    assert [(window.col_off, window.width, window.height) for window, _ in calls] == [(0, 100, 256)] * 8


def test_a_sample_without_a_valid_pixel(store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a sample, scaling would spoil the valid pixels between the windows."""
    monkeypatch.setattr(radiometry, "_DECODED_PIXELS", 1000)
    pixels = np.zeros((1, 3000, 3000), np.uint16)
    pixels[0, 300:310, 300:310] = 500
    path = write(tmp_path / "r.tif", pixels, nodata=0, compress="deflate")
    with pytest.raises(DataError, match=r"the 64 windows .* have no valid pixel: give `range`, or add overviews"):
        resolved(store, path)
    assert resolved(store, path, range=(0, 1000)).high == (1000.0,) * 3


def test_a_raster_without_a_valid_pixel(rasters: Path, store: ObjectStore) -> None:
    found = resolved(store, rasters / "all-nodata.tif")
    assert (found.low, found.high) == ((0.0,) * 3, (1.0,) * 3)


def test_a_raster_of_one_value_is_black(store: ObjectStore, tmp_path: Path) -> None:
    found = resolved(store, write(tmp_path / "r.tif", np.full((1, 9, 9), 500, np.int16)))
    assert (found.low, found.high) == ((500.0,) * 3, (501.0,) * 3)


def test_an_overview_that_cannot_be_read(store: ObjectStore, tmp_path: Path) -> None:
    path = write(tmp_path / "r.tif", gamma(1, 64, 64), compress="deflate", blockysize=64)
    with rasterio.open(path) as dataset:
        offset = int(dataset.get_tag_item("BLOCK_OFFSET_0_0", "TIFF", bidx=1))
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(b"\xff" * 100)
    with pytest.raises(DataError, match=r"its overview cannot be read \(.*\); give `range` to do without percentiles"):
        resolved(store, path)


def test_the_real_rasters(rasters: Path, store: ObjectStore) -> None:
    assert resolved(store, rasters / "RGBA.uint16.tif").bands == (3, 2, 1)
    assert resolved(store, rasters / "cog_world.tif").bands == (1, 1, 1)
    found = resolved(store, rasters / "mosaic_cog1.tif")
    assert found.bands == (1, 2, 3)
    with rasterio.open(rasters / "mosaic_cog1.tif") as dataset:
        pixels, valid = dataset.read(), dataset.dataset_mask() > 0
    for band in range(3):
        assert (found.low[band], found.high[band]) == tuple(np.percentile(pixels[band][valid], (2, 98)))
