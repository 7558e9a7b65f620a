"""A file that was cut off by an interrupted upload is refused, or gives all pixels of the whole file."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from numpy.typing import NDArray
from rasterio.errors import RasterioError
from rasterio.windows import Window

from rasterembed.errors import DataError
from rasterembed.raster.pixels import open_pixels
from rasterembed.raster.profile import inspect_raster
from rasterembed.store.object_store import ObjectStore
from tests.support.rasters import PLACE

WIDTH, HEIGHT = 400, 300


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return ObjectStore(root=str(tmp_path / "store"))


def noise() -> NDArray[np.uint8]:
    return np.random.default_rng(1).integers(1, 255, (3, HEIGHT, WIDTH), dtype=np.uint8)


def write(path: Path, **options: Any) -> Path:
    """Write a raster of noise, by any driver."""
    driver = options.pop("driver", "GTiff")
    plain = path.with_suffix(".plain")
    header = {"driver": "GTiff", "width": WIDTH, "height": HEIGHT, "count": 3, "dtype": "uint8"} | PLACE
    with rasterio.open(plain, "w", **(header | (options if driver == "GTiff" else {}))) as dataset:
        dataset.write(noise())
    if driver == "GTiff":
        return plain.rename(path)
    rasterio.shutil.copy(plain, path, driver=driver, **options)
    return path


def cut(whole: Path, size: int) -> Path:
    path = whole.with_name(f"cut-{size}.bin")
    path.write_bytes(whole.read_bytes()[:size])
    return path


def read(store: ObjectStore, path: Path) -> NDArray[Any]:
    """Read all pixels as shards do."""
    profile = inspect_raster(store, str(path), allow_no_crs=True)
    with open_pixels(store, str(path), profile) as raster:
        pixels, _ = raster.read((1, 2, 3), Window(0, 0, profile.width, profile.height))
        return pixels


TIFF: dict[str, dict[str, Any]] = {
    "plain strips": {},
    "plain strips by band": {"interleave": "band"},
    "plain tiles": {"tiled": True, "blockxsize": 64, "blockysize": 64},
    "plain strips, BigTIFF, big-endian": {"bigtiff": "YES", "endianness": "big"},
    "deflated strips": {"compress": "deflate"},
    "zstd tiles": {"compress": "zstd", "tiled": True, "blockxsize": 128, "blockysize": 128},
    "JPEG tiles": {"compress": "jpeg", "tiled": True, "blockxsize": 128, "blockysize": 128, "photometric": "ycbcr"},
    "COG": {"driver": "COG", "compress": "lzw", "blocksize": 128},
}
OTHERS: dict[str, dict[str, Any]] = {
    "PNG": {"driver": "PNG"},
    "JPEG": {"driver": "JPEG"},
    "progressive JPEG": {"driver": "JPEG", "PROGRESSIVE": "YES"},
    "JPEG 2000": {"driver": "JP2OpenJPEG"},
    "JPEG 2000, lossless": {"driver": "JP2OpenJPEG", "QUALITY": "100", "REVERSIBLE": "YES"},
    "JPEG 2000, no boxes": {"driver": "JP2OpenJPEG", "CODEC": "J2K"},
}
PLACES = {"10 %": 0.1, "50 %": 0.5, "90 %": 0.9, "last byte": 1.0}


def position(size: int, place: str) -> int:
    return min(int(size * PLACES[place]), size - 1)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("kind", [*TIFF, *OTHERS])
def test_a_file_cut_off_is_refused_or_whole(store: ObjectStore, tmp_path: Path, kind: str, place: str) -> None:
    whole = write(tmp_path / "whole.bin", **(TIFF | OTHERS)[kind])
    part = cut(whole, position(whole.stat().st_size, place))
    with rasterio.open(whole) as dataset:
        expected = dataset.read()
    try:
        found = read(store, part)
    except (DataError, RasterioError):
        return
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("kind", TIFF)
def test_a_tiff_cut_off_is_refused_by_its_header(store: ObjectStore, tmp_path: Path, kind: str, place: str) -> None:
    whole = write(tmp_path / "whole.bin", **TIFF[kind])
    size = whole.stat().st_size
    part = cut(whole, position(size, place))
    message = ""
    try:
        inspect_raster(store, str(part))
    except DataError as error:
        message = str(error)
    if not message:
        # The last bytes can be padding, or the count of a block in GDAL's own format.
        assert place == "last byte"
        with rasterio.open(whole) as dataset:
            np.testing.assert_array_equal(read(store, part), dataset.read())
        return
    match = re.search(r"the file is cut off: it has (\d+) bytes and needs at least (\d+): upload it again", message)
    assert match, message
    assert int(match[1]) == part.stat().st_size < int(match[2]) <= size


@pytest.mark.parametrize("internal", [True, False])
def test_a_mask_cut_off_is_refused(store: ObjectStore, tmp_path: Path, internal: bool) -> None:
    whole = write(tmp_path / "whole.tif")
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=internal), rasterio.open(whole, "r+") as dataset:
        dataset.write_mask(np.random.default_rng(2).integers(0, 2, (HEIGHT, WIDTH), dtype=np.uint8) * 255)
    file = whole if internal else Path(f"{whole}.msk")
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(DataError, match="the file is cut off"):
        inspect_raster(store, str(whole))


def test_an_overview_cut_off_is_refused(store: ObjectStore, tmp_path: Path) -> None:
    whole = write(tmp_path / "whole.tif")
    before = whole.stat().st_size
    with rasterio.open(whole, "r+") as dataset:
        dataset.build_overviews([2, 4])
    data = whole.read_bytes()
    whole.write_bytes(data[: (before + len(data)) // 2])
    with pytest.raises(DataError, match="the file is cut off"):
        inspect_raster(store, str(whole))


def test_half_of_a_striped_file_has_no_pixel_of_old_memory(store: ObjectStore, tmp_path: Path) -> None:
    """GDAL's fastest way of reading gives such pixels without an error."""
    whole = write(tmp_path / "whole.tif")
    part = cut(whole, whole.stat().st_size // 2)
    with rasterio.Env(GTIFF_DIRECT_IO=True), rasterio.open(part) as dataset:
        dataset.read()
    with pytest.raises(DataError, match="the file is cut off"):
        inspect_raster(store, str(part))


def test_sparse_files_are_whole(store: ObjectStore, tmp_path: Path) -> None:
    path = tmp_path / "sparse.tif"
    header = {"width": 512, "height": 512, "count": 3, "dtype": "uint8", "sparse_ok": True} | PLACE
    with rasterio.open(path, "w", tiled=True, blockxsize=128, blockysize=128, **header) as dataset:
        dataset.write(noise()[:, :128, :128], window=Window(128, 256, 128, 128))
    with rasterio.open(path) as dataset:
        np.testing.assert_array_equal(read(store, path), dataset.read())


def test_every_real_raster_is_whole(rasters: Path, store: ObjectStore) -> None:
    for path in sorted(rasters.glob("*.tif")):
        inspect_raster(store, str(path), allow_no_crs=True)
