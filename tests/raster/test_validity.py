"""Which pixels are valid: the reader agrees with the masks of GDAL, read through rasterio."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from numpy.typing import NDArray
from rasterio.windows import Window

from rasterembed.raster.pixels import open_pixels
from rasterembed.raster.profile import inspect_raster
from rasterembed.raster.radiometry import Radiometry, resolve_radiometry
from rasterembed.store.object_store import ObjectStore
from tests.support.rasters import write


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return ObjectStore(root=str(tmp_path / "store"))


def validity(store: ObjectStore, path: Path, bands: tuple[int, ...]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return the validity of pixels, and of each band."""
    profile = inspect_raster(store, str(path), allow_no_crs=True)
    window = Window(0, 0, profile.width, profile.height)
    with open_pixels(store, str(path), profile) as raster:
        return raster.read(bands, window)[1], raster.read_by_band(bands, window)[1]


def check(store: ObjectStore, path: Path, bands: tuple[int, ...] = (1,)) -> None:
    with rasterio.open(path) as dataset:
        masks = dataset.read_masks(list(bands)) > 0
    valid, by_band = validity(store, path, bands)
    np.testing.assert_array_equal(valid, masks.any(axis=0))
    np.testing.assert_array_equal(by_band, masks)


@pytest.mark.parametrize("dtype", ["int64", "uint64"])
def test_nodata_beyond_the_integers_of_float64(store: ObjectStore, tmp_path: Path, dtype: str) -> None:
    near = 2**53
    pixels = np.array([[[near - 1, near, near + 1, near + 2, 7, 0]]] * 2, dtype)
    path = write(tmp_path / "r.tif", pixels, nodata=near)
    # rasterio writes a rounded value, so the text in the header is changed.
    path.write_bytes(path.read_bytes().replace(b"9007199254740992\0", b"9007199254740993\0"))
    with rasterio.open(path) as dataset:
        assert (dataset.read_masks(1)[0] > 0).tolist() == [True, True, False, True, True, True]
    check(store, path, (1, 2))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    "nodata", [-9999.0, 9999.0, 0.1, -3.4028234663852886e38, 3.4e38, 1e-40, 1e-3, 0.0, -32768.0, 255.0]
)
def test_floating_point_nodata_a_little_off_the_pixels(
    store: ObjectStore, tmp_path: Path, dtype: str, nodata: float
) -> None:
    value = np.array(nodata, dtype)
    steps, up, down = [value], value, value
    for _ in range(12):
        with np.errstate(over="ignore"):
            up, down = (np.nextafter(v, np.array(end, dtype)) for v, end in ((up, np.inf), (down, -np.inf)))
        steps += [v for v in (up, down) if np.isfinite(v)]
    for share in (1e-8, 1e-7, 4e-7, 4.7e-7, 4.8e-7, 6e-7, 1e-6, 1e-3):
        steps += [value * np.array(1 - share, dtype), value * np.array(1 - share, dtype), -value]
    pixels = np.array([steps], dtype)[np.newaxis]
    check(store, write(tmp_path / "r.tif", pixels, nodata=nodata))


def test_nodata_in_one_band_only(store: ObjectStore, tmp_path: Path) -> None:
    pixels = np.random.default_rng(3).uniform(100, 200, (3, 40, 50)).astype(np.float32)
    pixels[1, 10:30, :20] = -9999
    path = write(tmp_path / "r.tif", pixels, nodata=-9999)
    check(store, path, (1, 2, 3))
    found = resolve_radiometry(store, str(path), inspect_raster(store, str(path)), Radiometry())
    with rasterio.open(path) as dataset:
        masks = dataset.read_masks() > 0
    for band in range(3):
        assert (found.low[band], found.high[band]) == tuple(np.percentile(pixels[band][masks[band]], (2, 98)))
    assert min(found.low) > 100


@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int16", "int32", "uint32", "int64", "float32"])
def test_ordinary_nodata(store: ObjectStore, tmp_path: Path, dtype: str) -> None:
    pixels = np.random.default_rng(3).integers(0, 3, (3, 40, 50)).astype(dtype)
    check(store, write(tmp_path / "r.tif", pixels, nodata=0), (3, 1))


MASKS = np.random.default_rng(5).integers(0, 2, (3, 40, 50)).astype(np.uint8) * 255


