"""Measure how time, memory and store requests grow with the raster: from 1,000 to 100,000 tiles.

Tiles are small and the model is tiny, so most of the cost is outside the model. Each run has a new process. The store
is a folder. Each method call that would send requests to S3 is counted.
"""

from __future__ import annotations

import json
import math
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness import RESULTS, TINY, alone, load, make_checkpoint, run, save, status_mib, table, where
from examples.landscape import make_scene
from rasterembed.dataset.selection import Selection

NAME = "growth"

_REQUESTS = (
    "read",
    "write",
    "create",
    "write_from_file",
    "create_from_file",
    "open",
    "sizes",
    "find",
    "delete",
    "describe",
)
"""Methods of `Storage` that send at least one request if the storage is S3."""

_BENT = 0.2
"""Largest share by which a run's time may exceed the time that the line predicts. If it is exceeded, the line bends."""


def measure(
    *,
    tiles: tuple[int, ...] = (1_000, 3_000, 10_000, 30_000, 100_000),
    size: int = 16,
    shard_tiles: int = 500,
    results: Path = RESULTS,
) -> dict[str, Any]:
    """Embed rasters of growing size.

    Args:
        tiles: Approximate numbers of tiles. Each raster is square.
        size: Side of a tile, px.
        shard_tiles: Number of tiles in a shard.
        results: Folder for the result file.
    """
    parameters = dict(locals())
    load_before = load()
    runs: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        weights = make_checkpoint(place / "model", **TINY)
        for number in tiles:
            side = math.isqrt(number) * size
            raster = make_scene(place / str(number), width=side, height=side, border=0).raster
            runs[str(number)] = alone(embed, raster, place / f"store-{number}", weights, size, shard_tiles)
    return save(
        NAME,
        parameters,
        load_before,
        {"runs": runs, **_line(list(runs.values())), "prefect": prefect_share(results)},
        results,
    )


def embed(raster: Path, root: Path, weights: Path, size: int, shard_tiles: int) -> dict[str, Any]:
    """Embed a raster in this process, and return its costs."""
    import rasterio

    from benchmarks.harness import embed
    from rasterembed.dataset.embedding import Execution
    from rasterembed.model.choice import Dinov3
    from rasterembed.raster.grid import Grid
    from rasterembed.store.folder import FolderStorage
    from rasterembed.store.object_store import ObjectStore

    requests: Counter[str] = Counter()

    def counted(name: str) -> None:
        method = getattr(FolderStorage, name)

        def counting(*arguments: Any) -> Any:
            requests[name] += 1
            return method(*arguments)

        setattr(FolderStorage, name, counting)

    for name in _REQUESTS:
        counted(name)
    store, model = ObjectStore(root=str(root)), Dinov3(model=str(weights), device="cpu")
    begun = time.perf_counter()
    manifest = embed(
        store,
        str(raster),
        dataset_id="run",
        grid=Grid(size=size),
        model=model,
        selection=Selection(shard_tiles=shard_tiles),
        execution=Execution(batch_size=256),
    )
    seconds = time.perf_counter() - begun
    with rasterio.open(raster) as source:
        side = source.width
    return {
        "tiles": manifest.tiles,
        "side": side,
        "shards": len(manifest.shards),
        "seconds": seconds,
        "ms_per_tile": seconds / manifest.tiles * 1e3,
        "peak_mib": status_mib("VmHWM"),
        "requests": dict(sorted(requests.items())),
        "requests_per_shard": sum(requests.values()) / len(manifest.shards),
    }


def _line(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Fit the line `time = fixed part + tiles * part per tile` with the least relative error, and find where it bends.

    To find the bend, a second line is fitted for each run to all smaller runs. This line predicts the run's time. The
    line bends at the first run whose time exceeds the prediction by more than the share `_BENT`.
    """
    tiles = np.array([run["tiles"] for run in runs], dtype=np.float64)
    seconds = np.array([run["seconds"] for run in runs])
    bend = None
    for count in range(2, len(runs)):
        each, fixed = np.polyfit(tiles[:count], seconds[:count], 1, w=1 / seconds[:count])
        if bend is None and seconds[count] > (1 + _BENT) * (fixed + each * tiles[count]):
            bend = int(tiles[count])
    each, fixed = np.polyfit(tiles, seconds, 1, w=1 / seconds)
    return {
        "line": {"fixed_s": float(fixed), "ms_per_tile": float(each * 1e3), "bends_at_tiles": bend},
        "ratios": {
            "ms_per_tile_largest_over_middle": runs[-1]["ms_per_tile"] / runs[len(runs) // 2]["ms_per_tile"],
            "peak_largest_over_middle": runs[-1]["peak_mib"] / runs[len(runs) // 2]["peak_mib"],
        },
    }


def prefect_share(results: Path = RESULTS) -> dict[str, float] | None:
    """Return Prefect's share of the wall time, from the results of `prefect_overhead` and `report`.

    The first share is for shards of the default size, at this project's speed in bfloat16. The second share is for the
    tiny shards of the benchmark `prefect_overhead`.

    Args:
        results: folder of the result files.

    Returns:
        The two shares, and the numbers that they are computed from. None if one of the two results is missing.
    """
    overhead, latest = results / "prefect_overhead.json", results / "latest.json"
    if not overhead.exists() or not latest.exists():
        return None
    runs = json.loads(overhead.read_text())["runs"]
    shards = max(runs, key=int)
    prefect_s = runs[shards]["prefect_s"] / int(shards)
    speed = json.loads(latest.read_text())["runs"]["ours_bfloat16/from_file"]["tiles_per_s"]["median"]
    shard_s = Selection().shard_tiles / speed
    return {
        "shards": int(shards),
        "prefect_s_per_shard": prefect_s,
        "share_of_tiny_shards": runs[shards]["prefect_s"] / runs[shards]["flow_s"]["median"],
        "shard_tiles": Selection().shard_tiles,
        "shard_s": shard_s,
        "share": prefect_s / (prefect_s + shard_s),
    }


def markdown(report: dict[str, Any]) -> str:
    """Return the result as a Markdown table with a short summary."""
    head = ["tiles", "px", "shards", "seconds", "ms a tile", "peak, MiB", "store requests", "a shard"]
    rows = [
        [
            f"{run['tiles']:,}",
            f"{run['side']}²",
            f"{run['shards']}",
            f"{run['seconds']:.1f}",
            f"{run['ms_per_tile']:.2f}",
            f"{run['peak_mib']:.0f}",
            f"{sum(run['requests'].values())}",
            f"{run['requests_per_shard']:.1f}",
        ]
        for run in report["runs"].values()
    ]
    line, bend = report["line"], report["line"]["bends_at_tiles"]
    text = (
        f"The line: {line['fixed_s']:.1f} s and {line['ms_per_tile']:.2f} ms a tile; "
        + (f"it bends at {bend:,} tiles." if bend else "it does not bend.")
        + "\n"
    )
    share = report["prefect"]
    if share:
        text += (
            f"\nPrefect takes {share['prefect_s_per_shard'] * 1e3:.1f} ms a shard in a run of {share['shards']}: "
            f"{share['share']:.2%} of the wall time where a shard is {share['shard_tiles']} tiles and takes "
            f"{share['shard_s']:.0f} s, and {share['share_of_tiny_shards']:.0%} where it is two tiny tiles.\n"
        )
    return where(report) + table(head, rows) + "\n" + text


if __name__ == "__main__":
    run(measure, markdown)
