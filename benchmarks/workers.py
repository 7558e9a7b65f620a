"""Measure the benefit and the cost of many workers: speed of child runs, and load on the Prefect server and the store.

The benchmark has three parts:

- `throughput` embeds one raster with one and with two child runs on a process worker. Each child run has one thread.
- `server` creates hundreds of child runs without a worker, and queries their states like a parent run.
- `store` counts the requests that each step of a run sends to an S3 server.

docs/scaling.md uses the results to estimate the costs of large runs.
"""

from __future__ import annotations

import math
import os
import re
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter
from prefect.client.schemas.objects import State
from prefect.deployments import run_deployment
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.states import Completed, Pending, Running
from pydantic import SecretStr

from benchmarks.harness import load, run, save, table
from rasterembed.dataset.embedding import EmbeddingJob, Execution, embed_shard
from rasterembed.dataset.manifest import commit
from rasterembed.dataset.plan import PlanSettings, make_plan
from rasterembed.dataset.selection import Selection
from rasterembed.dataset.shards import find_shard
from rasterembed.pipeline import prepare
from rasterembed.raster.grid import Grid
from rasterembed.raster.sharding import MAX_SHARDS
from rasterembed.raster.source import register
from rasterembed.store.lease import hold_lease
from rasterembed.store.object_store import ObjectStore
from tasks.child_runs import POLL_S
from tests.support.deployed import Runs, command_line, deploy, manifest_of, worker, write_striped_raster
from tests.support.prefect_server import PrefectServer, prefect_server
from tests.support.servers import moto_server

NAME = "workers"
SIDE = 224
ONE_THREAD = {"OMP_NUM_THREADS": "1"}


def measure(*, shards: int = 24, tiles: int = 60, children: str = "10,100", rounds: int = 3) -> dict[str, Any]:
    """Run all three parts of the benchmark.

    Args:
        shards: Number of shards of the raster.
        tiles: Number of tiles of 224 px in a shard.
        children: Numbers of child runs to create, separated by commas.
        rounds: Number of rounds. In each round, one worker and two workers take turns.
    """
    before = load()
    results = {
        "throughput": _throughput(shards, tiles, rounds),
        "server": _server([int(count) for count in children.split(",")]),
        "store": _store(),
    }
    parameters = {"shards": shards, "tiles": tiles, "children": children, "rounds": rounds}
    return save(NAME, parameters, before, results)


def _throughput(shards: int, tiles: int, rounds: int) -> dict[str, Any]:
    """Measure the tiles per second of one child run and of two child runs, from the creation times of their shards."""
    with tempfile.TemporaryDirectory(prefix="workers-") as place, prefect_server() as server:
        folder = Path(place)
        scene = write_striped_raster(folder / "scene.tif", shards, tiles, SIDE)
        deploy(server, "*/*-process")
        found: dict[int, list[dict[str, float]]] = {1: [], 2: []}
        with worker(server, "process", folder, **ONE_THREAD):
            for turn in range(rounds):
                for workers in (1, 2) if turn % 2 == 0 else (2, 1):
                    found[workers].append(_run(server, scene, folder, f"{workers}-{turn}", workers, tiles))
    return {
        str(workers): {name: round(statistics.median(turn[name] for turn in turns), 2) for name in turns[0]}
        for workers, turns in found.items()
    }


def _run(server: PrefectServer, scene: Path, folder: Path, dataset: str, workers: int, tiles: int) -> dict[str, float]:
    cpu, begun = _server_cpu(server), time.time()
    options = ("--shard-tiles", str(tiles), "--shard-threads", "1", "--device", "cpu", "--workers", str(workers))
    where = ("--root", str(folder), "--dataset-id", dataset, "--worker-deployment", "embed-shards/embed-share-process")
    process = command_line(server.environment() | ONE_THREAD, str(scene), *options, *where)
    output, _ = process.communicate()
    assert process.returncode == 0, output
    wall = time.time() - begun
    store = ObjectStore(root=str(folder))
    written = {s.number: os.stat(store.uri(s.path)).st_mtime for s in manifest_of(store, dataset).shards}
    shares = [range(r.parameters["first"], r.parameters["stop"]) for r in Runs(server).of_dataset(dataset)]
    # Measure only the time in which all child runs work. This time begins when every child run has written its first
    # shard. It ends when one of the child runs has written its last shard.
    alone = [sorted(written[number] for number in share) for share in shares]
    start, stop = max(times[0] for times in alone), min(times[-1] for times in alone)
    done = sum(start < when <= stop for when in written.values())
    return {
        "tiles_per_s": done * tiles / (stop - start),
        "wall_s": wall,
        "start_s": min(written.values()) - begun,
        "server_cpu_s": _server_cpu(server) - cpu,
    }


