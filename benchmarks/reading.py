"""Compare the reader with the fastest of three plain loops over the same file, for many layouts of the file.

Each plain loop opens the file once, and does nothing with the pixels. The three loops read

- one window per tile, row by row,
- one strip per row of tiles,
- one strip per row of 512 px blocks, which decodes the file sequentially.

The reader also finds valid pixels, skips empty tiles, and fills batches. Each case runs in a new thread, because a
shard also runs in a new thread, and the setup of a thread (PROJ and memory) takes time.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.windows import Window

from benchmarks.harness import RESULTS, load, ratio, run, save, speed, spread, table, take_turns, where
from examples.landscape import make_scene
from rasterembed.raster.grid import Grid
from rasterembed.raster.profile import RasterProfile, inspect_raster
from rasterembed.raster.read_ahead import read_ahead
from rasterembed.raster.shard_reader import ShardReader, block_cache_bytes
from rasterembed.raster.sharding import Sharding, plan_shards
from rasterembed.raster.source import Source, register
from rasterembed.store.object_store import ObjectStore

NAME = "reading"

LAYOUTS: dict[str, dict[str, Any]] = {
    "deflate, tiles": {"compress": "deflate", "tiled": True},
    "deflate, tiles, bands apart": {"compress": "deflate", "tiled": True, "interleave": "band"},
    "zstd, tiles": {"compress": "zstd", "tiled": True},
    "uncompressed, tiles": {"tiled": True},
    "JPEG, tiles": {"compress": "jpeg", "photometric": "ycbcr", "tiled": True, "nodata": None},
    "LZW, strips": {"compress": "lzw"},
    "LZW, strips, bands apart": {"compress": "lzw", "interleave": "band"},
    "uncompressed, strips": {},
    "deflate, tiles, 31 bands": {"compress": "deflate", "tiled": True, "count": 31},
    "deflate, tiles, 31 bands apart": {"compress": "deflate", "tiled": True, "count": 31, "interleave": "band"},
}
"""GDAL's creation options of each layout: tiles of 512 px, or strips of GDAL's default height."""

BANDS = (1, 2, 3)
"""Numbers of the bands to read."""

_BLOCK = 512
_CACHE_BYTES = 2**30


def measure(
    *,
    side: int = 4000,
    size: int = 224,
    layouts: tuple[str, ...] = tuple(LAYOUTS),
    batch_size: int = 32,
    rounds: int = 7,
    results: Path = RESULTS,
) -> dict[str, Any]:
    """Compare the reader with plain loops.

    Args:
        side: Side of the generated raster, px. The side of a raster of 31 bands is a third of this.
        size: Side of a tile, px.
        layouts: Layouts to measure, keys of `LAYOUTS`.
        batch_size: Number of tiles in a batch.
        rounds: Number of measurements of each case.
        results: Folder for the result file.
    """
    parameters = dict(locals())
    load_before = load()
    runs: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as scratch:
        scene = make_scene(Path(scratch), width=side, height=side, compress="none").raster
        for layout in layouts:
            raster = Path(scratch) / "raster.tif"
            write(scene, raster, LAYOUTS[layout])
            runs[layout] = _measure(raster, size, batch_size, rounds)
            raster.unlink()
    ratios = {layout: run["ratio"] for layout, run in runs.items()}
    return save(NAME, parameters, load_before, {"runs": runs, "ratios": ratios}, results)


def write(scene: Path, raster: Path, options: dict[str, Any]) -> None:
    """Write the scene in a layout.

    Args:
        scene: the scene, with three bands.
        raster: file to write.
        options: GDAL's creation options. `count` may ask for more than three bands.
    """
    with rasterio.open(scene) as source:
        profile = source.profile
        for key in ("compress", "interleave", "tiled", "blockxsize", "blockysize"):
            profile.pop(key, None)
        profile |= {"driver": "GTiff", "interleave": "pixel"} | options
        if profile.get("tiled"):
            profile |= {"blockxsize": _BLOCK, "blockysize": _BLOCK}
        if profile["count"] > source.count:
            profile |= {"width": source.width // 3, "height": source.height // 3}
        window = Window(0, 0, profile["width"], profile["height"])
        pixels = source.read(window=window)
    # Bands after the third repeat the first three bands. Each repetition is shifted by one more row.
    bands = [np.roll(pixels[i % 3], i // 3, axis=0) for i in range(profile["count"])]
    with rasterio.open(raster, "w", **profile) as target:
        target.write(np.stack(bands))


def shard_reader(
    store: ObjectStore, source: Source, profile: RasterProfile, sharding: Sharding, batch_size: int, *, threads: int
) -> ShardReader:
    """Return a reader of `BANDS`, with a cache for `threads` threads. It skips only tiles without a valid pixel."""
    return ShardReader(
        store=store,
        source=source,
        profile=profile,
        sharding=sharding,
        bands=BANDS,
        palette=None,
        batch_size=batch_size,
        min_valid_fraction=0.0,
        on_bad_window="fail",
        cache_bytes=block_cache_bytes(source, profile, sharding, threads),
    )


def _measure(raster: Path, size: int, batch_size: int, rounds: int) -> dict[str, Any]:
    store = ObjectStore(root=str(raster.parent))
    source = register(store, str(raster))
    profile = inspect_raster(store, source.uri)
    grid = Grid(size=size)
    sharding = plan_shards(grid, profile, 2048)
    reader = shard_reader(store, source, profile, sharding, batch_size, threads=1)

    def read(reading_ahead: bool) -> int:
        tiles = 0
        for number in range(sharding.count):
            batches = reader.batches(number)
            with closing(read_ahead(batches) if reading_ahead else batches) as ready:
                tiles += sum(len(batch.positions) + len(batch.skipped) for batch in ready)
        return tiles

    cases: dict[str, Callable[[], int]] = {
        "plain_windows": lambda: _plain(raster, windows(profile.width, profile.height, size)),
        "plain_strips": lambda: _plain(raster, _strips(profile.width, profile.height, size)),
        "sequential": lambda: _plain(raster, _strips(profile.width, profile.height, _BLOCK)),
        "reader": lambda: read(False),
        "reader_ahead": lambda: read(True),
    }
    for name, case in cases.items():
        # The first run does not count, because the file may come from the disk.
        count = case()
        assert name in ("plain_strips", "sequential") or count == sharding.tile_count, (name, count)
    times = take_turns({name: partial(_in_thread, case) for name, case in cases.items()}, rounds)
    fastest = min(("plain_windows", "plain_strips", "sequential"), key=lambda name: min(t.wall for t in times[name]))
    return {
        "tiles": sharding.tile_count,
        "bytes": raster.stat().st_size,
        **{f"{name}_tiles_per_s": speed(turns, sharding.tile_count) for name, turns in times.items()},
        "fastest_plain": fastest,
        "ratio": ratio(times["reader_ahead"], times[fastest]),
        "ratio_without_ahead": ratio(times["reader"], times[fastest]),
    }


def _in_thread(case: Callable[[], object]) -> None:
    with ThreadPoolExecutor(1) as thread:
        thread.submit(case).result()


def windows(width: int, height: int, size: int) -> list[Window]:
    """Return the windows of adjacent tiles, row by row."""
    return [
        Window(x, y, min(size, width - x), min(size, height - y))
        for y in range(0, height, size)
        for x in range(0, width, size)
    ]


def _strips(width: int, height: int, size: int) -> list[Window]:
    return [Window(0, y, width, min(size, height - y)) for y in range(0, height, size)]


def _plain(raster: Path, windows: list[Window]) -> int:
    with rasterio.Env(GDAL_CACHEMAX=_CACHE_BYTES), rasterio.open(raster) as dataset:
        for window in windows:
            pixels: NDArray[np.generic] = dataset.read(BANDS, window=window)
            assert pixels.shape[0] == len(BANDS)
    return len(windows)


def markdown(report: dict[str, Any]) -> str:
    """Return the result as a Markdown table."""
    head = [
        "layout",
        "windows, tiles/s",
        "strips, tiles/s",
        "blocks, tiles/s",
        "reader, tiles/s",
        "ahead, tiles/s",
        "ratio",
        "ahead",
    ]
    rows = [
        [
            layout,
            *(
                spread(run[f"{name}_tiles_per_s"], 0)
                for name in ("plain_windows", "plain_strips", "sequential", "reader", "reader_ahead")
            ),
            f"{run['ratio_without_ahead']:.2f}",
            f"**{run['ratio']:.2f}**",
        ]
        for layout, run in report["runs"].items()
    ]
    return where(report) + table(head, rows)


if __name__ == "__main__":
    run(measure, markdown)
