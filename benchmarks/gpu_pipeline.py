"""Compare the speed of the whole pipeline on a GPU, from a file, with the speed of the model alone, from memory.

The cases embed the same tiles with the same loaded model, in the same batches. The pipeline runs with several numbers
of shards that are computed at the same time (`shard_threads`). The model alone gets the batches as the pipeline gives
them: the next batch is handed over while the device computes one.
"""

from __future__ import annotations

import tempfile
import time
from collections import deque
from functools import partial
from itertools import count, product
from pathlib import Path
from typing import Any

import rasterio
import torch
from rasterio.windows import Window

from benchmarks.end_to_end import ready_batches
from benchmarks.gpu import SHAPES
from benchmarks.harness import (
    RESULTS,
    embed,
    figure,
    load,
    make_checkpoint,
    ratio,
    run,
    save,
    speed,
    spread,
    table,
    take_turns,
    where,
)
from examples.landscape import make_scene
from rasterembed.dataset.embedding import Execution
from rasterembed.dataset.plan import PlanSettings, make_plan
from rasterembed.dataset.selection import Selection
from rasterembed.model.choice import Dinov3, Engine
from rasterembed.model.embedder import Pending, load_embedder
from rasterembed.raster.grid import Grid
from rasterembed.raster.source import register
from rasterembed.store.object_store import ObjectStore

NAME = "gpu_pipeline"


def measure(
    *,
    side: int = 3000,
    repeats: int = 8,
    size: int = 224,
    shapes: tuple[str, ...] = ("s", "l"),
    engines: tuple[Engine, ...] = ("eager", "compile"),
    shard_threads: tuple[int, ...] = (1, 2, 4, 8),
    shard_tiles: int = 256,
    batch_size: int = 256,
    rounds: int = 3,
    results: Path = RESULTS,
) -> dict[str, Any]:
    """Compare the pipeline on a GPU with the model alone.

    Args:
        side: Side of the generated scene, px.
        repeats: The raster has this number of copies of the scene in each direction.
        size: Side of a tile, px.
        shapes: Sizes of the model, keys of `benchmarks.gpu.SHAPES`.
        engines: Engines that compute the model.
        shard_threads: Numbers of shards that are computed at the same time.
        shard_tiles: Number of tiles in a shard.
        batch_size: Number of tiles in a batch.
        rounds: Number of measurements of each case.
        results: Folder for the result file.
    """
    parameters = dict(locals())
    load_before = load()
    runs: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        raster = _repeated(make_scene(place, width=side, height=side).raster, place / "raster.tif", repeats)
        for shape in shapes:
            weights = make_checkpoint(place / shape, **SHAPES[shape])
            for engine in engines:
                execution = Execution(batch_size=batch_size, engine=engine)
                settings = PlanSettings(
                    grid=Grid(size=size),
                    model=Dinov3(model=str(weights), device="cuda"),
                    selection=Selection(shard_tiles=shard_tiles),
                )
                runs[f"{shape} {engine}"] = _measure(raster, place, settings, execution, shard_threads, rounds)
    device = torch.cuda.get_device_name(0)
    return save(NAME, parameters, load_before, {"device": device, "runs": runs}, results)


def _repeated(scene: Path, raster: Path, repeats: int) -> Path:
    """Write a raster with several copies of a scene in each direction. A large scene would take an hour to generate."""
    with rasterio.open(scene) as source:
        pixels, profile = source.read(), source.profile
    _, height, width = pixels.shape
    profile |= {"driver": "GTiff", "height": height * repeats, "width": width * repeats, "bigtiff": "yes"}
    with rasterio.open(raster, "w", num_threads="all_cpus", **profile) as copy:
        for row, column in product(range(repeats), repeat=2):
            copy.write(pixels, window=Window(column * width, row * height, width, height))
    return raster


def _measure(
    raster: Path, place: Path, settings: PlanSettings, execution: Execution, shard_threads: tuple[int, ...], rounds: int
) -> dict[str, Any]:
    store = ObjectStore(root=tempfile.mkdtemp(dir=place))
    plan = make_plan(store, register(store, str(raster)), "plan", settings)
    batches = ready_batches(plan, store, execution)
    tiles = sum(len(batch.positions) for batch in batches)
    begun = time.perf_counter()
    embedder = load_embedder(plan.model, "cuda", engine=execution.engine, tiles=plan.sharding.tile_count)
    embedder.embed(batches[0].pixels, batches[0].valid, plan.radiometry)
    started = time.perf_counter() - begun

    numbers = count()

    def from_file(threads: int) -> None:
        manifest = embed(
            store,
            str(raster),
            dataset_id=f"run-{next(numbers)}",
            grid=settings.grid,
            model=settings.model,
            selection=settings.selection,
            execution=execution.model_copy(update={"shard_threads": threads}),
        )
        assert manifest.rows == tiles, (manifest.rows, tiles)

    def in_memory() -> None:
        computing: deque[Pending] = deque()
        for batch in batches:
            computing.append(embedder.submit(batch.pixels, batch.valid, plan.radiometry))
            if len(computing) > 1:
                computing.popleft().result()
        computing.popleft().result()

    pipelines = {threads: partial(from_file, threads) for threads in shard_threads}
    in_memory()
    from_file(shard_threads[0])
    times = take_turns({"alone": in_memory} | {str(threads): case for threads, case in pipelines.items()}, rounds)
    return {
        "tiles": tiles,
        "shards": plan.sharding.count,
        "start_s": started,
        "alone_tiles_per_s": speed(times["alone"], tiles),
        "pipelines": {
            threads: {
                "tiles_per_s": speed(times[str(threads)], tiles),
                "cpu_ms_per_tile": figure([turn.cpu / tiles * 1e3 for turn in times[str(threads)]]),
                "ratio": ratio(times[str(threads)], times["alone"]),
            }
            for threads in shard_threads
        },
    }


def markdown(report: dict[str, Any]) -> str:
    """Return the result as a Markdown table."""
    rows = [
        [
            name,
            threads,
            spread(pipeline["tiles_per_s"], 0),
            spread(run["alone_tiles_per_s"], 0),
            f"**{pipeline['ratio']:.2f}**",
            f"{pipeline['cpu_ms_per_tile']['median']:.1f}",
            f"{run['start_s']:.0f}",
        ]
        for name, run in report["runs"].items()
        for threads, pipeline in run["pipelines"].items()
    ]
    head = [
        "model, engine",
        "shards at once",
        "from a file, tiles/s",
        "model alone, tiles/s",
        "ratio",
        "CPU ms a tile",
        "load and first batch, s",
    ]
    return f"{report['device']}; " + where(report) + table(head, rows)


if __name__ == "__main__":
    run(measure, markdown)
