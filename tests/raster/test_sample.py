"""The sample that percentiles are computed from shows the raster's own pixels, whatever its overviews show."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from numpy.typing import NDArray
from rasterio.enums import Resampling
from rasterio.windows import Window

from rasterembed.raster.profile import inspect_raster
from rasterembed.raster.radiometry import Radiometry, ResolvedRadiometry, resolve_radiometry
from rasterembed.store.object_store import ObjectStore
from tests.support.rasters import write

SIDE = 2600


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return ObjectStore(root=str(tmp_path / "store"))


def scene() -> NDArray[np.uint16]:
    """Return smooth hills with noise."""
    rows, columns = np.mgrid[0:SIDE, 0:SIDE]
    hills = 3000 + 900 * np.sin(rows / 300) * np.cos(columns / 400)
    return (hills + np.random.default_rng(5).normal(0, 60, hills.shape)).astype(np.uint16)[np.newaxis]


def resolved(store: ObjectStore, path: Path) -> ResolvedRadiometry:
    return resolve_radiometry(store, str(path), inspect_raster(store, str(path), allow_no_crs=True), Radiometry())


def overwrite_overview(path: Path, pixels: NDArray[Any]) -> None:
    """Write other pixels into the raster's first overview."""
    with rasterio.open(path, "r+", overview_level=0) as overview:
        overview.write(np.broadcast_to(pixels, (1, overview.height, overview.width)).astype(overview.dtypes[0]))


JUNK = {
    "empty": lambda: np.zeros((1, 1, 1)),
    "of another year": lambda: 9000 + scene()[:, : SIDE // 2, : SIDE // 2],
}


@pytest.mark.parametrize("nodata", [None, 0])
@pytest.mark.parametrize("junk", ["empty", "of another year"])
def test_a_wrong_overview_is_not_used(store: ObjectStore, tmp_path: Path, junk: str, nodata: int | None) -> None:
    pixels = scene()
    path = write(tmp_path / "r.tif", pixels, tiled=True, nodata=nodata)
    with rasterio.open(path, "r+") as dataset:
        dataset.build_overviews([2], Resampling.average)
    overwrite_overview(path, JUNK[junk]())
    found = resolved(store, path)
    low, high = np.percentile(pixels, (2, 98))
    assert found.low[0] == pytest.approx(low, rel=0.05)
    assert found.high[0] == pytest.approx(high, rel=0.05)


@pytest.mark.parametrize("how", [Resampling.nearest, Resampling.average, Resampling.cubic, Resampling.mode])
def test_a_healthy_overview_is_used(store: ObjectStore, tmp_path: Path, how: Resampling) -> None:
    pixels = scene()
    pixels[:, 500:900, 200:1800] = 0
    path = write(tmp_path / "r.tif", pixels, tiled=True, nodata=0)
    with rasterio.open(path, "r+") as dataset:
        dataset.build_overviews([2], how)
    found = resolved(store, path)
    with rasterio.open(path) as dataset:
        sample = dataset.read(1, out_shape=(1024, 1024))
    assert (found.low[0], found.high[0]) == tuple(np.percentile(sample[sample != 0], (2, 98)))


def test_valid_pixels_between_those_of_the_decimation(store: ObjectStore, tmp_path: Path) -> None:
    pixels = np.zeros((1, SIDE, SIDE), np.uint16)
    index = np.arange(SIDE, dtype=np.uint16).reshape(1, 1, SIDE)
    with rasterio.open(write(tmp_path / "index.tif", index, tiled=True)) as dataset:
        read = set(dataset.read(1, out_shape=(1, 1024))[0].tolist())
    missed = next(column for column in range(1000, SIDE) if column not in read)
    pixels[0, :, missed] = np.linspace(2000, 3000, SIDE)
    path = write(tmp_path / "r.tif", pixels, tiled=True, nodata=0)
    found = resolved(store, path)
    assert (found.low[0], found.high[0]) == tuple(np.percentile(pixels[0, :, missed], (2, 98)))


@pytest.mark.parametrize("bits", [2, 4, 7])
def test_pixels_of_few_bits(store: ObjectStore, tmp_path: Path, bits: int) -> None:
    pixels = np.random.default_rng(1).integers(0, 2**bits, (1, 60, 50)).astype(np.uint8)
    path = write(tmp_path / "r.tif", pixels, tiled=True, NBITS=bits, blockxsize=64, blockysize=64)
    with rasterio.open(path) as dataset:
        np.testing.assert_array_equal(dataset.read(window=Window(0, 0, 50, 60)), pixels)
    found = resolved(store, path)
    assert (found.low[0], found.high[0]) == (0, pixels.max())
    assert found.method == "uint8"
