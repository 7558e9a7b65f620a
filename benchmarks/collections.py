"""Measure a collection of many small scenes: time, store requests and memory a scene, and a large catalogue.

Each run has a new process. The processor time of the model and of the reader is measured in their threads, and taken
away from that of the process: the rest is the cost of a scene beyond reading and model. PyTorch gets one thread,
because its other threads spin while they wait, and this would count as cost.
"""

from __future__ import annotations

import os
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness import RESULTS, alone, load, run, save, status_mib, table, where

NAME = "collections"

SIDE = 512
"""Side of a scene, px."""

_METHODS = (
    "read", "write", "create", "write_from_file", "create_from_file", "open", "sizes", "find", "delete", "describe",
)  # fmt: skip
"""Methods of a storage in a folder that would send at least one request to S3."""

_GOAL_MS, _GOAL_REQUESTS = 60, 6
"""Goals for a scene: milliseconds and store requests beyond reading and model."""


def measure(
    *,
    scenes: tuple[int, ...] = (100, 1_000),
    rows: int = 100_000,
    root: str | None = None,
    model: str = "demo",
    with_flow: bool = True,
    results: Path = RESULTS,
) -> dict[str, Any]:
    """Embed collections of small scenes, run again, and filter a large catalogue.

    Args:
        scenes: Numbers of scenes. Each scene has 512x512 px in uint8, so four tiles of 224 px.
        rows: Number of generated scenes in the large catalogue.
        root: Folder or s3://bucket/prefix for the collections. The AWS variables name the server. By default a
            temporary folder.
        model: Model that embeds the tiles.
        with_flow: Embed the scenes with the Prefect flow too, and count its task runs.
        results: Folder for the result file.
    """
    parameters = dict(locals())
    load_before = load()
    runs: dict[str, dict[str, Any]] = {}
    os.environ["OMP_NUM_THREADS"] = "1"
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        for number in scenes:
            folder, store = place / f"scenes-{number}", f"{root or place}/benchmark-{number}"
            for index in range(number):
                make_scene(folder, index)
            first = alone(embed, folder, store, model)
            again = alone(embed, folder, store, model)
            flow = alone(run_flow, folder, f"{store}-flow", model, place / f"prefect-{number}") if with_flow else None
            make_scene(folder, number)
            one_added = alone(embed, folder, store, model)
            runs[str(number)] = {"first": first, "again": again, "one_added": one_added, "flow": flow}
        catalogue = alone(large_catalogue, rows, place / "large")
    return save(NAME, parameters, load_before, {"runs": runs, "catalogue": catalogue}, results)


