"""Measure how much slower embedding is than the model alone, if every request to the store has latency.

The shards of a local raster are embedded as in the pipeline, several at a time. They are written to a folder, and to S3
through a proxy that delays each request. Only the shards are timed. The steps before the first shard and after the last
shard are not timed.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

from benchmarks.end_to_end import ready_batches
from benchmarks.harness import (
    RESULTS,
    TINY,
    VIT_S16,
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
from benchmarks.remote import BUCKET, Proxy, proxy_process, store_behind
from examples.landscape import make_scene
from rasterembed.dataset.embedding import EmbeddingJob, Execution, embed_shard
from rasterembed.dataset.plan import PlanSettings, make_plan
from rasterembed.dataset.selection import Selection
from rasterembed.model.choice import ComputeDtype, Dinov3, Engine
from rasterembed.model.embedder import load_embedder
from rasterembed.raster.grid import Grid
from rasterembed.raster.source import register
from rasterembed.store.object_store import ObjectStore
from tests.support.servers import moto_server

NAME = "slow_store"


def measure(
    *,
    side: int = 5376,
    size: int = 224,
    dtype: ComputeDtype = "bfloat16",
    delays_ms: tuple[int, ...] = (0, 200),
    shard_tiles: int = 96,
    shard_threads: int = 2,
    batch_size: int = 8,
    engine: Engine = "openvino",
    rounds: int = 3,
    tiny: bool = False,
    results: Path = RESULTS,
) -> dict[str, Any]:
    """Compare embedding into several stores with the model alone.

    Args:
        side: Side of the generated deflate COG, px.
        size: Side of a tile, px.
        dtype: Dtype of the model's computation.
        delays_ms: Delays that the proxy adds to each request, in milliseconds.
        shard_tiles: Number of tiles in a shard. It is small, so writing takes a larger share of time than usual.
        shard_threads: Number of shards embedded at the same time.
        batch_size: Number of tiles in a batch.
        engine: Engine that computes the model.
        rounds: Number of measurements of each case.
        tiny: Use a tiny model, not a model of ViT-S/16's size, for a quick trial of the script.
        results: Folder for the result file.
    """
    parameters = dict(locals())
    load_before = load()
    with tempfile.TemporaryDirectory() as scratch, moto_server() as server, proxy_process(server) as proxy:
        server.create_bucket(BUCKET)
        raster = make_scene(Path(scratch), width=side, height=side, border=0).raster
        weights = make_checkpoint(Path(scratch) / "model", **(TINY if tiny else VIT_S16))
        local = ObjectStore(root=str(Path(scratch) / "store"))
        model = Dinov3(model=str(weights), dtype=dtype, device="cpu")
        execution = Execution(batch_size=batch_size, engine=engine, shard_threads=shard_threads)
        settings = PlanSettings(grid=Grid(size=size), model=model, selection=Selection(shard_tiles=shard_tiles))
        source = register(local, str(raster))
        plan = make_plan(local, source, "plan", settings)
        batches = ready_batches(plan, local, execution)
        embedder = load_embedder(plan.model, "cpu", engine=engine)
        numbers = count()

        def in_memory() -> None:
            pending = [embedder.submit(batch.pixels, batch.valid, plan.radiometry) for batch in batches]
            assert sum(len(vectors.result()) for vectors in pending) == plan.sharding.tile_count

        def to(store: ObjectStore) -> None:
            fresh = make_plan(local, source, f"run-{next(numbers)}", settings)
            with ThreadPoolExecutor(shard_threads) as pool:
                done = list(
                    pool.map(
                        lambda n: embed_shard(store, fresh, n, EmbeddingJob(execution=execution)),
                        range(plan.sharding.count),
                    )
                )
            assert sum(shard.rows for shard in done) == plan.sharding.tile_count

        remote = store_behind(proxy, server).allowing(source.uri)
        cases: dict[str, Callable[[], None]] = {"in memory": in_memory, "folder": partial(to, local)}
        cases |= {f"S3, {delay} ms": partial(_delayed, proxy, delay, partial(to, remote)) for delay in delays_ms}
        for case in cases.values():
            case()
        times = take_turns(cases, rounds)
    tiles = plan.sharding.tile_count
    runs = {
        name: {"tiles_per_s": speed(turns, tiles), "ratio": ratio(turns, times["in memory"])}
        for name, turns in times.items()
    }
    ratios = {name: run["ratio"] for name, run in runs.items()}
    return save(NAME, parameters, load_before, {"shards": plan.sharding.count, "runs": runs, "ratios": ratios}, results)


def _delayed(proxy: Proxy, delay_ms: int, case: Callable[[], None]) -> None:
    proxy.begin(delay_ms / 1000)
    case()


def markdown(report: dict[str, Any]) -> str:
    """Return the result as a Markdown table."""
    rows = [[name, spread(run["tiles_per_s"]), f"**{run['ratio']:.2f}**"] for name, run in report["runs"].items()]
    return where(report) + table(["shards go to", "tiles/s", "of in memory"], rows)


if __name__ == "__main__":
    run(measure, markdown)
