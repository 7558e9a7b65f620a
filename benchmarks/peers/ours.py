"""Run this project: `benchmarks.harness.embed` on the file, and the loaded model on the same batches in memory."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from itertools import count
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from peer import Vectors, options, serve

from benchmarks.end_to_end import ready_batches
from benchmarks.harness import embed
from rasterembed.dataset.embedding import Execution
from rasterembed.dataset.plan import PlanSettings, make_plan
from rasterembed.model.choice import AUTO_TILES, Dinov3
from rasterembed.model.embedder import load_embedder
from rasterembed.raster.grid import Grid
from rasterembed.raster.source import register
from rasterembed.store.object_store import ObjectStore

settings = options()
scratch = tempfile.TemporaryDirectory()
store, numbers = ObjectStore(root=scratch.name), count()
grid = Grid(size=settings.tile)
model = Dinov3(model=str(settings.weights), dtype="bfloat16" if settings.tuned else "float32", device="cpu")
plan = make_plan(store, register(store, str(settings.raster)), "plan", PlanSettings(grid=grid, model=model))
# The benchmark's raster is too small for `auto` to compare the engines. Choose the engine as for a large raster.
engine = load_embedder(plan.model, "cpu", engine="auto", tiles=AUTO_TILES).engine
execution = Execution(batch_size=settings.batch, engine=engine)
embedder = load_embedder(plan.model, "cpu", engine=engine, tiles=plan.sharding.tile_count)
batches = ready_batches(plan, store, execution)


def from_file() -> Callable[[], Vectors]:
    """Embed the raster, and return a function that reads the vectors from the shards."""
    manifest = embed(
        store, str(settings.raster), dataset_id=f"run-{next(numbers)}", grid=grid, model=model, execution=execution
    )

    def vectors() -> Vectors:
        found: dict[tuple[int, int], np.ndarray] = {}
        for shard in manifest.shards:
            table = pq.read_table(Path(scratch.name) / shard.path, columns=["row", "col", "embedding"])
            rows, cols = (table[name].to_pylist() for name in ("row", "col"))
            column = table["embedding"].combine_chunks()
            found |= zip(
                zip(rows, cols, strict=True), np.asarray(column.flatten()).reshape(len(column), -1), strict=True
            )
        return found

    return vectors


def in_memory() -> None:
    """Run the model alone."""
    for batch in batches:
        embedder.embed(batch.pixels, batch.valid, plan.radiometry)


serve(("torch", "transformers", "rasterio"), {"from_file": from_file, "in_memory": in_memory}, f"engine {engine}")