def make_scene(folder: Path, number: int) -> Path:
    """Write a scene as a tiled GeoTIFF without compression. Scenes with other numbers have other pixels and places."""
    import rasterio
    from rasterio.transform import Affine

    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{number:06d}.tif"
    random = np.random.default_rng(number)
    coarse = random.integers(0, 230, (3, SIDE // 16, SIDE // 16)).repeat(16, axis=1).repeat(16, axis=2)
    pixels = np.clip(coarse + random.integers(0, 25, (3, SIDE, SIDE)), 1, 255).astype(np.uint8)
    place = Affine(10, 0, 300_000 + 10 * SIDE * (number % 70), 0, -10, 6_800_000 - 10 * SIDE * (number // 70))
    blocks = {"tiled": True, "blockxsize": 256, "blockysize": 256}
    with rasterio.open(
        path, "w", driver="GTiff", width=SIDE, height=SIDE, count=3, dtype="uint8", crs="EPSG:32635", transform=place,
        **blocks,
    ) as file:  # fmt: skip
        file.write(pixels)
    return path


def embed(folder: Path, root: str, model: str) -> dict[str, Any]:
    """Embed a collection in this process, and return its costs."""
    from rasterembed.collection_pipeline import CollectionOptions, CollectionSteps, embed_collection
    from rasterembed.dataset.embedding import Execution
    from rasterembed.dataset.plan import PlanSettings
    from rasterembed.model.choice import Dinov3
    from rasterembed.store.object_store import ObjectStore

    costs, requests = _Costs(), Counter[str]()
    costs.count_threads()
    _count_requests(requests, root)

    class Steps(CollectionSteps):
        """Steps that know when the scenes begin and end."""

        def embed_scenes(self, *arguments: Any) -> Iterator[Any]:
            rows = super().embed_scenes(*arguments)
            first = next(rows, None)  # The first scene waits for the model, and is not counted.
            if first is None:
                return
            costs.begin(requests)
            yield first
            yield from rows
            costs.end(requests)

    settings = PlanSettings(model=Dinov3(model=model, device="cpu"))
    cpu, begun = time.process_time(), time.perf_counter()
    # `auto` would choose OpenVINO for the larger runs only, and its memory would then differ from that of the smaller.
    options = CollectionOptions(settings=settings, execution=Execution(engine="eager"))
    result = embed_collection(ObjectStore(root=root), "survey", str(folder), options, steps=Steps())
    count = result.comparison.to_embed_count
    report: dict[str, Any] = {
        "scenes": count,
        "seconds": time.perf_counter() - begun,
        "cpu_s": time.process_time() - cpu,
        "peak_mib": status_mib("VmHWM"),
        "states": {state.value: number for state, number in result.collection.catalogue.counts().items()},
    }
    return report | (costs.of_a_scene(count - 1) if count > 1 else {})


def run_flow(folder: Path, root: str, model: str, prefect_home: Path) -> dict[str, Any]:
    """Embed a collection by the flow, on the server that the flow starts. Return its task runs, time and memory.

    Call it in a new process, because Prefect reads its settings when it is imported.
    """
    os.environ |= {
        "PREFECT_HOME": str(prefect_home),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
        "PREFECT_LOGGING_LEVEL": "ERROR",
    }
    os.environ.pop("PREFECT_API_URL", None)
    from prefect.client.orchestration import get_client

    from flows.embed_collection import embed_collection_flow
    from rasterembed.dataset.embedding import Execution
    from rasterembed.model.choice import Dinov3

    begun = time.perf_counter()
    choice = Dinov3(model=model, device="cpu")
    embed_collection_flow("survey", str(folder), root=root, dinov3=choice, execution=Execution(engine="eager"))
    seconds = time.perf_counter() - begun
    with get_client(sync_client=True) as client:

        def count() -> int:
            """Return the number of task runs that the server knows."""
            pages = range(0, 100_000, _PAGE)
            lengths = (len(client.read_task_runs(limit=_PAGE, offset=offset)) for offset in pages)
            return sum(takewhile(bool, lengths))

        task_runs, earlier = count(), -1
        while task_runs != earlier:  # The server records task runs a little later than they end.
            time.sleep(2)
            task_runs, earlier = count(), task_runs
    return {"task_runs": task_runs, "seconds": seconds, "peak_mib": status_mib("VmHWM")}


_PAGE = 200
"""Largest number of task runs in an answer of a Prefect server."""


class _Costs:
    """Processor time of the process, of the model's thread and of the reading threads, and store requests."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._threads = {"model": 0.0, "reading": 0.0}
        self._begun: dict[str, float] = {}
        self._ended: dict[str, float] = {}
        self._requests: Counter[str] = Counter()

    def count_threads(self) -> None:
        """Measure the time of the model and of the reader from now on."""
        from rasterembed.model.embedder import Embedder
        from rasterembed.raster.shard_reader import ShardReader

        compute, read = Embedder._embed, ShardReader.batches

        def computing(*arguments: Any) -> Any:
            begun = time.thread_time()
            try:
                return compute(*arguments)
            finally:
                self._add("model", begun)

        def reading(*arguments: Any) -> Any:
            batches = read(*arguments)
            while True:
                begun = time.thread_time()
                try:
                    batch = next(batches)
                except StopIteration:
                    return
                finally:
                    self._add("reading", begun)
                yield batch

        for owner, name, function in ((Embedder, "_embed", computing), (ShardReader, "batches", reading)):
            setattr(owner, name, function)

    def _add(self, name: str, begun: float) -> None:
        with self._lock:
            self._threads[name] += time.thread_time() - begun

    def _now(self) -> dict[str, float]:
        return {**self._threads, "cpu": time.process_time(), "wall": time.perf_counter()}

    def begin(self, requests: Counter[str]) -> None:
        """Begin to count."""
        self._begun = self._now()
        self._requests = Counter(requests)

    def end(self, requests: Counter[str]) -> None:
        """Stop counting."""
        self._ended = self._now()
        self._requests = requests - self._requests

    def of_a_scene(self, count: int) -> dict[str, Any]:
        """Return the costs of one scene, in ms and requests."""
        ms = {name: 1e3 * (self._ended[name] - self._begun[name]) / count for name in self._begun}
        return {
            "wall_ms": ms["wall"],
            "cpu_ms": ms["cpu"],
            "model_ms": ms["model"],
            "reading_ms": ms["reading"],
            "other_ms": ms["cpu"] - ms["model"] - ms["reading"],
            "requests": {name: number / count for name, number in sorted(self._requests.items())},
        }


def _count_requests(requests: Counter[str], root: str) -> None:
    """Count the requests to the store from now on. Requests for rasters, and checks of the lease, are left out.

    On S3, the lease is checked every two seconds, however many scenes there are. In a folder, a check is cheap, so the
    lease is checked before each write.
    """
    if root.startswith("s3://"):
        from s3fs.core import S3FileSystem

        send = S3FileSystem._call_s3
        prefix = root.removeprefix("s3://").partition("/")[2]

        async def sending(self: Any, method: str, *arguments: Any, **more: Any) -> Any:
            key = str(more.get("Key") or more.get("Prefix") or "")
            if key.startswith(prefix) and "/lease" not in key:
                requests[method] += 1
            return await send(self, method, *arguments, **more)

        S3FileSystem._call_s3 = sending
        return
    from rasterembed.store.folder import FolderStorage

    def counted(name: str) -> None:
        method = getattr(FolderStorage, name)

        def counting(self: Any, path: str, *arguments: Any) -> Any:
            before = getattr(_within, "any", False)
            if path.startswith(root) and "/lease" not in path and not before:
                requests[name] += 1
            _within.any = True
            try:
                return method(self, path, *arguments)
            finally:
                _within.any = before

        setattr(FolderStorage, name, counting)

    for name in _METHODS:
        counted(name)


_within = threading.local()
"""Whether a thread is inside a counted method. One method may call another one, which is no second request."""


def large_catalogue(rows: int, root: Path) -> dict[str, float]:
    """Write a catalogue with generated scenes, and open, filter and compare it in this process."""
    import shapely

    from rasterembed.collection.catalogue import Catalogue, read_catalogue, write_catalogue
    from rasterembed.collection.comparison import compare
    from rasterembed.collection.found_scene import FoundScene, listing_of
    from rasterembed.collection.members import member_id
    from rasterembed.collection.scene_row import QaVerdict, SceneRow, SceneState
    from rasterembed.store.layout import CollectionLayout
    from rasterembed.store.object_store import ObjectStore

    store, layout = ObjectStore(root=str(root)), CollectionLayout("large")
    random = np.random.default_rng(0)
    lon, lat = random.uniform(-180, 179, rows), random.uniform(-80, 79, rows)
    begun = datetime(2015, 1, 1, tzinfo=UTC)

    def row(number: int) -> SceneRow:
        uri = f"s3://archive/{number:06d}.tif"
        return SceneRow(
            id=member_id("large", uri), source=uri, source_size=number, source_version=f"{number:032x}",
            state=SceneState.READY, reason=None, qa=QaVerdict.PASSED, rows=4, skipped=0, shards=1,
            fingerprint=f"{number:064x}", datetime=begun + timedelta(hours=number), cloud_cover=number % 100,
            geometry=shapely.to_wkb(shapely.box(lon[number], lat[number], lon[number] + 1, lat[number] + 1)),
            item=None, listing="s3://archive",
        )  # fmt: skip

    cpu = time.process_time()
    write_catalogue(store, layout, Catalogue.of(map(row, range(rows))), {})
    written = time.process_time() - cpu
    scenes = [FoundScene(f"s3://archive/{n:06d}.tif", n + (n == 7), f"{n:032x}") for n in range(rows)]
    before = status_mib("VmRSS")
    marks, clocks = [time.perf_counter()], [time.process_time()]

    def mark() -> None:
        marks.append(time.perf_counter())
        clocks.append(time.process_time())

    catalogue = read_catalogue(store, layout)
    assert catalogue is not None
    mark()
    found = catalogue.filter(bbox=(20, 55, 40, 70), since=datetime(2018, 1, 1), until=datetime(2020, 1, 1))
    mark()
    comparison = compare(catalogue, listing_of("s3://archive", scenes), lambda uri: True)
    mark()
    assert comparison.to_embed_count == 1
    return {
        "rows": rows,
        "found": found.count,
        "write_cpu_s": written,
        **{f"{name}_s": marks[i + 1] - marks[i] for i, name in enumerate(("open", "filter", "compare"))},
        **{f"{name}_cpu_s": clocks[i + 1] - clocks[i] for i, name in enumerate(("open", "filter", "compare"))},
        "more_mib": status_mib("VmRSS") - before,
    }


def markdown(report: dict[str, Any]) -> str:
    """Return the result as a Markdown table with a short summary."""
    head = [
        "scenes", "whole run, s", "a scene: wall, ms", "model", "reading", "beyond both", "store requests",
        "peak, MiB", "nothing to do, s", "one added, s",
        "task runs of the flow",
    ]  # fmt: skip
    lines = []
    for number, runs in report["runs"].items():
        first = runs["first"]
        lines.append(
            [
                number,
                f"{first['seconds']:.0f}",
                f"{first['wall_ms']:.0f}",
                f"{first['model_ms']:.0f}",
                f"{first['reading_ms']:.0f}",
                f"{first['other_ms']:.0f}",
                f"{sum(first['requests'].values()):.1f}",
                f"{first['peak_mib']:.0f}",
                f"{runs['again']['seconds']:.1f}",
                f"{runs['one_added']['seconds']:.1f}",
                "" if runs["flow"] is None else str(runs["flow"]["task_runs"]),
            ]
        )
    large = report["catalogue"]
    text = (
        "Model, reading and the rest are processor time in ms a scene. "
        f"The goals are {_GOAL_MS} ms and {_GOAL_REQUESTS} requests.\n\n"
        f"A catalogue of {large['rows']:,} scenes: opened in {large['open_s']:.2f} s, filtered by place and date in "
        f"{large['filter_s']:.2f} s, compared with a listing in {large['compare_s']:.2f} s; "
        f"{large['more_mib']:.0f} MiB.\n"
    )
    return where(report) + table(head, lines) + "\n" + text


if __name__ == "__main__":
    run(measure, markdown)
