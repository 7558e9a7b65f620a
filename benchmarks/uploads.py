"""Measure a burst of uploads on the process pool: seconds until all datasets are ready, and memory of the runs.

All runs are created together, as the webhook creates them. `make deploy` limits how many runs work at the same time.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import psutil
from prefect.client.schemas.objects import FlowRun

from benchmarks.harness import RESULTS, load, run, save, table
from rasterembed.store.object_store import ObjectStore
from tests.support.deployed import Runs, deploy, manifest_of, worker, write_scene
from tests.support.prefect_server import PrefectServer, prefect_server

NAME = "uploads"
DEPLOYMENT = "raster-embeddings/embed-process"
SIDE = 224


def measure(
    *, uploads: int = 10, rows: int = 2, cols: int = 2, limits: str = "0", results: Path = RESULTS
) -> dict[str, Any]:
    """Measure bursts of uploads, each on a new Prefect server.

    Args:
        uploads: Number of rasters.
        rows: Rows of tiles of a raster.
        cols: Columns of tiles of a raster.
        limits: Largest numbers of runs that work at the same time, separated by commas. 0 is the default limit.
        results: Folder for the file with the results.
    """
    before = load()
    found = {limit: _burst(uploads, rows, cols, limit) for limit in map(int, limits.split(","))}
    parameters = {"uploads": uploads, "rows": rows, "cols": cols, "limits": limits, "results": results}
    return save(NAME, parameters, before, {"bursts": found}, results)


def _burst(uploads: int, rows: int, cols: int, limit: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory(prefix="uploads-") as place, prefect_server() as server:
        folder = Path(place)
        scenes = [write_scene(folder / f"{number}.tif", rows, cols, SIDE) for number in range(uploads)]
        options = ("--limit", str(limit)) if limit else ()
        deploy(server, DEPLOYMENT, options=options, RASTER_ROOT=str(folder / "store"))
        with worker(server, "process", folder) as started:
            found = _embed_all(server, ObjectStore(root=str(folder / "store")), scenes)
            cpu = psutil.Process(started.pid).cpu_times()
        return found | {"cpu_s": round(sum(cpu[:4]), 1)}


def _embed_all(server: PrefectServer, store: ObjectStore, scenes: list[Path]) -> dict[str, float]:
    """Create a run for each raster, and measure until all datasets are ready."""
    runs, begun = Runs(server), time.monotonic()
    waiting = [
        runs.create(DEPLOYMENT, raster=str(scene), dataset_id=f"upload-{number}").id
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
    for number in range(len(scenes)):
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
        "limit",
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
    return table(names, rows)


if __name__ == "__main__":
    run(measure, markdown)
