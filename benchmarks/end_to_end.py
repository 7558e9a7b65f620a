"""Compare the speed of the whole pipeline, from a file, with the speed of the model alone, from memory.

Both cases embed the same tiles with the same loaded model, in the same batches and dtype. The cases take turns. The
pipeline is everything that `benchmarks.harness.embed` runs: planning, reading, the model, footprints, Parquet, tile
index, STAC item and manifest.
"""

from __future__ import annotations

import tempfile
import time
from itertools import count
from pathlib import Path
from typing import Any

from benchmarks.harness import (
    RESULTS,
    TINY,
    VIT_S16,
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
from rasterembed.dataset.plan import Plan, PlanSettings, make_plan
from rasterembed.dataset.selection import Selection
from rasterembed.model.choice import ComputeDtype, Dinov3, Engine
from rasterembed.model.embedder import load_embedder
from rasterembed.raster.grid import Grid
from rasterembed.raster.shard_reader import ShardReader, block_cache_bytes
from rasterembed.raster.source import register
from rasterembed.raster.tile_batch import TileBatch
from rasterembed.store.object_store import ObjectStore

NAME = "end_to_end"


def measure(
    *,
    side: int = 3000,
    size: int = 224,
    dtypes: tuple[ComputeDtype, ...] = ("float32", "bfloat16"),
    batch_size: int = 32,
    shard_tiles: int = 2048,
    engine: Engine = "auto",
    rounds: int = 5,
    tiny: bool = False,
    results: Path = RESULTS,
) -> dict[str, Any]:
    """Compare the pipeline with the model alone.

    Args:
        side: Side of the generated deflate COG, px.
        size: Side of a tile, px.
        dtypes: Dtypes of the model's computation.
        batch_size: Number of tiles in a batch.
        shard_tiles: Number of tiles in a shard.
        engine: Engine that computes the model in both cases.
        rounds: Number of measurements of each case.
        tiny: Use a tiny model, not a model of ViT-S/16's size, for a quick trial of the script.
        results: Folder for the result file.
    """
    parameters = dict(locals())
    load_before = load()
    with tempfile.TemporaryDirectory() as scratch:
        raster = make_scene(Path(scratch), width=side, height=side).raster
        weights = make_checkpoint(Path(scratch) / "model", **(TINY if tiny else VIT_S16))
        runs = {
            dtype: _measure(
                raster,
                Path(scratch) / "store",
                Grid(size=size),
                Dinov3(model=str(weights), dtype=dtype, device="cpu"),
                Selection(shard_tiles=shard_tiles),
                Execution(batch_size=batch_size, engine=engine),
                rounds,
            )
            for dtype in dtypes
        }
    ratios = {dtype: run["ratio"] for dtype, run in runs.items()}
    return save(NAME, parameters, load_before, {"runs": runs, "ratios": ratios}, results)


def _measure(
    raster: Path, root: Path, grid: Grid, model: Dinov3, selection: Selection, execution: Execution, rounds: int
) -> dict[str, Any]:
    store = ObjectStore(root=str(root))
    source = register(store, str(raster))
    plan = make_plan(store, source, "plan", PlanSettings(grid=grid, model=model, selection=selection))
    batches = ready_batches(plan, store, execution)
    tiles = sum(len(batch.positions) for batch in batches)
    begun = time.perf_counter()
    embedder = load_embedder(plan.model, "cpu", engine=execution.engine, tiles=plan.sharding.tile_count)
    loaded = time.perf_counter() - begun
    numbers = count()

    def from_file() -> None:
        manifest = embed(
            store,
            str(raster),
            dataset_id=f"run-{model.dtype}-{next(numbers)}",
            grid=grid,
            model=model,
            selection=selection,
            execution=execution,
        )
        assert manifest.rows == tiles, (manifest.rows, tiles)

    def in_memory() -> None:
        for batch in batches:
            embedder.embed(batch.pixels, batch.valid, plan.radiometry)

    begun = time.perf_counter()
    from_file()
    first = time.perf_counter() - begun
    in_memory()
    times = take_turns({"from_file": from_file, "in_memory": in_memory}, rounds)
    return {
        "tiles": tiles,
        "shards": plan.sharding.count,
        "engine": embedder.engine,
        "model_load_s": loaded,
        "first_run_s": first,
        **{f"{name}_tiles_per_s": speed(turns, tiles) for name, turns in times.items()},
        **{f"{name}_cpu_ms_per_tile": figure([t.cpu / tiles * 1e3 for t in turns]) for name, turns in times.items()},
        "ratio": ratio(times["from_file"], times["in_memory"]),
    }


def ready_batches(plan: Plan, store: ObjectStore, execution: Execution) -> list[TileBatch]:
    """Read the batches that the pipeline would give to the model, and keep them in memory."""
    assert execution.batch_size is not None
    reader = ShardReader(
        store=store,
        source=plan.source,
        profile=plan.profile,
        sharding=plan.sharding,
        bands=plan.radiometry.bands,
        palette=None,
        batch_size=execution.batch_size,
        min_valid_fraction=plan.selection.min_valid_fraction,
        on_bad_window="fail",
        cache_bytes=block_cache_bytes(plan.source, plan.profile, plan.sharding, 1),
    )
    return [batch for number in range(plan.sharding.count) for batch in reader.batches(number)]


def markdown(report: dict[str, Any]) -> str:
    """Return the result as a Markdown table."""
    rows = [
        [
            dtype,
            spread(run["from_file_tiles_per_s"]),
            spread(run["in_memory_tiles_per_s"]),
            f"**{run['ratio']:.3f}**",
            f"{run['from_file_cpu_ms_per_tile']['median']:.1f} / {run['in_memory_cpu_ms_per_tile']['median']:.1f}",
            f"{run['model_load_s']:.2f}",
        ]
        for dtype, run in report["runs"].items()
    ]
    head = ["dtype", "from a file, tiles/s", "in memory, tiles/s", "ratio", "CPU ms a tile", "model load, s"]
    return where(report) + table(head, rows)


if __name__ == "__main__":
    run(measure, markdown)
