"""Damage of a JPEG block of a TIFF is noticed, whatever a program does with the log."""

from __future__ import annotations

import logging
import logging.config
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.errors import RasterioIOError
from rasterio.transform import Affine
from rasterio.windows import Window

from rasterembed.raster.pixels import open_pixels
from rasterembed.raster.profile import inspect_raster
from rasterembed.raster.scene import register_scene
from rasterembed.raster.scene_profile import inspect_scene
from rasterembed.store.object_store import ObjectStore
from tests.support.rasters import PLACE, write

SIDE = 256
JPEG = {"compress": "jpeg", "tiled": True, "blockxsize": 128, "blockysize": 128}
PIXELS = np.random.default_rng(4).integers(0, 256, (1, SIDE, SIDE)).astype(np.uint8)


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return ObjectStore(root=str(tmp_path / "store"))


@pytest.fixture
def log() -> Iterator[logging.Logger]:
    """Return rasterio's logger of errors, and take back the settings of the log after the test."""
    logger = logging.getLogger("rasterio._err")
    level = logger.level
    enabled = [each for each in logging.root.manager.loggerDict.values() if not getattr(each, "disabled", True)]
    yield logger
    logger.setLevel(level)
    for each in enabled:
        each.disabled = False  # type: ignore[union-attr]
    logging.disable(logging.NOTSET)


def cut_off_block(path: Path, column: int, row: int) -> None:
    """End a block of a TIFF in its middle, with the marker that ends a JPEG image."""
    with rasterio.open(path) as dataset:
        keys = (f"BLOCK_{name}_{column}_{row}" for name in ("OFFSET", "SIZE"))
        start, size = (int(dataset.get_tag_item(key, "TIFF", bidx=1)) for key in keys)
    content = bytearray(path.read_bytes())
    content[start + size // 2 : start + size // 2 + 2] = b"\xff\xd9"
    path.write_bytes(content)


def disable_loggers() -> None:
    logging.config.dictConfig({"version": 1})  # `disable_existing_loggers` is True if it is not given.


@pytest.mark.parametrize(
    "silence",
    [
        disable_loggers,
        lambda: logging.disable(logging.CRITICAL),
        lambda: logging.getLogger("rasterio._err").setLevel(logging.CRITICAL),
    ],
    ids=["loggers disabled", "logging disabled", "level"],
)
def test_a_program_that_silences_the_log_gets_the_error(
    store: ObjectStore,
    tmp_path: Path,
    log: logging.Logger,
    caplog: pytest.LogCaptureFixture,
    silence: Callable[[], None],
) -> None:
    path = write(tmp_path / "r.tif", PIXELS, **JPEG)
    profile, whole = inspect_raster(store, str(path)), Window(0, 0, SIDE, SIDE)
    with open_pixels(store, str(path), profile) as raster:
        raster.read((1,), whole)
    cut_off_block(path, 1, 0)
    silence()
    with open_pixels(store, str(path), profile) as raster, pytest.raises(RasterioIOError, match="JPEG block is damage"):
        raster.read((1,), whole)
    if silence is not disable_loggers:
        assert not caplog.records


def test_a_program_still_chooses_what_it_logs(
    store: ObjectStore, tmp_path: Path, log: logging.Logger, caplog: pytest.LogCaptureFixture
) -> None:
    path = write(tmp_path / "r.tif", PIXELS, **JPEG)
    with open_pixels(store, str(path), inspect_raster(store, str(path))) as raster:
        raster.read((1,), Window(0, 0, SIDE, SIDE))
    log.setLevel(logging.DEBUG)
    log.debug("shown")
    log.setLevel(logging.ERROR)
    log.warning("hidden")
    assert caplog.messages == ["shown"]


def test_a_header_with_an_odd_value_is_no_damage(store: ObjectStore, tmp_path: Path) -> None:
    """Some programs write the start of a scan with other numbers than the standard asks for. libjpeg ignores them."""
    path = write(tmp_path / "r.tif", PIXELS, **JPEG)
    with rasterio.open(path) as dataset:
        expected = dataset.read()
    header = b"\xff\xda\x00\x08\x01\x01\x00"
    content = path.read_bytes()
    assert content.count(header + b"\x00\x3f\x00") == 4
    path.write_bytes(content.replace(header + b"\x00\x3f\x00", header + b"\x00\x00\x00"))
    with open_pixels(store, str(path), inspect_raster(store, str(path))) as raster:
        pixels, _ = raster.read((1,), Window(0, 0, SIDE, SIDE))
    np.testing.assert_array_equal(pixels, expected)


def test_damage_in_a_block_that_only_bilinear_weights_need_is_an_error(store: ObjectStore, tmp_path: Path) -> None:
    blocks = JPEG | {"blockxsize": SIDE, "blockysize": 64}  # GDAL warps blocks of 128 rows.
    coarse = write(tmp_path / "coarse.tif", PIXELS, transform=PLACE["transform"] @ Affine.scale(2), **blocks)
    fine = write(tmp_path / "fine.tif", PIXELS.repeat(2, axis=1).repeat(2, axis=2))
    cut_off_block(coarse, 0, 1)
    scene = register_scene(store, {"red": str(fine), "green": str(fine), "blue": str(coarse)})
    profile = inspect_scene(store, scene)
    # The nearest pixels of this window are in the first block, and the weights at its lower edge need the second one.
    with open_pixels(store, scene.uri, profile) as raster, pytest.raises(RasterioIOError, match="JPEG block is damage"):
        raster.read((3,), Window(0, 100, 64, 28))
