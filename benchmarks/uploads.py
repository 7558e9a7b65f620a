"""Measure a burst of uploads on the process pool: seconds until all datasets are ready, and memory of the runs.

All runs are created together, as the webhook creates them. `make deploy` limits how many runs work at the same time.
Version 0.1 had no limit. Its flow and its deployment can be measured after the others.
"""

from __future__ import annotations

import compileall
import tempfile
import time
import tomllib
from pathlib import Path
from typing import Any

import psutil
from prefect.client.schemas.objects import FlowRun

from benchmarks.harness import RESULTS, load, run, save, table, where
from rasterembed.store.object_store import ObjectStore
from tests.support.deployed import PROJECT, Runs, deploy, manifest_of, worker, write_striped_raster
from tests.support.prefect_server import PrefectServer, prefect_server
from tests.support.servers import ServerProcess
from tests.support.waiting import wait_for

NAME = "uploads"
DEPLOYMENT = "raster-embeddings/embed-process"
DEPLOYMENT_OF_0_1 = "raster-embeddings/process"
SIDE = 224

AT_0_1 = "none, version 0.1"
"""Name of the burst of version 0.1 in the results. The other bursts are named after their limit."""


def measure(
    *,
    uploads: int = 10,
    rows: int = 2,
    cols: int = 2,
    limits: str = "0",
    before: Path | None = None,
    results: Path = RESULTS,
) -> dict[str, Any]:
    """Measure bursts of uploads, each on a new Prefect server.

    Args:
        uploads: Number of rasters.
        rows: Rows of tiles of a raster.
        cols: Columns of tiles of a raster.
        limits: Largest numbers of runs that work at the same time, separated by commas. 0 is the default limit.
        before: Checkout of version 0.1, to measure its flow too. It uses the packages of this environment.
        results: Folder for the file with the results.
    """
    load_before = load()
    old = _checkout_of_0_1(before) if before else None
    size = {"uploads": uploads, "rows": rows, "cols": cols}
    found = {}
    for limit in map(int, limits.split(",")):
        options = ("--limit", str(limit)) if limit else ()
        found[str(limit)] = _burst(PROJECT, DEPLOYMENT, options, **size)
    # The first burst finds few files in the system's cache. Version 0.1 is last, and is never at this disadvantage.
    if old:
        found[AT_0_1] = _burst(old, DEPLOYMENT_OF_0_1, (), **size)
    return save(NAME, {**size, "limits": limits}, load_before, {"bursts": found}, results)


def _checkout_of_0_1(folder: Path) -> Path:
    """Return the absolute path of a checkout of version 0.1.

    Raises:
        SystemExit: if the folder is something else.
    """
    try:
        version = tomllib.loads((folder / "pyproject.toml").read_text())["project"]["version"]
    except (OSError, tomllib.TOMLDecodeError, KeyError) as error:
        raise SystemExit(f"--before {folder}: not a checkout of version 0.1: {error!r}") from error
    if version != "0.1.0":
        raise SystemExit(f"--before {folder}: a checkout of version {version}, not of 0.1.0")
    return folder.resolve()


def _burst(
    project: Path, deployment: str, options: tuple[str, ...], *, uploads: int, rows: int, cols: int
) -> dict[str, float]:
    """Measure one burst with a new Prefect server and a new worker.

    Args:
        project: checkout whose flow runs.
        deployment: deployment of the flow, as flow/deployment.
        options: options of the checkout's deploy script.
        uploads: number of rasters.
        rows: rows of tiles of a raster.
        cols: columns of tiles of a raster.
    """
    # Without stored byte code, each run of a new checkout would compile the sources.
    for package in ("blocks", "flows", "rasterembed", "tasks"):
        compileall.compile_dir(project / package, quiet=2)
    with tempfile.TemporaryDirectory(prefix="uploads-") as place, prefect_server() as server:
        folder, path = Path(place), str(project)
        scenes = [write_striped_raster(folder / f"{number}.tif", rows, cols, SIDE) for number in range(uploads)]
        store = ObjectStore(root=str(folder / "store"))
        deploy(server, deployment, options=options, project=project, RASTER_ROOT=store.root, PYTHONPATH=path)
        with worker(server, "process", folder, PYTHONPATH=path) as started:
            found = _embed_all(server, started, deployment, store, scenes)
            process = psutil.Process(started.pid)
            # A run's process ends after its state is final. Only then does its processor time count as the worker's.
            wait_for(lambda: not process.children(), "the end of all processes of runs")
            cpu = process.cpu_times()
        return found | {"cpu_s": round(sum(cpu[:4]), 1)}


def _embed_all(
    server: PrefectServer, started: ServerProcess, deployment: str, store: ObjectStore, scenes: list[Path]
) -> dict[str, float]:
    """Create a run for each raster, and measure until all datasets are ready.

    Args:
        server: the Prefect server.
        started: its worker.
        deployment: deployment of the flow.
        store: store of the datasets.
        scenes: the rasters.

    Raises:
        RuntimeError: if a run does not complete. The message has the last lines of the worker's log.
    """
    runs, begun = Runs(server), time.monotonic()
    waiting = [
        runs.create(deployment, raster=str(scene), dataset_id=f"upload-{number}").id
        for number, scene in enumerate(scenes)
    ]
    ended: list[FlowRun] = []
    most_memory = 0
    while len(ended) < len(waiting):
        most_memory = max(most_memory, _memory_of_runs(server))
        found = runs.read(waiting[len(ended)])
        if found.state is not None and found.state.is_final():
            ended.append(found)
        else:
            time.sleep(0.5)
    wall = time.monotonic() - begun
    for number, done in enumerate(ended):
        if done.state is None or not done.state.is_completed():
            raise RuntimeError(f"upload-{number}: {deployment} ended with {done.state!r}\n{started.last_output()}")
        assert manifest_of(store, f"upload-{number}").state == "ready"
    return {"wall_s": round(wall, 1), "runs_at_once": _at_once(ended), "memory_gib": round(most_memory / 2**30, 2)}


def _at_once(runs: list[FlowRun]) -> int:
    """Return the largest number of runs that worked at the same time, from the times in Prefect's server."""
    times = [(run.start_time, run.end_time) for run in runs if run.start_time and run.end_time]
    return max(sum(begin <= start < end for begin, end in times) for start, _ in times)


def _memory_of_runs(server: PrefectServer) -> int:
    """Return the resident bytes of all processes of a server's flow runs."""
    found = 0
    for process in psutil.process_iter():
        try:
            environment = process.environ()
            if "PREFECT__FLOW_RUN_ID" in environment and environment.get("PREFECT_API_URL") == server.api_url:
                found += process.memory_info().rss
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            pass
    return found


def markdown(report: dict[str, Any]) -> str:
    """Return the table of the documentation."""
    names = [
        "limit of the pool",
        "seconds until all are ready",
        "runs at once",
        "memory of the runs, GiB",
        "CPU of worker and runs, s",
    ]
    keys = ("wall_s", "runs_at_once", "memory_gib", "cpu_s")
    rows = [
        [limit if limit != "0" else "default", *(str(burst[key]) for key in keys)]
        for limit, burst in report["bursts"].items()
    ]
    return where(report) + table(names, rows)


if __name__ == "__main__":
    run(measure, markdown)