def _server_cpu(server: PrefectServer) -> float:
    """Return the processor seconds that the server's process used since its start."""
    port = int(server.api_url.rsplit(":", 1)[1].removesuffix("/api"))
    for process in psutil.process_iter(["cmdline"]):
        line = process.info["cmdline"] or []
        if str(port) in line and "server" in line:
            own = process.cpu_times()
            return float(own.user + own.system + own.children_user + own.children_system)
    raise RuntimeError(f"no server on port {port}")


def _server(counts: list[int]) -> list[dict[str, float]]:
    """Measure a parent run's requests about its child runs: their wall time, and the server's processor time."""
    found = []
    with prefect_server() as server, temporary_settings({PREFECT_API_URL: server.api_url}):
        deploy(server, "*/*-process")
        for count in counts:

            @flow(name=f"parent-of-{count}")
            def parent(count: int = count) -> dict[str, float]:
                given = {"dataset_id": "x", "fingerprint": "x", "first": 0, "stop": 1}
                with _timed(server) as creating:
                    ids = [
                        run_deployment("embed-shards/embed-share-process", parameters=given, timeout=0).id  # type: ignore[union-attr]
                        for _ in range(count)
                    ]
                with get_client(sync_client=True) as client:
                    wanted = FlowRunFilter.model_validate(
                        {"id": {"any_": ids}, "state": {"type": {"any_": ["COMPLETED", "FAILED"]}}}
                    )
                    with _timed(server) as looking:
                        for _ in range(10):
                            client.read_flow_runs(flow_run_filter=wanted)
                    with _timed(server) as living:
                        for child in ids:
                            states: tuple[State[Any], ...] = (Pending(), Running(), Completed())
                            for state in states:
                                client.set_flow_run_state(child, state)
                return {
                    "children": count,
                    "create_s": creating["wall"],
                    "create_cpu_s": creating["cpu"],
                    "look_s": looking["wall"] / 10,
                    "look_cpu_s": looking["cpu"] / 10,
                    "live_s": living["wall"],
                    "live_cpu_s": living["cpu"],
                }

            found.append({name: round(value, 4) for name, value in parent().items()})
    return found


@contextmanager
def _timed(server: PrefectServer) -> Iterator[dict[str, float]]:
    found = {"wall": time.perf_counter(), "cpu": _server_cpu(server)}
    yield found
    found["wall"], found["cpu"] = time.perf_counter() - found["wall"], _server_cpu(server) - found["cpu"]


def _store() -> dict[str, Any]:
    """Count the requests that each step sends to an S3 server, by HTTP method. The raster is on the same server."""
    with tempfile.TemporaryDirectory(prefix="requests-") as place, moto_server() as server:
        for bucket in ("rasters", "datasets"):
            server.create_bucket(bucket)
        server.client().upload_file(str(write_striped_raster(Path(place) / "s.tif", 4, 60, SIDE)), "rasters", "s.tif")
        store = ObjectStore(
            root="s3://datasets",
            endpoint_url=server.endpoint_url,
            access_key=SecretStr(server.access_key),
            secret_key=SecretStr(server.secret_key),
        )
        log = server._daemons._folder / "moto.out"  # type: ignore[attr-defined]
        steps: dict[str, Counter[str]] = {}

        @contextmanager
        def counted(step: str) -> Iterator[None]:
            begun = log.stat().st_size
            yield
            with log.open() as file:
                file.seek(begun)
                steps[step] = Counter(re.findall(r'"(GET|PUT|HEAD|POST|DELETE) /', file.read()))

        with counted("plan"):
            source = register(store, "s3://rasters/s.tif")
            plan = make_plan(
                store, source, "requests", PlanSettings(grid=Grid(size=SIDE), selection=Selection(shard_tiles=60))
            )
        with hold_lease(store, plan.layout, "requests", wait_s=0, on_wait=print) as lease:
            with counted("prepare"):
                prepare(store, plan)
            with counted("shard"):
                shards = [embed_shard(store, plan, 0, EmbeddingJob(execution=Execution(shard_threads=1)))]
            for number in range(1, plan.sharding.count):
                shards.append(embed_shard(store, plan, number, EmbeddingJob(execution=Execution(shard_threads=1))))
            with counted("poll"):
                store.sizes(plan.layout.shards_folder)
            with counted("collect"):
                find_shard(store, plan, 0)
            with counted("commit"):
                commit(store, plan, shards, lease)
    return {step: dict(found) for step, found in steps.items()}


BYTES = 1600
"""Compressed bytes of a tile in a shard: 384 float32 numbers, and the place of the tile."""

