"""Declarations of valid pixels: they agree with the masks of GDAL for a virtual raster with the same declaration."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from numpy.typing import NDArray
from pydantic import ValidationError
from rasterio.enums import ColorInterp
from rasterio.windows import Window

from rasterembed.errors import UsageError
from rasterembed.raster.pixels import open_pixels
from rasterembed.raster.profile import RasterProfile, inspect_raster
from rasterembed.raster.radiometry import Radiometry, resolve_radiometry
from rasterembed.raster.validity import Validity, apply_validity
from rasterembed.store.object_store import ObjectStore
from tests.raster.test_validity import write


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return ObjectStore(root=str(tmp_path / "store"))


def declared(store: ObjectStore, path: Path, **declarations: Any) -> RasterProfile:
    profile = inspect_raster(store, str(path), allow_no_crs=True)
    return apply_validity(profile, Validity(**declarations), str(path))


def validity(
    store: ObjectStore, path: Path, bands: tuple[int, ...], **declarations: Any
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return the validity of pixels, and of each band."""
    profile = declared(store, path, **declarations)
    window = Window(0, 0, profile.width, profile.height)
    with open_pixels(store, str(path), profile) as raster:
        return raster.read(bands, window)[1], raster.read_by_band(bands, window)[1]


def masks_of_gdal(path: Path, nodata: float | str, bands: tuple[int, ...]) -> NDArray[np.bool_]:
    """Return GDAL's mask of each band, for a virtual raster that shows the pixels of `path` with a nodata value."""
    virtual = path.with_suffix(".vrt")
    with rasterio.Env(GDAL_PAM_ENABLED="NO"):
        rasterio.shutil.copy(path, virtual, driver="VRT")
    text = re.sub("<NoDataValue>.*?</NoDataValue>|<MDI key=.NODATA_VALUES.>.*?</MDI>", "", virtual.read_text())
    text = re.sub("<VRTRasterBand [^>]*>", lambda band: f"{band[0]}<NoDataValue>{nodata}</NoDataValue>", text)
    virtual.write_text(text)
    with rasterio.open(virtual) as dataset:
        masks: NDArray[np.bool_] = dataset.read_masks(list(bands)) > 0
        return masks


INTEGERS = np.array([[0, 1, 7, 200, 255, 7]])
FLOATS = np.array([[-9999, np.nextafter(np.float32(-9999), np.float32(0)), -9998, 0.1, 0, 3.4e38]])


@pytest.mark.parametrize(
    ("pixels", "nodata"),
    [
        (INTEGERS.astype(np.uint8), 7),
        (INTEGERS.astype(np.uint8), "nan"),
        (INTEGERS.astype(np.uint16), 255),
        (-INTEGERS.astype(np.int16), -7),
        (INTEGERS + 2**53, 2**53 + 1),
        (INTEGERS.astype(np.uint64) + np.uint64(2**64 - 256), 2**64 - 1),
        (FLOATS.astype(np.float32), -9999),
        (FLOATS.astype(np.float32), 0.1),
        (FLOATS.astype(np.float32), 3.4e38),
        (FLOATS.astype(np.float32), 0),
        (FLOATS, -9999),
        (FLOATS, "nan"),
    ],
)
@pytest.mark.parametrize("in_file", [None, 0])
def test_a_declared_nodata_value(
    store: ObjectStore, tmp_path: Path, pixels: NDArray[Any], nodata: float | str, in_file: float | None
) -> None:
    """It replaces the value in the file."""
    three = np.stack([pixels, pixels[:, ::-1], pixels])
    path = write(tmp_path / "r.tif", three, nodata=in_file)
    for bands in ((1, 2, 3), (2,)):
        masks = masks_of_gdal(path, nodata, bands)
        valid, by_band = validity(store, path, bands, nodata=str(nodata))
        np.testing.assert_array_equal(valid, masks.any(axis=0))
        np.testing.assert_array_equal(by_band, masks)


def test_not_a_number_stays_invalid_beside_a_declared_nodata_value(store: ObjectStore, tmp_path: Path) -> None:
    path = write(tmp_path / "r.tif", np.array([[[np.nan, 1, 2, np.inf]]], np.float32), nodata=2)
    assert validity(store, path, (1,), nodata=1)[0].tolist() == [[False, False, True, False]]
    assert validity(store, path, (1,), nodata="nan")[0].tolist() == [[False, True, True, False]]


