"""Compare the reader with plain rasterio windows, on rasters of every layout, and test what it refuses."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import rasterio
import rasterio.shutil
from numpy.typing import NDArray
from rasterio.io import DatasetReader
from rasterio.windows import Window

from rasterembed.dataset.manifest import Manifest
from rasterembed.dataset.selection import Selection
from rasterembed.errors import ConfigurationChangedError, DataError
from rasterembed.model.choice import Dinov3
from rasterembed.raster.grid import Grid, Tiles, tile_id
from rasterembed.raster.profile import inspect_raster
from rasterembed.raster.radiometry import palette_table
from rasterembed.raster.read_ahead import read_ahead
from rasterembed.raster.shard_reader import ShardReader, block_cache_bytes
from rasterembed.raster.sharding import plan_shards
from rasterembed.raster.source import register
from rasterembed.raster.tile_batch import TileBatch
from rasterembed.store.object_store import ObjectStore
from tests.support.embedding import embed
from tests.support.proxy import proxy_before
from tests.support.rasters import PLACE, write
from tests.support.servers import S3Server
from tests.support.stores import at

WIDTH, HEIGHT = 300, 210


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return ObjectStore(root=str(tmp_path / "store"))


def noise(count: int, dtype: str, *, height: int = HEIGHT, width: int = WIDTH, seed: int = 1) -> NDArray[Any]:
    """Return smooth waves with noise, without zeros."""
    rng = np.random.default_rng(seed)
    rows, cols = np.mgrid[0:height, 0:width]
    waves = [np.sin(rows / (9 + band)) * np.cos(cols / (13 + band)) for band in range(count)]
    values = 120 + 80 * np.array(waves) + rng.normal(0, 8, (count, height, width))
    return np.clip(values, 1, 255).astype(dtype)


@dataclass(frozen=True)
class Read:
    """Everything that the reader gave for a whole raster."""

    pixels: dict[str, NDArray[Any]]
    valid: dict[str, NDArray[np.bool_]]
    valid_fraction: dict[str, float]
    skipped: dict[str, str]
    batch_sizes: list[int]


def shard_reader(store: ObjectStore, path: Path | str, grid: Grid, **options: Any) -> ShardReader:
    source = register(store, str(path))
    profile = inspect_raster(store, source.uri, allow_no_crs=True)
    sharding = plan_shards(grid, profile, options.pop("shard_tiles", 2048))
    defaults: dict[str, Any] = {
        "bands": (1, 2, 3) if profile.count >= 3 else (1,),
        "palette": None,
        "batch_size": 4,
        "min_valid_fraction": 0.05,
        "on_bad_window": "fail",
        "cache_bytes": block_cache_bytes(source, profile, sharding, 1),
    }
    return ShardReader(store=store, source=source, profile=profile, sharding=sharding, **(defaults | options))


def read_all(reader: ShardReader) -> Read:
    result = Read({}, {}, {}, {}, [])
    for number in range(reader.sharding.count):
        names = reader.sharding.tiles(number).ids()
        before = -1
        for batch in reader.batches(number):
            assert np.all(np.diff([before, *batch.positions]) > 0)  # tile order
            before = [before, *batch.positions][-1]
            result.skipped.update({str(names[tile.position]): tile.reason for tile in batch.skipped})
            result.batch_sizes.append(len(batch.positions))
            for i, position in enumerate(batch.positions):
                name = str(names[position])
                result.pixels[name], result.valid[name] = batch.pixels[i], batch.valid[i]
                result.valid_fraction[name] = float(batch.valid_fraction[i])
    return result


def plain_windows(grid: Grid, width: int, height: int) -> dict[str, Window]:
    """Return the windows of the tiles, counted out one by one."""
    size, step = grid.size, grid.stride or grid.size

    def offsets(length: int) -> list[int]:
        if grid.edge == "drop":
            return list(range(0, length - size + 1, step))
        found = [0]
        while found[-1] + size < length and found[-1] + step < length:
            found.append(found[-1] + step)
        if grid.edge == "shift":
            found = [min(offset, max(length - size, 0)) for offset in found]
        return found

    return {
        tile_id(row, col): Window(left, top, min(size, width - left), min(size, height - top))
        for row, top in enumerate(offsets(height))
        for col, left in enumerate(offsets(width))
    }


def check_all(reader: ShardReader, path: Path) -> Read:
    """Check that every batch equals plain windows of the file and its dataset mask, and return what was read."""
    found = read_all(reader)
    size = reader.sharding.grid.size
    with rasterio.open(path) as dataset:
        windows = plain_windows(reader.sharding.grid, dataset.width, dataset.height)
        assert found.pixels.keys() | found.skipped.keys() == windows.keys()
        for name, window in windows.items():
            mask = dataset.dataset_mask(window=window) > 0
            if name in found.skipped:
                assert mask.mean() < reader.min_valid_fraction
                continue
            pixels = dataset.read(list(reader.bands), window=window)
            rows, cols = mask.shape
            np.testing.assert_array_equal(found.pixels[name][:, :rows, :cols], pixels)
            np.testing.assert_array_equal(found.valid[name][:rows, :cols], mask)
            assert found.pixels[name].shape == (len(reader.bands), size, size)
            assert found.pixels[name].dtype == pixels.dtype
            assert not found.valid[name][rows:].any()
            assert not found.valid[name][:, cols:].any()
            assert not found.pixels[name][:, rows:].any()
            assert not found.pixels[name][:, :, cols:].any()
            assert found.valid_fraction[name] == np.float32(mask.mean())
    return found


LAYOUTS: dict[str, tuple[int, str, dict[str, Any]]] = {
    "striped": (3, "uint8", {"interleave": "pixel"}),
    "striped by band": (3, "uint8", {"interleave": "band", "blockysize": 7}),
    "one strip": (3, "uint8", {"blockysize": HEIGHT, "compress": "deflate"}),
    "tiled": (3, "uint8", {"tiled": True, "blockxsize": 64, "blockysize": 32, "interleave": "pixel"}),
    "tiled by band": (3, "uint16", {"tiled": True, "blockxsize": 64, "blockysize": 64, "interleave": "band"}),
    "jpeg": (
        3,
        "uint8",
        {"tiled": True, "blockxsize": 128, "blockysize": 128, "compress": "jpeg", "photometric": "YCbCr"},
    ),
    "lzw strips": (3, "int16", {"compress": "lzw", "predictor": 2, "blockysize": 1}),
    "deflate": (1, "float32", {"tiled": True, "blockxsize": 128, "blockysize": 64, "compress": "deflate"}),
    "zstd": (4, "float64", {"tiled": True, "blockxsize": 64, "blockysize": 64, "compress": "zstd"}),
    "two bands": (2, "uint8", {}),
    "31 bands": (31, "uint16", {"tiled": True, "blockxsize": 64, "blockysize": 64, "interleave": "pixel"}),
    "8 bits with a sign": (1, "int8", {}),
    "32 bits": (1, "uint32", {}),
    "64 bits": (1, "int64", {}),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(store: ObjectStore, tmp_path: Path, layout: str) -> None:
    count, dtype, options = LAYOUTS[layout]
    path = write(tmp_path / "r.tif", noise(count, dtype), **options)
    found = check_all(shard_reader(store, path, Grid(size=64)), path)
    assert len(found.pixels) == 4 * 5
    assert found.batch_sizes == [4, 4, 4, 4, 4]


def test_a_tall_compressed_strip_is_read_line_by_line(store: ObjectStore, tmp_path: Path) -> None:
    path = write(tmp_path / "r.tif", noise(1, "uint8", height=2100), compress="deflate", blockysize=2100)
    reader = shard_reader(store, path, Grid(size=256))
    assert reader.profile.block_height == 1  # as GDAL presents it: one strip is never decoded whole
    assert len(check_all(reader, path).pixels) == 18


GRIDS = {
    "touching": Grid(size=64),
    "overlapping": Grid(size=64, stride=24),
    "small gaps": Grid(size=48, stride=60),
    "wide gaps": Grid(size=32, stride=90),
    "shifted": Grid(size=64, edge="shift"),
    "shifted, overlapping": Grid(size=64, stride=50, edge="shift"),
    "whole only": Grid(size=64, edge="drop"),
    "larger than the raster": Grid(size=512),
    "larger than the raster, shifted": Grid(size=512, edge="shift"),
    "a last tile that would begin outside": Grid(size=16, stride=105),
}


@pytest.mark.parametrize("shard_tiles", [2048, 6])
@pytest.mark.parametrize("interleave", ["pixel", "band"])
@pytest.mark.parametrize("grid", GRIDS)
def test_grids(store: ObjectStore, tmp_path: Path, grid: str, interleave: str, shard_tiles: int) -> None:
    pixels = noise(3, "uint8")
    pixels[:, :100, 60:150] = 0
    options = {"tiled": True, "blockxsize": 64, "blockysize": 64, "nodata": 0, "interleave": interleave}
    path = write(tmp_path / "r.tif", pixels, **options)
    check_all(shard_reader(store, path, GRIDS[grid], shard_tiles=shard_tiles), path)


@pytest.mark.parametrize("grid", GRIDS)
def test_grids_of_a_raster_in_a_bucket(
    tmp_path: Path, moto: S3Server, bucket: str, monkeypatch: pytest.MonkeyPatch, grid: str
) -> None:
    """From a bucket, a read covers several rows of tiles."""
    monkeypatch.setattr("rasterembed.raster.shard_reader.MAX_RUN_BYTES", 3 * WIDTH * 150)
    path = write(tmp_path / "r.tif", noise(3, "uint8"), tiled=True, blockxsize=64, blockysize=64)
    moto.create_bucket(bucket)
    moto.client().upload_file(str(path), bucket, "r.tif")
    calls = counted_reads(monkeypatch)
    reader = shard_reader(at(moto, bucket), f"s3://{bucket}/r.tif", GRIDS[grid])
    check_all(reader, path)
    if grid == "touching":
        assert [window for window in calls if window.width == WIDTH] == [
            Window(0, top, WIDTH, min(128, HEIGHT - top)) for top in range(0, HEIGHT, 128)
        ]


def test_a_row_longer_than_one_read(store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rasterembed.raster.shard_reader.MAX_RUN_BYTES", 2 * 64 * 64 * 3)
    path = write(tmp_path / "r.tif", noise(3, "uint8"))
    calls = counted_reads(monkeypatch)
    check_all(reader := shard_reader(store, path, Grid(size=64)), path)
    assert [window for window in calls if window.width > 64] == [
        Window(left, top, min(128, WIDTH - left), min(64, HEIGHT - top))
        for top in range(0, HEIGHT, 64)
        for left in (0, 128)
    ]
    assert reader.sharding.count == 1


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32", "float64"])
def test_nodata_in_all_bands_or_in_some(store: ObjectStore, tmp_path: Path, dtype: str) -> None:
    pixels = noise(3, dtype)
    pixels[:, 20:90, 30:100] = 7
    pixels[0, 100:, 200:] = 7  # one band alone: still a colour
    path = write(tmp_path / "r.tif", pixels, nodata=7)
    found = check_all(shard_reader(store, path, Grid(size=64)), path)
    assert found.valid_fraction["r000000_c000000"] < 1
    assert found.valid["r000002_c000004"][:64, :44].all()
    assert found.skipped == {}


def test_nodata_beyond_the_type_is_no_nodata(store: ObjectStore, tmp_path: Path) -> None:
    path = write(tmp_path / "r.tif", noise(1, "int16"), nodata=-9999)
    with rasterio.open(path, "r+") as dataset:
        dataset.nodata = -32768
    found = check_all(shard_reader(store, path, Grid(size=64)), path)
    assert min(found.valid_fraction.values()) == 1


@pytest.mark.parametrize("nodata", [float("nan"), -9999.0, -3.4028234663852886e38, 3.4e38])
def test_not_a_number_is_never_valid(store: ObjectStore, tmp_path: Path, nodata: float) -> None:
    pixels = noise(1, "float32")
    pixels[0, :70, :70] = nodata
    pixels[0, 100:150, 100:200] = np.nan
    path = write(tmp_path / "r.tif", pixels, nodata=nodata)
    found = read_all(shard_reader(store, path, Grid(size=64)))
    assert found.skipped == {"r000000_c000000": "no_valid_pixel"}
    for name, window in plain_windows(Grid(size=64), WIDTH, HEIGHT).items():
        rows, cols = window.toslices()
        part = pixels[0, rows, cols]
        expected = np.isfinite(part) & (part != np.float32(nodata))
        if name not in found.skipped:
            np.testing.assert_array_equal(found.valid[name][: part.shape[0], : part.shape[1]], expected)


def test_a_pixel_with_one_band_not_a_number_is_invalid(store: ObjectStore, tmp_path: Path) -> None:
    pixels = noise(3, "float32")
    pixels[1, 10, 20], pixels[2, 11, 21] = np.nan, np.inf
    found = read_all(shard_reader(store, write(tmp_path / "r.tif", pixels), Grid(size=64)))
    invalid = np.argwhere(~found.valid["r000000_c000000"])
    assert invalid.tolist() == [[10, 20], [11, 21]]


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_alpha(store: ObjectStore, tmp_path: Path, dtype: str) -> None:
    pixels = noise(4, dtype)
    pixels[3] = np.where(np.add.outer(np.arange(HEIGHT), np.arange(WIDTH)) > 120, np.iinfo(dtype).max, 0)
    pixels[3, :, -5:] = 1  # all but transparent is not transparent
    path = write(tmp_path / "r.tif", pixels, photometric="RGB", alpha="YES")
    found = check_all(shard_reader(store, path, Grid(size=64)), path)
    assert found.skipped == {"r000000_c000000": "low_valid_fraction"}


def test_grey_and_alpha(store: ObjectStore, tmp_path: Path) -> None:
    pixels = noise(2, "uint8")
    pixels[1] = np.where(np.arange(WIDTH) > 40, 255, 0)
    path = write(tmp_path / "r.tif", pixels, alpha="YES")
    assert check_all(shard_reader(store, path, Grid(size=64)), path).valid_fraction["r000000_c000000"] < 0.5


@pytest.mark.parametrize("internal", [True, False])
@pytest.mark.parametrize("nodata", [None, 3])
def test_masks(store: ObjectStore, tmp_path: Path, internal: bool, nodata: int | None) -> None:
    pixels = noise(3, "uint8")
    mask = np.hypot(*np.mgrid[-105:105, -150:150]) < 100
    pixels[:, 100:110, 100:110] = 3
    path = write(tmp_path / "r.tif", pixels, nodata=nodata, tiled=True, blockxsize=64, blockysize=64)
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=internal), rasterio.open(path, "r+") as dataset:
        dataset.write_mask(mask)
    assert Path(f"{path}.msk").exists() == (not internal)
    found = read_all(shard_reader(store, path, Grid(size=64)))
    expected = mask & ((pixels != 3).any(axis=0) if nodata else True)
    for name, window in plain_windows(Grid(size=64), WIDTH, HEIGHT).items():
        part = expected[window.toslices()]
        if name in found.skipped:
            assert part.mean() < 0.05
        else:
            np.testing.assert_array_equal(found.valid[name][: part.shape[0], : part.shape[1]], part)
    assert "r000000_c000000" in found.skipped


def test_one_colour_that_stands_for_no_data(store: ObjectStore, tmp_path: Path) -> None:
    pixels = noise(3, "uint8")
    pixels[:, :40] = np.array([9, 8, 7], np.uint8)[:, None, None]
    pixels[0, 50] = 9
    path = write(tmp_path / "r.tif", pixels)
    with rasterio.open(path, "r+") as dataset:
        dataset.update_tags(NODATA_VALUES="9 8 7")
    found = check_all(shard_reader(store, path, Grid(size=64)), path)
    assert found.valid_fraction["r000000_c000000"] == 24 / 64


def test_a_mask_file_that_does_not_fit_is_refused(store: ObjectStore, tmp_path: Path) -> None:
    path = write(tmp_path / "r.tif", noise(3, "uint8"))
    write(tmp_path / "r.tif.msk", noise(1, "uint8", width=20))
    with pytest.raises(DataError, match=r"r\.tif\.msk: a mask of 20x210x1 px does not fit the raster's 300x210x3"):
        inspect_raster(store, str(path))


def test_a_palette_becomes_colours(store: ObjectStore, tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    colours = rng.integers(0, 256, (40, 3))
    pixels = rng.integers(0, 40, (1, HEIGHT, WIDTH), dtype=np.uint8)
    path = tmp_path / "r.tif"
    with rasterio.open(
        path, "w", driver="GTiff", width=WIDTH, height=HEIGHT, count=1, dtype="uint8", nodata=39, **PLACE
    ) as dataset:
        dataset.write(pixels)
        dataset.write_colormap(1, {i: (*map(int, colour), 255) for i, colour in enumerate(colours)})
    profile = inspect_raster(store, str(path))
    found = read_all(shard_reader(store, path, Grid(size=64), palette=palette_table(profile)))
    for name, window in plain_windows(Grid(size=64), WIDTH, HEIGHT).items():
        part = pixels[0][window.toslices()]
        rows, cols = part.shape
        np.testing.assert_array_equal(found.pixels[name][:, :rows, :cols], colours[part].transpose(2, 0, 1))
        np.testing.assert_array_equal(found.valid[name][:rows, :cols], part != 39)
    assert found.pixels["r000000_c000000"].shape == (3, 64, 64)
    assert found.pixels["r000000_c000000"].dtype == np.uint8


def test_bands_in_the_order_asked_for(store: ObjectStore, tmp_path: Path) -> None:
    pixels = noise(5, "uint8")
    path = write(tmp_path / "r.tif", pixels, interleave="band")
    found = check_all(shard_reader(store, path, Grid(size=64), bands=(4, 1, 3)), path)
    np.testing.assert_array_equal(found.pixels["r000001_c000001"], pixels[[3, 0, 2], 64:128, 64:128])


@pytest.mark.parametrize("driver", ["PNG", "JPEG", "JP2OpenJPEG"])
def test_other_formats(store: ObjectStore, tmp_path: Path, driver: str) -> None:
    path = tmp_path / "r.bin"
    rasterio.shutil.copy(write(tmp_path / "r.tif", noise(3, "uint8")), path, driver=driver)
    reader = shard_reader(store, path, Grid(size=64))
    assert reader.profile.driver == driver
    assert len(check_all(reader, path).pixels) == 20


def test_skipping_and_valid_fractions(store: ObjectStore, tmp_path: Path) -> None:
    pixels = np.zeros((1, 16, 64), np.uint8)
    for tile, valid_pixels in enumerate((0, 12, 13, 256)):
        part = np.zeros(256, np.uint8)
        part[:valid_pixels] = 1
        pixels[0, :, tile * 16 : tile * 16 + 16] = part.reshape(16, 16)
    path = write(tmp_path / "r.tif", pixels, nodata=0)
    grid = Grid(size=16)
    found = check_all(shard_reader(store, path, grid), path)
    assert found.skipped == {
        "r000000_c000000": "no_valid_pixel",
        "r000000_c000001": "low_valid_fraction",
    }
    everything = read_all(shard_reader(store, path, grid, min_valid_fraction=0.0))
    assert everything.skipped == {"r000000_c000000": "no_valid_pixel"}
    assert everything.valid_fraction["r000000_c000001"] == 12 / 256
    whole = read_all(shard_reader(store, path, grid, min_valid_fraction=1.0))
    assert list(whole.pixels) == ["r000000_c000003"]


def counted_reads(monkeypatch: pytest.MonkeyPatch) -> list[Window]:
    """Record the windows of all reads of pixels from now on, in order."""
    calls: list[Window] = []
    read = DatasetReader.read

    def counting(self: DatasetReader, *args: Any, **options: Any) -> Any:
        calls.append(options["window"])
        return read(self, *args, **options)

    monkeypatch.setattr(DatasetReader, "read", counting)
    return calls


@pytest.mark.parametrize("grid", [Grid(size=64), Grid(size=64, stride=40), Grid(size=64, stride=100)])
@pytest.mark.parametrize("options", [{}, {"tiled": True, "blockxsize": 128, "blockysize": 128}])
def test_one_read_a_row_of_tiles_from_top_to_bottom(
    store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, grid: Grid, options: dict[str, Any]
) -> None:
    path = write(tmp_path / "r.tif", noise(3, "uint8"), compress="deflate", **options)
    reader = shard_reader(store, path, grid, shard_tiles=6)
    assert reader.sharding.count > 1
    for number in range(reader.sharding.count):
        with monkeypatch.context() as patch:
            calls = counted_reads(patch)
            list(reader.batches(number))
        (first, stop), (left, right) = reader.sharding.block(number)
        assert [call.row_off for call in calls] == [row * grid.step for row in range(first, stop)]
        assert {(call.col_off, call.col_off + call.width) for call in calls} == {
            (left * grid.step, min((right - 1) * grid.step + grid.size, WIDTH))
        }


@pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="the system does not count what a process reads")
@pytest.mark.parametrize("interleave", ["pixel", "band"])
def test_each_block_is_read_once(store: ObjectStore, tmp_path: Path, interleave: str) -> None:
    """The cache of a shard is much smaller than the raster, but keeps a block until its last tile was read."""
    pixels = np.random.default_rng(0).integers(1, 255, (3, 3000, 5000), np.uint8)
    options = {"tiled": True, "blockxsize": 512, "blockysize": 512, "interleave": interleave}
    path = write(tmp_path / "r.tif", pixels, **options)

    def bytes_read() -> int:
        with open("/proc/self/io") as counters:
            return int(next(line for line in counters if line.startswith("rchar")).split()[1])

    reader = shard_reader(store, path, Grid())
    assert reader.sharding.count == 1
    assert reader.cache_bytes < 0.6 * pixels.nbytes
    before = bytes_read()
    assert sum(len(batch.positions) for batch in reader.batches(0)) == 14 * 23
    assert pixels.nbytes <= bytes_read() - before < 1.05 * path.stat().st_size


def test_memory_of_the_cache_is_bounded(store: ObjectStore, tmp_path: Path) -> None:
    path = tmp_path / "wide.tif"
    options: dict[str, Any] = {"width": 600_000, "height": 600, "count": 31, "dtype": "uint16", "sparse_ok": True}
    with rasterio.open(path, "w", driver="GTiff", interleave="pixel", blockysize=1, **options, **PLACE) as dataset:
        dataset.write(np.ones((31, 1, 9), np.uint16), window=Window(0, 0, 9, 1))
    profile = inspect_raster(store, str(path))
    sharding = plan_shards(Grid(), profile, 2048)
    assert block_cache_bytes(register(store, str(path)), profile, sharding, 64) == 2**30


# What cannot be read


def damage(path: Path, col: int, row: int) -> None:
    """Overwrite one block of a compressed GeoTIFF."""
    with rasterio.open(path) as dataset:
        offset, size = (
            int(dataset.get_tag_item(f"BLOCK_{what}_{col}_{row}", "TIFF", bidx=1)) for what in ("OFFSET", "SIZE")
        )
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(b"\xff" * size)


def test_a_block_that_cannot_be_decoded(store: ObjectStore, tmp_path: Path, tiny_vit: Path) -> None:
    options = {"compress": "deflate", "tiled": True, "blockxsize": 64, "blockysize": 64}
    path = write(tmp_path / "r.tif", noise(3, "uint8"), **options)
    damage(path, 2, 1)
    grid, model = Grid(size=48), Dinov3(model=str(tiny_vit))
    # the block covers columns 128 to 191 and rows 64 to 127: tiles 2 and 3 across, 1 and 2 down
    bad = {tile_id(row, col) for row in (1, 2) for col in (2, 3)}
    with pytest.raises(DataError, match=r"tile r000001_c000002 \(window col_off=96 row_off=48 width=48 height=48\)"):
        embed(store, str(path), dataset_id="d", grid=grid, model=model)
    assert store.read("datasets/d/manifest.json") is None

    skipping = Selection(on_bad_window="skip", shard_tiles=12)
    manifest = embed(store, str(path), dataset_id="e", grid=grid, model=model, selection=skipping)
    index = index_of(store, manifest)
    assert {row["tile_id"] for row in index if row["status"] == "skipped"} == bad
    assert {row["reason"] for row in index if row["status"] == "skipped"} == {"undecodable"}
    assert (manifest.tiles, manifest.rows, manifest.skipped) == (35, 31, 4)

    whole = write(tmp_path / "whole.tif", noise(3, "uint8"), **options)
    expected = embed(store, str(whole), dataset_id="f", grid=grid, model=model)
    good = {row["tile_id"]: row["embedding"] for row in rows_of(store, expected)}
    for row in rows_of(store, manifest):
        np.testing.assert_allclose(row["embedding"], good[row["tile_id"]], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("driver", ["GTiff", "JPEG"])
def test_damaged_jpeg_data_are_an_error_and_no_other_pixels(store: ObjectStore, tmp_path: Path, driver: str) -> None:
    """By default, GDAL reads on behind the damage and gives other pixels, without an error."""
    tiles = {"compress": "jpeg", "photometric": "YCbCr", "tiled": True, "blockxsize": 128, "blockysize": 128}
    path = write(tmp_path / "r.tif", noise(3, "uint8"), **tiles)
    if driver == "JPEG":
        rasterio.shutil.copy(path, tmp_path / "r.jpg", driver=driver)
        path = tmp_path / "r.jpg"
    with rasterio.open(path) as dataset:
        whole = dataset.read()
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 2] = b"\xff\xd9"  # The marker that ends a JPEG image.
    path.write_bytes(content)
    with rasterio.open(path) as dataset:
        assert (dataset.read() != whole).any()
    grid = Grid(size=48)
    with pytest.raises(DataError, match=r"tile r00000\d_c00000\d \(window .* Corrupt JPEG data: premature end"):
        read_all(shard_reader(store, path, grid))
    found = read_all(shard_reader(store, path, grid, on_bad_window="skip"))
    assert 0 < len(found.skipped) < 35
    for name, window in plain_windows(grid, WIDTH, HEIGHT).items():
        if name in found.pixels:
            left, top, width, height = window.flatten()
            expected = whole[:, top : top + height, left : left + width]
            np.testing.assert_array_equal(found.pixels[name][:, :height, :width], expected)


def rows_of(store: ObjectStore, manifest: Manifest) -> list[dict[str, Any]]:
    return pa.concat_tables([pq.read_table(store.uri(shard.path)) for shard in manifest.shards]).to_pylist()


def index_of(store: ObjectStore, manifest: Manifest) -> list[dict[str, Any]]:
    return pq.read_table(store.uri(manifest.index)).to_pylist()


def rewrite(path: Path) -> None:
    """Replace the file with another of the same size, as an upload does."""
    other = path.with_suffix(".new")
    shutil.copyfile(path, other)
    os.utime(other, ns=(1, 1))
    os.replace(other, path)


def test_a_raster_changed_before_a_shard_is_read(store: ObjectStore, tmp_path: Path) -> None:
    path = write(tmp_path / "r.tif", noise(3, "uint8"))
    reader = shard_reader(store, path, Grid(size=64))
    rewrite(path)
    with pytest.raises(DataError, match=r"r\.tif: it was changed since this dataset was planned: run again"):
        next(reader.batches(0))


def test_a_raster_changed_while_a_shard_is_read(store: ObjectStore, tmp_path: Path) -> None:
    path = write(tmp_path / "r.tif", noise(3, "uint8"))
    batches = shard_reader(store, path, Grid(size=64)).batches(0)
    next(batches)
    rewrite(path)
    with pytest.raises(DataError, match="it was changed since this dataset was planned"):
        list(batches)


def test_a_mask_file_counts_as_a_part_of_the_raster(store: ObjectStore, tmp_path: Path, tiny_vit: Path) -> None:
    path, grid, model = write(tmp_path / "r.tif", noise(3, "uint8")), Grid(size=64), Dinov3(model=str(tiny_vit))

    def mask(valid: NDArray[np.bool_]) -> None:
        with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=False), rasterio.open(path, "r+") as dataset:
            dataset.write_mask(valid)

    half = np.zeros((HEIGHT, WIDTH), bool)
    half[:, 150:] = True
    mask(half)
    manifest = embed(store, str(path), dataset_id="d", grid=grid, model=model)
    assert {row["col"] for row in rows_of(store, manifest)} == {2, 3, 4}
    batches = shard_reader(store, path, grid).batches(0)
    next(batches)
    mask(~half)
    with pytest.raises(DataError, match=r"r\.tif\.msk: the mask was changed since this dataset was planned"):
        list(batches)
    with pytest.raises(ConfigurationChangedError, match=r"source\.mask"):
        embed(store, str(path), dataset_id="d", grid=grid, model=model)
    again = embed(store, str(path), dataset_id="d", grid=grid, model=model, replace=True)
    assert {row["col"] for row in rows_of(store, again)} == {0, 1, 2}


def test_an_object_replaced_while_a_shard_is_read(tmp_path: Path, moto: S3Server, bucket: str) -> None:
    moto.create_bucket(bucket)
    path = write(tmp_path / "r.tif", noise(3, "uint8"))
    moto.client().upload_file(str(path), bucket, "r.tif")
    store = ObjectStore.model_validate(
        {
            "root": f"s3://{bucket}/out",
            "endpoint_url": moto.endpoint_url,
            "access_key": moto.access_key,
            "secret_key": moto.secret_key,
        }
    )
    source = register(store, f"s3://{bucket}/r.tif")
    profile = inspect_raster(store, source.uri)
    sharding = plan_shards(Grid(size=64), profile, 2048)
    reader = ShardReader(store, source, profile, sharding, (1, 2, 3), None, 4, 0.05, "skip", 2**24)
    batches = reader.batches(0)
    next(batches)
    moto.client().upload_file(str(write(path, noise(3, "uint8", seed=2))), bucket, "r.tif")
    with pytest.raises(DataError, match="it was changed since this dataset was planned"):
        list(batches)


REMOTE: dict[str, tuple[dict[str, Any], int]] = {
    "COG": ({"driver": "COG", "blocksize": 512, "compress": "deflate"}, 1),
    "tiles": ({"tiled": True, "blockxsize": 512, "blockysize": 512, "compress": "zstd"}, 1),
    "tiles by band": (
        {"tiled": True, "blockxsize": 512, "blockysize": 512, "compress": "deflate", "interleave": "band"},
        3,
    ),
    "strips": ({"compress": "lzw", "interleave": "pixel"}, 1),
    "strips by band": ({"compress": "deflate", "interleave": "band"}, 3),
}
"""Creation options, and the number of ranges of the file that hold the blocks of a shard across the whole width."""


@pytest.fixture(scope="module")
def uploaded(moto: S3Server, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return a function that writes a raster of a layout, and uploads it to the bucket `layouts` under its name.

    Compressing noise takes long, so the tests of a layout share the raster.
    """
    folder = tmp_path_factory.mktemp("layouts")
    moto.create_bucket("layouts")

    @cache
    def upload(layout: str) -> Path:
        pixels = np.random.default_rng(3).integers(1, 255, (5, 1600, 2300), np.uint8)
        path = write(folder / f"{layout}.tif", pixels, **REMOTE[layout][0])
        moto.client().upload_file(str(path), "layouts", path.name)
        return path

    return upload