CONTAINER_S = 22.0
"""Seconds from a run's creation to its first task, if the host already has the image. Imports take most of this
time."""

READ = 100e6
"""Bytes per second that the parent run reads from the store."""

TASK_CPU_S = 0.006
"""Processor seconds of the server for one task run and its three events, measured with Prefect 3.8.8. A heartbeat is
a single event."""

HEARTBEAT_S = 60.0
"""Seconds between two heartbeats of a run, as set in prefect.yaml."""


def model(report: dict[str, Any], workers: int, tiles: float, rate: float) -> dict[str, float]:
    """Estimate the costs of a run from the measurements.

    Args:
        report: the benchmark's results.
        workers: number of workers given to the flow.
        tiles: number of tiles of the raster.
        rate: tiles per second of one worker.

    Returns:
        Seconds of the parent run's steps, processor seconds and busy share of the server, and requests to the store.
    """
    shards = min(MAX_SHARDS, math.ceil(tiles / Selection().shard_tiles))
    children = min(workers, shards)
    server = min(report["server"], key=lambda found: abs(found["children"] - children))
    creating = children * server["create_s"] / server["children"]
    working = creating + CONTAINER_S + math.ceil(shards / children) * tiles / shards / rate
    looks, heartbeats = working / POLL_S, children * working / HEARTBEAT_S
    run_cpu = (server["create_cpu_s"] + server["live_cpu_s"]) / server["children"]
    cpu = children * run_cpu + shards * TASK_CPU_S + heartbeats * TASK_CPU_S / 3 + looks * server["look_cpu_s"]
    per = {step: sum(found.values()) for step, found in report["store"].items()}
    once, each = per["plan"] + per["prepare"] + per["commit"], per["shard"] + per["collect"]
    collecting = tiles * BYTES / READ
    requests = once + shards * each + looks * per["poll"] + children
    return {
        "children": children,
        "create_s": creating,
        "work_s": working,
        "collect_s": collecting,
        "server_cpu_s": cpu,
        "server_busy": cpu / (working + collecting),
        "store_requests": requests,
    }


def model_table(report: dict[str, Any], rate: float) -> str:
    """Return the estimates for typical rasters and numbers of workers as a Markdown table."""
    rows = []
    for tiles in (1e4, 1e6, 1e8):
        for workers in (1, 10, 100, 1000):
            found = model(report, workers, tiles, rate)
            rows.append(
                [
                    f"10^{round(math.log10(tiles))}",
                    str(workers),
                    f"{found['children']:.0f}",
                    f"{found['create_s']:.0f}",
                    f"{found['work_s'] / 60:,.0f}",
                    f"{found['collect_s'] / 60:,.1f}",
                    f"{found['server_cpu_s']:,.0f}",
                    f"{100 * found['server_busy']:.1f} %",
                    f"{found['store_requests']:,.0f}",
                ]
            )
    head = [
        "tiles",
        "workers",
        "child runs",
        "create, s",
        "work, min",
        "collect, min",
        "server CPU, s",
        "server busy",
        "store requests",
    ]
    return table(head, rows)


def markdown(report: dict[str, Any]) -> str:
    """Return the results as three Markdown tables, and the estimates."""
    throughput = table(
        ["child runs", "tiles/s while all work", "whole run, s", "first shard after, s", "server CPU, s"],
        [
            [n, *(f"{found[k]:.1f}" for k in ("tiles_per_s", "wall_s", "start_s", "server_cpu_s"))]
            for n, found in report["throughput"].items()
        ],
    )
    server = table(
        [
            "child runs",
            "create all, s",
            "server CPU, s",
            "one request, ms",
            "server CPU, ms",
            "states of all, s",
            "server CPU, s",
        ],
        [
            [
                str(found["children"]),
                f"{found['create_s']:.1f}",
                f"{found['create_cpu_s']:.1f}",
                f"{1e3 * found['look_s']:.0f}",
                f"{1e3 * found['look_cpu_s']:.0f}",
                f"{found['live_s']:.1f}",
                f"{found['live_cpu_s']:.1f}",
            ]
            for found in report["server"]
        ],
    )
    kinds = ("GET", "HEAD", "PUT", "POST", "DELETE")
    store = table(
        ["step", *kinds],
        [[step, *(str(found.get(kind, 0)) for kind in kinds)] for step, found in report["store"].items()],
    )
    models = "\n".join(f"{rate} tiles/s a worker\n\n{model_table(report, rate)}" for rate in (30, 1500))
    return f"{throughput}\n{server}\n{store}\n{models}"


if __name__ == "__main__":
    run(measure, markdown)