def test_a_declared_nodata_value_replaces_transparent_colours(store: ObjectStore, tmp_path: Path) -> None:
    with rasterio.open(
        tmp_path / "r.png", "w", driver="PNG", width=3, height=1, count=3, dtype="uint8", nodata=5
    ) as dataset:
        dataset.write(np.array([[[5, 6, 7]]] * 3, np.uint8))
    with rasterio.open(tmp_path / "r.png") as dataset:
        assert dataset.dataset_mask().tolist() == [[0, 255, 255]]
    assert validity(store, tmp_path / "r.png", (1, 2, 3))[0].tolist() == [[False, True, True]]
    assert validity(store, tmp_path / "r.png", (1, 2, 3), nodata=7)[0].tolist() == [[True, True, False]]


def test_a_declared_nodata_value_does_not_enter_the_stretch(store: ObjectStore, tmp_path: Path) -> None:
    pixels = np.random.default_rng(3).integers(1000, 3000, (1, 40, 50)).astype(np.uint16)
    pixels[0, :20] = 65535
    path = write(tmp_path / "r.tif", pixels)
    found = resolve_radiometry(store, str(path), declared(store, path, nodata=65535), Radiometry())
    assert (found.low[0], found.high[0]) == tuple(np.percentile(pixels[pixels < 65535], (2, 98)))


def test_infrared_that_the_file_calls_alpha_hides_no_water(store: ObjectStore, tmp_path: Path) -> None:
    pixels = np.random.default_rng(3).integers(1, 255, (4, 40, 50)).astype(np.uint8)
    pixels[3, :, :30] = 0  # Water is black in infrared.
    pixels[:, 5, 5] = 255
    path = write(tmp_path / "r.tif", pixels, nodata=255, photometric="rgb", alpha="yes")
    with rasterio.open(path) as dataset:
        assert dataset.colorinterp[3] == ColorInterp.alpha
        # GDAL's mask of nodata, with the interpretation of the band corrected.
        rasterio.shutil.copy(dataset, tmp_path / "corrected.tif")
    with rasterio.open(tmp_path / "corrected.tif", "r+") as dataset:
        dataset.colorinterp = [ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.undefined]
    assert validity(store, path, (1, 2, 3))[0][:, :30].sum() == 0
    for bands in ((1, 2, 3), (4, 1, 2), (4,)):
        with rasterio.open(tmp_path / "corrected.tif") as dataset:
            masks = dataset.read_masks(list(bands)) > 0
        valid, by_band = validity(store, path, bands, ignore_alpha=True)
        np.testing.assert_array_equal(valid, masks.any(axis=0))
        np.testing.assert_array_equal(by_band, masks)
    profile = declared(store, path, ignore_alpha=True)
    assert resolve_radiometry(store, str(path), profile, Radiometry(bands="4,1,2")).bands == (4, 1, 2)
    assert resolve_radiometry(store, str(path), profile, Radiometry()).bands == (1, 2, 3)


@pytest.mark.parametrize(
    ("dtype", "nodata", "advice"),
    [
        ("uint16", -9999, "-9999: give a whole number from 0 to 65535"),
        ("uint8", 0.5, "0.5: give a whole number from 0 to 255"),
        ("float32", 1e39, "1e\\+39: the largest number is 3.4028235e\\+38"),
    ],
)
def test_a_nodata_value_that_no_pixel_can_have_is_refused(
    store: ObjectStore, tmp_path: Path, dtype: str, nodata: float, advice: str
) -> None:
    path = write(tmp_path / "r.tif", np.ones((1, 4, 5), dtype))
    with pytest.raises(UsageError, match=rf"r\.tif: no pixel of type {dtype} can have the nodata value {advice}"):
        declared(store, path, nodata=nodata)


def test_nodata_values_that_people_type() -> None:
    typed = {"-9999": -9999, "1e3": 1000, "9007199254740993": 2**53 + 1, "0.5": 0.5, " NaN": "nan", "-0.0": 0}
    for text, value in typed.items():
        found = Validity(nodata=text).nodata
        assert (found, type(found)) == (value, type(value))
    assert Validity(nodata=-9999.0) == Validity(nodata=-9999)
    assert Validity(nodata=float("nan")) == Validity(nodata="nan")
    for text in ("none", "1,2", "", "inf", "1" * 400, True):
        with pytest.raises(ValidationError):
            Validity(nodata=text)
