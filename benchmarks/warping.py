"""Measure the processor time of reading tiles that are warped to a grid, beside tiles that are read unchanged.

The processor time of one thread is compared, because it hardly depends on other processes of the machine.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.harness import RESULTS, figure, load, run, save, spread, table, take_turns, where
from benchmarks.reading import shard_reader
from examples.landscape import make_scene
from rasterembed.raster.grid import Grid
from rasterembed.raster.profile import inspect_raster
from rasterembed.raster.shard_reader import ShardReader
from rasterembed.raster.sharding import plan_shards
from rasterembed.raster.source import register
from rasterembed.raster.warp import warp_profile
from rasterembed.store.object_store import ObjectStore

NAME = "warping"

UNCHANGED = "read unchanged"

WARPS: dict[str, dict[str, Any]] = {
    UNCHANGED: {},
    "shifted by half a pixel": {"resolution": 1.0, "origin": (0.5, 0.5)},
    "from one UTM zone to the next": {"resolution": 1.0, "crs": "EPSG:32634"},
    "to longitude and latitude": {"resolution": 1e-5, "crs": "EPSG:4326"},
    "to pixels of twice the size": {"resolution": 2.0},
}
"""Fields of `Grid` of each case. The raster is in EPSG:32635, with pixels of 1 m, and its edges are on the lattice."""


def measure(
    *, side: int = 4000, size: int = 224, batch_size: int = 32, rounds: int = 5, results: Path = RESULTS
) -> dict[str, Any]:
    """Read the tiles of a generated scene of three bands, unchanged and with each warp.

    Args:
        side: Side of the generated raster, px.
        size: Side of a tile, px.
        batch_size: Number of tiles in a batch.
        rounds: Number of measurements of each case.
        results: Folder for the result file.
    """
    parameters = dict(locals())
    load_before = load()
    with tempfile.TemporaryDirectory() as scratch:
        raster = make_scene(Path(scratch), width=side, height=side).raster
        readers = {name: _reader(raster, size, batch_size, warp) for name, warp in WARPS.items()}
        cases: dict[str, Callable[[], int]] = {name: partial(_read, reader) for name, reader in readers.items()}
        tiles = {name: case() for name, case in cases.items()}  # The first run also warms the caches.
        times = take_turns(cases, rounds)
    runs: dict[str, dict[str, Any]] = {
        name: {"tiles": tiles[name], "ms_per_tile": asdict(figure([1000 * t.cpu / tiles[name] for t in turns]))}
        for name, turns in times.items()
    }
    plain = runs[UNCHANGED]["ms_per_tile"]["median"]
    ratios = {name: case["ms_per_tile"]["median"] / plain for name, case in runs.items()}
    return save(NAME, parameters, load_before, {"runs": runs, "ratios": ratios}, results)


def _reader(raster: Path, size: int, batch_size: int, warp: dict[str, Any]) -> ShardReader:
    store = ObjectStore(root=str(raster.parent))
    source = register(store, str(raster))
    grid = Grid(size=size, anchor="crs", **warp)
    profile = warp_profile(inspect_raster(store, source.uri), grid, source.uri)
    return shard_reader(store, source, profile, plan_shards(grid, profile, 2048), batch_size, threads=1)


def _read(reader: ShardReader) -> int:
    """Read all tiles, and return the number of tiles with a valid pixel."""
    return sum(len(batch.positions) for number in range(reader.sharding.count) for batch in reader.batches(number))


def markdown(report: dict[str, Any]) -> str:
    """Return the result as a Markdown table."""
    rows = [
        [name, str(case["tiles"]), spread(case["ms_per_tile"], 2), f"**{report['ratios'][name]:.1f}**"]
        for name, case in report["runs"].items()
    ]
    return where(report) + table(["tiles are", "tiles", "ms of a core a tile", "ratio"], rows)


if __name__ == "__main__":
    run(measure, markdown)
