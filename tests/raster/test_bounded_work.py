"""Small files that declare much more than they hold are refused at once, or read with little work."""

from __future__ import annotations

import struct
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from rasterio.windows import Window

from rasterembed.dataset.plan import PlanSettings, make_plan
from rasterembed.errors import DataError
from rasterembed.model.choice import Dinov3
from rasterembed.qa.coverage import read_overview
from rasterembed.raster.grid import Grid
from rasterembed.raster.profile import inspect_raster
from rasterembed.raster.radiometry import Radiometry, resolve_radiometry
from rasterembed.raster.source import register
from rasterembed.store.object_store import ObjectStore
from tests.support.rasters import PLACE
from tests.support.vectors import checkpoint

SECONDS = 30.0
"""Far above the time of the processor that a refusal takes, and far below the minutes of the work that is refused."""


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return ObjectStore(root=str(tmp_path / "store"))


@pytest.fixture(autouse=True)
def _in_seconds() -> Iterator[None]:
    start = time.process_time()
    yield
    assert time.process_time() - start < SECONDS


def image(
    width: int, height: int, tile: int, offsets: list[int], sizes: list[int], *, start: int, following: int = 0,
    kind: int = 0, compression: int = 8,
) -> bytes:  # fmt: skip
    """Return a TIFF directory of one grey image of tiles, and after it the index of its blocks.

    Args:
        width: columns.
        height: rows.
        tile: side of a tile, px.
        offsets: position of each block in the file.
        sizes: bytes of each block.
        start: position of the directory in the file.
        following: position of the next directory.
        kind: NewSubfileType.
        compression: 8 is deflate.
    """
    numbers = {254: kind, 256: width, 257: height, 258: 8, 259: compression, 262: 1, 277: 1, 322: tile, 323: tile}
    after = start + 2 + 12 * (len(numbers) + 2) + 4
    entries = b"".join(struct.pack("<HHII", code, 4, 1, value) for code, value in numbers.items())
    index = b""
    for code, values in ((324, offsets), (325, sizes)):
        place = values[0] if len(values) == 1 else after + len(index)
        entries += struct.pack("<HHII", code, 4, len(values), place)
        index += struct.pack(f"<{len(values)}I", *values) if len(values) > 1 else b""
    return struct.pack("<H", len(numbers) + 2) + entries + struct.pack("<I", following) + index


HEAD = b"II*\0" + struct.pack("<I", 8)


def test_two_thousand_million_declared_blocks(store: ObjectStore, tmp_path: Path) -> None:
    path = tmp_path / "r.tif"
    path.write_bytes(HEAD + image(700_000, 700_000, 16, [0], [0], start=8))
    assert path.stat().st_size < 286
    with pytest.raises(DataError, match=r"in 1914062500 blocks, but the file has an index of 1 blocks only"):
        inspect_raster(store, str(path), allow_no_crs=True)


def test_all_blocks_at_one_place(store: ObjectStore, tmp_path: Path) -> None:
    side = 4096
    block = zlib.compress(bytes(side * side), 9)
    blocks = 62 * 62
    place = 8 + len(image(1, 1, side, [0] * blocks, [0] * blocks, start=8))
    directory = image(62 * side, 62 * side, side, [place] * blocks, [len(block)] * blocks, start=8)
    path = tmp_path / "r.tif"
    path.write_bytes(HEAD + directory + block)
    with rasterio.open(path) as dataset:  # GDAL itself would read it
        assert dataset.read(1, window=Window(5 * side, 7 * side, 8, 8)).max() == 0
    with pytest.raises(DataError, match=r"its 3844 blocks of \d+ bytes together lie at the same places of a file of"):
        inspect_raster(store, str(path), allow_no_crs=True)


def test_some_blocks_at_one_place_are_read(store: ObjectStore, tmp_path: Path) -> None:
    """Programs that store equal blocks only once write such files."""
    block = zlib.compress(bytes(64 * 64), 9)
    place = 8 + len(image(1, 1, 64, [0] * 16, [0] * 16, start=8))
    path = tmp_path / "r.tif"
    path.write_bytes(HEAD + image(256, 256, 64, [place] * 16, [len(block)] * 16, start=8) + block)
    assert inspect_raster(store, str(path), allow_no_crs=True).width == 256


@pytest.mark.parametrize("kind", [1, 4])
def test_a_block_of_a_mask_or_an_overview_too_large_to_decode(store: ObjectStore, tmp_path: Path, kind: int) -> None:
    first = image(64, 64, 64, [0], [0], start=8, following=8 + len(image(64, 64, 64, [0], [0], start=8)))
    second = image(40_000, 40_000, 40_000, [0], [0], start=8 + len(first), kind=kind)
    path = tmp_path / "r.tif"
    path.write_bytes(HEAD + first + second)
    name = {1: "overview", 4: "mask"}[kind]
    with pytest.raises(DataError, match=rf"one block of its {name} is 40000x40000 px \(1\.5 GiB\)"):
        inspect_raster(store, str(path), allow_no_crs=True)


