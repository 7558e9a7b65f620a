"""JPEG files of every kind that the standard allows are read, and one that it does not allow is refused.

The standard is ITU-T T.81. Its table B.3 gives the parameters of a scan (Ss, Se, Ah and Al). A file of one scan for all
coefficients has 0, 63, 0 and 0. The scans of a progressive file have others.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from numpy.typing import NDArray
from PIL import Image
from rasterio.errors import RasterioIOError
from rasterio.windows import Window

from rasterembed.raster.pixels import open_pixels
from rasterembed.raster.profile import inspect_raster
from rasterembed.store.object_store import ObjectStore

SIDE = 120


def waves() -> NDArray[np.uint8]:
    """Return a picture of smooth colours, shape (rows, columns, 3)."""
    y, x = np.mgrid[0:SIDE, 0:SIDE]
    return np.stack([127 + 100 * np.sin(x / a + y / b) for a, b in ((9, 20), (25, 7), (14, 14))], -1).astype(np.uint8)


def by_pillow(path: Path, mode: str = "RGB", **options: Any) -> Path:
    Image.fromarray(waves()).convert(mode).save(path, "JPEG", quality=95, subsampling=0, **options)
    return path


def by_gdal(path: Path, dtype: str = "uint8", **options: Any) -> Path:
    pixels = waves().transpose(2, 0, 1).astype(dtype) * (16 if dtype == "uint16" else 1)
    size = {"driver": "JPEG", "height": SIDE, "width": SIDE, "count": 3, "dtype": dtype, "QUALITY": 95}
    with rasterio.open(path, "w", **size, **options) as file:
        file.write(pixels)
    return path


def read(path: Path) -> NDArray[np.generic]:
    """Return all pixels, as shards read them."""
    store = ObjectStore(root=str(path.parent / "store"))
    profile = inspect_raster(store, str(path), allow_no_crs=True)
    with open_pixels(store, str(path), profile) as raster:
        pixels, _ = raster.read(tuple(range(1, profile.count + 1)), Window(0, 0, SIDE, SIDE))
    return pixels


def scans(path: Path) -> list[tuple[int, int, int]]:
    """Return Ss, Se and the byte of Ah and Al of each scan of a file without other data that looks like a scan."""
    parts = path.read_bytes().split(b"\xff\xda")[1:]
    ends = [part[: int.from_bytes(part[:2], "big")][-3:] for part in parts]
    return [(end[0], end[1], end[2]) for end in ends]


@pytest.mark.parametrize(
    ("mode", "options"),
    [
        ("RGB", {}),
        ("RGB", {"progressive": True}),
        ("RGB", {"progressive": True, "restart_marker_rows": 1}),
        ("RGB", {"restart_marker_blocks": 5}),
        ("RGB", {"keep_rgb": True}),
        ("RGB", {"comment": b"made by hand", "icc_profile": bytes(70_000)}),
        ("L", {"progressive": True}),
        ("CMYK", {}),
        ("CMYK", {"progressive": True}),
    ],
)
@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_files_of_pillow_are_read(mode: str, options: dict[str, Any], tmp_path: Path) -> None:
    path = by_pillow(tmp_path / "r.jpg", mode, **options)
    assert (len(scans(path)) > 1) == options.get("progressive", False)
    if options.get("progressive"):
        assert {(start, end) for start, end, _ in scans(path)} >= {(0, 0), (1, 63)}
    if mode == "CMYK":
        assert b"Adobe" in path.read_bytes()
    with Image.open(path) as image:
        expected = np.atleast_3d(np.asarray(image.convert("L" if mode == "L" else "RGB"))).transpose(2, 0, 1)
    np.testing.assert_allclose(read(path).astype(int), expected.astype(int), atol=2)


@pytest.mark.parametrize(
    ("dtype", "options"), [("uint8", {}), ("uint8", {"PROGRESSIVE": "YES"}), ("uint16", {"NBITS": 12})]
)
@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_files_of_gdal_are_read(dtype: str, options: dict[str, Any], tmp_path: Path) -> None:
    path = by_gdal(tmp_path / "r.jpg", dtype, **options)
    pixels = read(path)
    assert pixels.dtype == dtype
    depth = 16 if dtype == "uint16" else 1
    difference = pixels.astype(int) - depth * waves().transpose(2, 0, 1).astype(int)
    assert np.abs(difference).mean() < 6 * depth


def test_a_file_with_three_zeros_in_its_scan_is_refused(tmp_path: Path) -> None:
    """Some programs write them. The warning of libjpeg about them would be the only one that GDAL passes on."""
    path = by_pillow(tmp_path / "r.jpg")
    (scan,) = scans(path)
    assert scan == (0, 63, 0)
    head, _, rest = path.read_bytes().partition(b"\xff\xda")
    length = int.from_bytes(rest[:2], "big")
    path.write_bytes(head + b"\xff\xda" + rest[: length - 3] + bytes(3) + rest[length:])
    with pytest.raises(RasterioIOError) as error:
        read(path)
    assert "Invalid SOS parameters for sequential JPEG" in str(error.value.__cause__)