@pytest.mark.parametrize("shard_tiles", [2048, 20])
@pytest.mark.parametrize("layout", REMOTE)
def test_blocks_come_from_a_bucket_once_and_together(
    moto: S3Server, uploaded: Callable[[str], Path], layout: str, shard_tiles: int
) -> None:
    path, ranges = uploaded(layout), REMOTE[layout][1]
    with proxy_before(moto.endpoint_url) as proxy:
        store = at(moto, "layouts", endpoint_url=proxy.endpoint_url)
        source = register(store, f"s3://layouts/{path.name}")
        profile = inspect_raster(store, source.uri)
        sharding = plan_shards(Grid(), profile, shard_tiles)
        cache_bytes = block_cache_bytes(source, profile, sharding, 1)
        reader = ShardReader(store, source, profile, sharding, (1, 2, 3), None, 8, 0.05, "fail", cache_bytes)
        for number in range(sharding.count):
            proxy.exchanges.clear()
            read = {int(n) for batch in reader.batches(number) for n in batch.positions}
            assert len(read) == sharding.planned(number)
            gets = [exchange for exchange in proxy.exchanges if exchange.method == "GET"]
            (top, bottom), (left, right) = sharding.block(number)
            # else other shards' blocks lie between its rows of blocks
            stretches = 1 if right - left == sharding.cols else -(-bottom * 224 // 512) - top * 224 // 512
            assert len(gets) <= 1 + ranges * stretches
            assert len(proxy.exchanges) - len(gets) == 2  # is it what was registered: before, and after
            header, pieces = 65536, 2 * 16384 * len(gets)  # GDAL's ranges begin and end at multiples of 16 KiB
            needed = block_bytes(path, sharding.tiles(number), (1, 2, 3))
            assert proxy.sent <= 1.1 * needed + header + pieces


def block_bytes(path: Path, tiles: Tiles, bands: tuple[int, ...]) -> int:
    """Return the compressed bytes of the blocks that tiles lie in, for some bands, each block counted once."""
    with rasterio.open(path) as dataset:
        height, width = dataset.block_shapes[0]
        blocks = {
            (col, row)
            for left, top, wide, high in zip(tiles.col_off, tiles.row_off, tiles.width, tiles.height, strict=True)
            for row in range(top // height, -(-(top + high) // height))
            for col in range(left // width, -(-(left + wide) // width))
        }
        apart = bands if dataset.interleaving.name == "band" else bands[:1]
        return sum(
            int(dataset.get_tag_item(f"BLOCK_SIZE_{col}_{row}", "TIFF", bidx=band))
            for band in apart
            for col, row in blocks
        )


def test_memory_of_a_batch_is_used_again_only_when_nothing_refers_to_it(store: ObjectStore, tmp_path: Path) -> None:
    path = write(tmp_path / "r.tif", noise(1, "uint8"))
    batches = shard_reader(store, path, Grid(size=64), batch_size=2).batches(0)
    first = next(batches)
    tile, where = first.pixels[1, 0, 3:], first.pixels.ctypes.data
    content = tile.copy()
    del first
    second = next(batches)
    assert second.pixels.ctypes.data != where  # a view of a view still refers to it
    np.testing.assert_array_equal(tile, content)
    del tile
    assert next(batches).pixels.ctypes.data == where
    assert second.valid.all()


def test_read_ahead_closes_what_it_reads() -> None:
    closed: list[int] = []

    def numbers() -> Iterator[TileBatch]:
        try:
            yield from range(100)  # type: ignore[misc]
        finally:
            closed.append(1)

    items = read_ahead(numbers())  # type: ignore[arg-type]
    assert [next(items), next(items)] == [0, 1]
    assert closed == []
    items.close()
    assert closed == [1]


def test_read_ahead_hands_on_errors() -> None:
    def failing() -> Iterator[int]:
        yield 1
        raise DataError("no more")

    items = read_ahead(failing())  # type: ignore[arg-type]
    assert next(items) == 1
    with pytest.raises(DataError, match="no more"):
        next(items)


# The real rasters

WHOLE = Selection()
COUNTS: dict[str, tuple[Grid, int]] = {
    "RGB.byte.tif": (Grid(), 16),
    "RGBA.uint16.tif": (Grid(), 6),
    "TCI.tif": (Grid(), 25),
    "all-nodata.tif": (Grid(), 12),
    "cog_dateline.tif": (Grid(stride=448), 36),
    "cog_gcps.tif": (Grid(), 24),
    "cog_rgb_mask.tif": (Grid(), 4),
    "cog_world.tif": (Grid(stride=2240), 153),
    "cogeo.tif": (Grid(), 25),
    "mosaic_cog1.tif": (Grid(), 16),
    "world.rgb.tif": (Grid(), 6),
}


@pytest.mark.parametrize("name", COUNTS)
def test_real_rasters(rasters: Path, store: ObjectStore, tiny_vit: Path, name: str) -> None:
    grid, tiles = COUNTS[name]
    manifest = embed(store, str(rasters / name), dataset_id="d", grid=grid, model=Dinov3(model=str(tiny_vit)))
    expected: dict[str, tuple[str, str | None]] = {}
    fractions = {}
    with rasterio.open(rasters / name) as dataset:
        for tile, window in plain_windows(grid, dataset.width, dataset.height).items():
            share = (dataset.dataset_mask(window=window) > 0).mean()
            fractions[tile] = np.float32(share)
            if share == 0:
                expected[tile] = ("skipped", "no_valid_pixel")
            elif share < 0.05:
                expected[tile] = ("skipped", "low_valid_fraction")
            else:
                expected[tile] = ("embedded", None)
    index = index_of(store, manifest)
    assert {row["tile_id"]: (row["status"], row["reason"]) for row in index} == expected
    skipped = sum(status == "skipped" for status, _ in expected.values())
    assert (manifest.tiles, manifest.rows, manifest.skipped) == (tiles, tiles - skipped, skipped)
    assert {row["tile_id"]: row["valid_fraction"] for row in rows_of(store, manifest)} == {
        tile: fractions[tile] for tile, (status, _) in expected.items() if status == "embedded"
    }
    assert manifest.state == "embedded"  # the helper embeds without the quality checks


def test_a_raster_without_a_valid_pixel(rasters: Path, store: ObjectStore, tiny_vit: Path) -> None:
    manifest = embed(store, str(rasters / "all-nodata.tif"), dataset_id="d", model=Dinov3(model=str(tiny_vit)))
    assert (manifest.tiles, manifest.rows, manifest.skipped) == (12, 0, 12)
    assert {row["reason"] for row in index_of(store, manifest)} == {"no_valid_pixel"}
    assert rows_of(store, manifest) == []


@pytest.mark.parametrize("name", ["rotated.tif", "float_nan.tif"])
def test_rasters_without_a_crs(rasters: Path, store: ObjectStore, tiny_vit: Path, name: str) -> None:
    model = Dinov3(model=str(tiny_vit))
    with pytest.raises(DataError, match=r"it has no CRS: assign its CRS .* or allow footprints in pixels"):
        embed(store, str(rasters / name), dataset_id="d", model=model)
    allowed = Selection(allow_no_crs=True)
    manifest = embed(store, str(rasters / name), dataset_id="d", model=model, selection=allowed)
    assert (manifest.tiles, manifest.rows, manifest.crs) == (1, 1, None)
    row = rows_of(store, manifest)[0]
    with rasterio.open(rasters / name) as dataset:
        assert (row["width"], row["height"]) == (dataset.width, dataset.height)
        assert row["valid_fraction"] == np.float32((dataset.dataset_mask() > 0).mean())
        assert row["bbox"] == {"xmin": 0, "ymin": 0, "xmax": dataset.width, "ymax": dataset.height}


def test_the_damaged_raster(rasters: Path, store: ObjectStore, tiny_vit: Path) -> None:
    path, model = rasters / "corrupt.tif", Dinov3(model=str(tiny_vit))
    with pytest.raises(DataError, match=r"corrupt\.tif: tile r\d{6}_c\d{6} \(window col_off=\d+ row_off=\d+ width="):
        embed(store, str(path), dataset_id="d", model=model)
    bad = set()
    with rasterio.open(path) as dataset:
        for tile, window in plain_windows(Grid(), dataset.width, dataset.height).items():
            try:
                dataset.read(window=window)
            except rasterio.errors.RasterioError:
                bad.add(tile)
    assert 0 < len(bad) < 25
    manifest = embed(store, str(path), dataset_id="d", model=model, selection=Selection(on_bad_window="skip"))
    skipped = {row["tile_id"]: row["reason"] for row in index_of(store, manifest) if row["status"] == "skipped"}
    assert skipped == dict.fromkeys(bad, "undecodable")
    assert manifest.rows == 25 - len(bad)


def test_every_real_raster_is_covered(rasters: Path) -> None:
    refused = {"rotated.tif", "float_nan.tif", "corrupt.tif"}
    assert {path.name for path in rasters.glob("*.tif")} == COUNTS.keys() | refused