@pytest.mark.parametrize("compression", [1, 8])
def test_a_missing_block_too_large_to_decode(store: ObjectStore, tmp_path: Path, compression: int) -> None:
    path = tmp_path / "r.tif"
    path.write_bytes(HEAD + image(40_000, 40_000, 40_000, [0], [0], start=8, compression=compression))
    with pytest.raises(DataError, match=r"one block is 40000x40000 px \(1\.5 GiB\)"):
        inspect_raster(store, str(path), allow_no_crs=True)


def test_thousands_of_images(store: ObjectStore, tmp_path: Path) -> None:
    size = len(image(16, 16, 16, [0], [0], start=8))
    count = 20_000
    path = tmp_path / "r.tif"
    path.write_bytes(
        HEAD
        + b"".join(
            image(
                16,
                16,
                16,
                [0],
                [0],
                start=8 + i * size,
                following=(8 + (i + 1) * size) % (8 + count * size),
                kind=i > 0,
            )
            for i in range(count)
        )
    )
    with pytest.raises(DataError, match="it has more than 256 images"):
        inspect_raster(store, str(path), allow_no_crs=True)


def test_images_in_a_circle(store: ObjectStore, tmp_path: Path) -> None:
    path = tmp_path / "r.tif"
    path.write_bytes(HEAD + image(16, 16, 16, [0], [0], start=8, following=8))
    assert inspect_raster(store, str(path), allow_no_crs=True).width == 16


def small(path: Path, driver: str, **options: Any) -> bytearray:
    plain = path.with_suffix(".plain")
    with rasterio.open(plain, "w", driver="GTiff", width=64, height=64, count=1, dtype="uint8") as dataset:
        dataset.write(np.zeros((1, 64, 64), np.uint8))
    rasterio.shutil.copy(plain, path, driver=driver, **options)
    return bytearray(path.read_bytes())


def test_a_few_bytes_of_jpeg(store: ObjectStore, tmp_path: Path) -> None:
    path = tmp_path / "r.jpg"
    data = small(path, "JPEG")
    frame = data.index(b"\xff\xc0")
    data[frame + 5 : frame + 9] = struct.pack(">HH", 65_500, 65_500)
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"declares 65500x65500x1 px .* but the file has \d+ bytes only: it is damaged"):
        inspect_raster(store, str(path), allow_no_crs=True)


def test_a_few_bytes_of_jpeg_2000_in_one_tile(store: ObjectStore, tmp_path: Path) -> None:
    path = tmp_path / "r.jp2"
    data = small(path, "JP2OpenJPEG", CODEC="J2K")
    header = data.index(b"\xff\x51")
    for at in (6, 22):  # size of the image, size of a tile
        data[header + at : header + at + 8] = struct.pack(">II", 40_000, 40_000)
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"declares 40000x40000x1 px .* but the file has \d+ bytes only: it is damaged"):
        inspect_raster(store, str(path), allow_no_crs=True)


def test_a_few_bytes_of_png(store: ObjectStore, tmp_path: Path) -> None:
    path = tmp_path / "r.png"
    data = small(path, "PNG")
    chunk = b"IHDR" + struct.pack(">II", 65_500, 65_500) + data[24:29]
    data[12:33] = chunk + struct.pack(">I", zlib.crc32(chunk))
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"declares 65500x65500x1 px .* but the file has \d+ bytes only: it is damaged"):
        inspect_raster(store, str(path), allow_no_crs=True)


def test_an_overview_too_small_to_be_of_use(
    store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """GDAL cannot take it for the sample, and would decode all pixels."""
    path = tmp_path / "r.tif"
    header = {"driver": "GTiff", "width": 60_000, "height": 60_000, "count": 1, "dtype": "uint16"} | PLACE
    with rasterio.open(path, "w", sparse_ok=True, tiled=True, compress="deflate", **header) as dataset:
        dataset.write(np.full((1, 256, 256), 700, np.uint16), window=Window(0, 0, 256, 256))
    with rasterio.open(path, "r+") as dataset:
        dataset.build_overviews([3000])
    profile = inspect_raster(store, str(path))
    assert profile.overviews == (3000,)
    read, pixels = rasterio.DatasetReader.read, []

    def counted(self: Any, indexes: Any, *, window: Window, **options: Any) -> Any:
        pixels.append(window.width * window.height)
        return read(self, indexes, window=window, **options)

    monkeypatch.setattr("rasterio.DatasetReader.read", counted, raising=False)
    resolve_radiometry(store, str(path), profile, Radiometry())
    assert 0 < sum(pixels) <= 2**24

    # The quality checks do not read this overview either. They count the valid pixels of some tiles.
    settings = PlanSettings(
        grid=Grid(size=224),
        radiometry=Radiometry(range=(0, 1000)),
        model=Dinov3(model=str(checkpoint(tmp_path / "model", 8))),
    )
    plan = make_plan(store, register(store, str(path)), "large", settings)
    pixels.clear()
    assert read_overview(store, plan) is None
    assert pixels == []
