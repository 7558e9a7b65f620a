"""Measure searches of several clients at once in the explorer's service: over the demo's store, and over many rows.

The service is the command `rasterembed explore` in its own process. Clients are threads of this process, each with one
connection that stays open. A client sends the next search when it has the answer: the 12 tiles nearest to a random
tile, without a filter. Clients and service share the machine.

The rows are those of `benchmarks.search`: clustered vectors of 384 numbers in one dataset, with the vector index that
`auto` builds.
"""

from __future__ import annotations

import statistics
import tempfile
import threading
import time
from itertools import count
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil

from benchmarks.harness import RESULTS, load, run, save, table, where
from benchmarks.search import DATASET_ID, build, cache_below, write
from benchmarks.vectors import made_up_vectors
from examples import demo
from rasterembed.collection.collection import Collection
from rasterembed.dataset.dataset import Dataset
from rasterembed.search.index_options import MIN_ROWS
from rasterembed.store.object_store import ObjectStore
from tests.support.explorer import Explorer

NAME = "explorer_clients"

_DIMENSIONS = 384
_TILES = 500
"""Number of tiles among which the clients choose."""


def measure(
    *,
    clients: tuple[int, ...] = (1, 10),
    rows: tuple[int, ...] = (100_000,),
    with_demo: bool = True,
    seconds: float = 20.0,
    scratch: Path | None = None,
    results: Path = RESULTS,
) -> dict[str, Any]:
    """Measure searches of several clients at once.

    Args:
        clients: Numbers of clients.
        rows: Numbers of vectors of the generated datasets.
        with_demo: Whether the demo's collection of two dates is made and measured.
        seconds: Seconds in which the answers of some clients are measured.
        scratch: Folder for the stores; by default a temporary folder.
        results: Folder for the result file.
    """
    parameters = dict(locals())
    load_before = load()
    runs: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(dir=scratch) as folder, cache_below(folder):
        if with_demo:
            root = Path(folder) / "demo"
            root.mkdir()
            demo.main(root)
            runs["demo"] = _measure_demo(root / "store", clients, seconds)
        for size in rows:
            root = Path(folder) / str(size)
            root.mkdir()
            write(root, made_up_vectors(_DIMENSIONS), size, "float32")
            if size >= MIN_ROWS:
                build(root, "flat")
            runs[str(size)] = measure_rows(root / "store", clients, seconds)
    return save(NAME, parameters, load_before, {"runs": runs}, results)


def _measure_demo(root: Path, clients: tuple[int, ...], seconds: float) -> dict[str, Any]:
    collection = Collection.open(ObjectStore(root=str(root)), demo.COLLECTION)
    tiles = [
        f"{dataset_id}/{tile_id}"
        for batch in collection.vectors(["dataset_id", "tile_id"])
        for dataset_id, tile_id in zip(*(column.to_pylist() for column in batch.columns), strict=True)
    ]
    return _measure(root, f"collections/{demo.COLLECTION}", tiles, clients, seconds)


def measure_rows(root: Path, clients: tuple[int, ...], seconds: float) -> dict[str, Any]:
    """Measure a dataset that `benchmarks.search.write` wrote.

    Args:
        root: folder of the store.
        clients: numbers of clients.
        seconds: seconds in which the answers of some clients are measured.
    """
    tiles = Dataset.open(ObjectStore(root=str(root)), DATASET_ID).tiles()["tile_id"].to_pylist()
    return _measure(root, f"datasets/{DATASET_ID}", tiles, clients, seconds)


def _measure(root: Path, view: str, tiles: list[str], clients: tuple[int, ...], seconds: float) -> dict[str, Any]:
    chosen = np.random.default_rng(2).choice(tiles, min(_TILES, len(tiles)), replace=False).tolist()
    with Explorer(str(root), root.parent / "service") as explorer:
        path = f"/api/{view}/search"
        first = explorer.post(path, {"query": {"tile": chosen[0]}}).raise_for_status()
        found: dict[str, Any] = {
            "rows": len(tiles),
            "engine": first.json()["engines"][0]["name"],
            "first_ms": first.elapsed.total_seconds() * 1e3,
        }
        found["clients"] = {str(number): _ask(explorer, path, chosen, number, seconds) for number in clients}
        found["service_mib"] = psutil.Process(explorer.pid).memory_info().rss / 2**20
    return found


def _ask(explorer: Explorer, path: str, tiles: list[str], clients: int, seconds: float) -> dict[str, float]:
    """Let clients ask for some seconds. Return the median and the 95th percentile of the time of an answer."""
    times: list[float] = []
    numbers = count()
    problems: list[httpx.HTTPError] = []
    cpu = _processor_seconds(explorer)
    begun = time.perf_counter()

    def client() -> None:
        try:
            with httpx.Client(base_url=explorer.url, timeout=60) as connection:
                while time.perf_counter() - begun < seconds:
                    body = {"query": {"tile": tiles[next(numbers) % len(tiles)]}}
                    sent = time.perf_counter()
                    connection.post(path, json=body).raise_for_status()
                    times.append((time.perf_counter() - sent) * 1e3)
        except httpx.HTTPError as error:
            problems.append(error)

    threads = [threading.Thread(target=client) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if problems:
        raise problems[0]
    return {
        "answers": len(times),
        "median_ms": statistics.median(times),
        "p95_ms": float(np.quantile(times, 0.95)),
        "largest_ms": max(times),
        "per_s": len(times) / (time.perf_counter() - begun),
        "service_cpu_ms": (_processor_seconds(explorer) - cpu) / len(times) * 1e3,
    }


def _processor_seconds(explorer: Explorer) -> float:
    times = psutil.Process(explorer.pid).cpu_times()
    return float(times.user + times.system)


def markdown(report: dict[str, Any]) -> str:
    """Return the results as a Markdown table."""
    head = ["view", "rows", "engine", "clients", "median ms", "95 % within ms", "answers/s", "service CPU ms/answer"]
    rows = []
    for name, found in report["runs"].items():
        view = "the demo's collection" if name == "demo" else "generated dataset"
        for number, one in found["clients"].items():
            numbers = [f"{one[key]:,.0f}" for key in ("median_ms", "p95_ms")]
            numbers += [f"{one['per_s']:,.1f}", f"{one['service_cpu_ms']:,.1f}"]
            rows.append([view, f"{found['rows']:,}", f"`{found['engine']}`", number, *numbers])
    return where(report) + table(head, rows)


if __name__ == "__main__":
    run(measure, markdown)