@pytest.mark.parametrize("driver", ["GTiff", "PNG"])
@pytest.mark.parametrize(
    ("flags", "masks"),
    [("000", MASKS), ("222", MASKS), ("222", MASKS[:1]), ("20-", MASKS), ("-0-", MASKS), ("2--", MASKS[:1])],
)
def test_a_mask_file(store: ObjectStore, tmp_path: Path, driver: str, flags: str, masks: NDArray[Any]) -> None:
    """Flag 0: the band has a mask of its own. Flag 2: the first mask is that of all bands. "-": no flag, no mask."""
    path = write(tmp_path / "r", np.full((3, 40, 50), 7, np.uint8), driver=driver)
    write(tmp_path / "m.tif", masks)
    with rasterio.open(tmp_path / "m.tif", "r+") as dataset:
        for band, flag in enumerate(flags, start=1):
            if flag != "-":
                dataset.update_tags(**{f"INTERNAL_MASK_FLAGS_{band}": flag})
    (tmp_path / "m.tif").rename(tmp_path / "r.msk")
    for bands in ((1, 2, 3), (2,), (3, 1)):
        check(store, path, bands)


def test_a_mask_of_each_band_inside_the_file(store: ObjectStore, tmp_path: Path) -> None:
    path = write(tmp_path / "r.tif", np.full((3, 40, 50), 7, np.uint8))
    write(tmp_path / "m.tif", MASKS, photometric="minisblack", alpha="no", interleave="pixel")
    append_mask(path, tmp_path / "m.tif")
    with rasterio.open(path) as dataset:
        assert dataset.mask_flag_enums == ([], [], [])
    for bands in ((1, 2, 3), (2,), (3, 1)):
        check(store, path, bands)


def append_mask(path: Path, mask: Path) -> None:
    """Make the only image of a TIFF the mask of another TIFF. Both have one image and little-endian words."""
    data, other = bytearray(path.read_bytes()), bytearray(mask.read_bytes())
    shift = len(data)
    (first,) = struct.unpack_from("<I", data, 4)
    (entries,) = struct.unpack_from("<H", data, first)
    struct.pack_into("<I", data, first + 2 + 12 * entries, 0)
    (start,) = struct.unpack_from("<I", other, 4)
    (count,) = struct.unpack_from("<H", other, start)
    tags = [struct.unpack_from("<HHI4s", other, start + 2 + 12 * i) for i in range(count)]
    sizes = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 12: 8}
    new = [(254, 4, 1, struct.pack("<I", 4))]  # NewSubfileType: a mask
    for code, kind, number, value in tags:
        if code in (254, 33550, 33922, 34735, 34736, 34737):
            continue
        if number * sizes[kind] > 4:  # The value is a position.
            value = struct.pack("<I", struct.unpack("<I", value)[0] + shift)
            if code == 273:
                (at,) = struct.unpack("<I", value)
                offsets = struct.unpack_from(f"<{number}I", other, at - shift)
                struct.pack_into(f"<{number}I", other, at - shift, *(offset + shift for offset in offsets))
        elif code == 273:
            value = struct.pack("<I", struct.unpack("<I", value)[0] + shift)
        new.append((code, kind, number, value))
    place = shift + len(other)
    struct.pack_into("<I", data, first + 2 + 12 * entries, place)
    ifd = struct.pack("<H", len(new)) + b"".join(struct.pack("<HHI4s", *tag) for tag in new) + bytes(4)
    path.write_bytes(bytes(data) + bytes(other) + ifd)


@pytest.mark.parametrize("value", [0.0, -5.0, 1e7, 3e8, -1e16, 3e38])
def test_a_huge_constant_has_a_black_and_a_white(store: ObjectStore, tmp_path: Path, value: float) -> None:
    """Also with the float32 of a network, where 1 is lost beside a large number."""
    path = write(tmp_path / "r.tif", np.full((1, 40, 50), value, np.float32))
    found = resolve_radiometry(store, str(path), inspect_raster(store, str(path)), Radiometry())
    low, high = np.float32(found.low[0]), np.float32(found.high[0])
    assert low == np.float32(value)
    assert np.isfinite(1 / (high - low))
    assert high - low <= max(1, abs(value) / 1000)


def test_a_palette_with_several_transparent_colours(store: ObjectStore, tmp_path: Path) -> None:
    pixels = (np.arange(32) % 4).reshape(4, 8).astype(np.uint8)
    alpha = np.array([0, 255, 0, 128], np.uint8)

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    path = tmp_path / "r.png"
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", 8, 4, 8, 3, 0, 0, 0))
        + chunk(b"PLTE", bytes(range(12)))
        + chunk(b"tRNS", alpha.tobytes())
        + chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row.tobytes() for row in pixels)))
        + chunk(b"IEND", b"")
    )
    profile = inspect_raster(store, str(path), allow_no_crs=True)
    with open_pixels(store, str(path), profile) as raster:
        _, valid = raster.read((1,), Window(0, 0, 8, 4))
    np.testing.assert_array_equal(valid, alpha[pixels] > 0)
