"""Measure all search engines on 100,000 to 10,000,000 vectors, beside other packages in the same run.

Each part runs in its own process, one after the other. The rows are tiles of one dataset. Up to a million rows, vectors
are float32 at rest. Ten million rows are stored as int8. They need about 20 GB of disk, and are left out if the disk or
the memory is too small.

- A *build* reads the shards and writes the vector index. Its memory is the growth of anonymous memory. The pages of
  mapped files do not count, because the system can drop them at any time.
- The *first answer* is that of a new Python process, from its start to its end, for a tile of the dataset. It includes
  all imports.
- An *answer* is `Searcher.ask_vector` with ten tiles. The filters keep random rows (`min_valid_fraction`) or one area
  (`bbox`). The first query with a filter finds its rows. The following queries use them again.
- *Recall* is the share of the exact ten nearest rows in the answers. The exact rows are found by NumPy from the shards.

Processor time is the sum over all threads. On a busy machine, it is steadier than the clock.

All sizes take hours. Therefore the result file keeps the results of the kinds and sizes that are not measured again.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from itertools import count
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import psutil
import pyarrow.parquet as pq
from numpy.typing import NDArray

from benchmarks.harness import (
    RESULTS,
    default_rasters,
    load,
    peak_of_anonymous_memory,
    run,
    save,
    status_mib,
    table,
)
from benchmarks.peers import VENVS, Unavailable, python_of
from benchmarks.search_peers import KINDS, LABELS, measure_way, vector_kinds, versions, write_vectors
from benchmarks.vectors import Nearest, Vectors, questions, unit
from rasterembed.dataset.dataset import Dataset
from rasterembed.model.choice import Dinov3
from rasterembed.raster.grid import tile_id
from rasterembed.search.engines.engine import CANDIDATES
from rasterembed.search.index.building import build_vector_index
from rasterembed.search.index.opening import open_segments
from rasterembed.search.index_options import FLAT_MAX_ROWS, MIN_ROWS, VectorIndexOptions
from rasterembed.search.query import EngineChoice, Where
from rasterembed.search.searcher import Searcher
from rasterembed.search.vector_files import VectorFiles
from rasterembed.store.object_store import ObjectStore
from tests.support.vectors import blank_raster, checkpoint, write_dataset
from tests.support.waiting import wait_for

NAME = "search"

PERCENTS = (50, 10, 1)
"""Shares of the rows that the filters keep, in percent."""

CLIENTS = (1, 4, 10)
"""Numbers of threads that share a `Searcher`. Other packages are asked by one and four threads."""

DATASET_ID = "made-up"
_K = 10

AREA = (-180.0, -80.0, 24.6, 84.0)
"""A box with the west of the raster, in degrees."""


def measure(
    *,
    rows: tuple[int, ...] = (100_000, 1_000_000, 10_000_000),
    kinds: tuple[str, ...] = ("clustered", "rasters"),
    engines: tuple[EngineChoice, ...] = ("scan", "flat", "ivf", "vss"),
    vss_up_to: int = 100_000,
    others_up_to: int = 1_000_000,
    int8_from: int = 10_000_000,
    peers: tuple[str, ...] = ("numpy", "usearch", "lancedb_ivf_sq"),
    queries: int = 500,
    seconds: float = 3.0,
    rasters: Path | None = None,
    venvs: Path = VENVS,
    scratch: Path | None = None,
    results: Path = RESULTS,
) -> dict[str, Any]:
    """Measure search.

    Args:
        rows: Numbers of vectors. A vector has 384 numbers.
        kinds: Kinds of vectors, `clustered` and `rasters`. See `benchmarks.vectors`.
        engines: Engines to measure.
        vss_up_to: Largest number of rows for `vss`, whose build takes 18 to 40 minutes for a million rows.
        others_up_to: Largest number of rows for `scan` and `flat`, and for other packages.
        int8_from: Smallest number of rows whose vectors are int8 at rest.
        peers: Other packages, keys of `benchmarks.search_peers.LABELS`.
        queries: Number of queries for each measurement.
        seconds: Seconds in which answers are counted, for each number of threads.
        rasters: Folder of real rasters; by default the variable RASTERS or ../shared/data/rasters.
        venvs: Folder of the environment of the other packages, which is made on first use.
        scratch: Folder for datasets and indexes; by default a temporary folder.
        results: Folder for the result file.
    """
    parameters = dict(locals())
    load_before = load()
    by_kind, notes = vector_kinds(kinds, rasters or default_rasters())
    runs = _earlier_runs(results)
    for kind, size in [(kind, size) for kind in by_kind for size in rows]:
        with tempfile.TemporaryDirectory(dir=scratch) as folder, cache_below(folder):
            dtype = "int8" if size >= int8_from else "float32"
            if reason := why_too_small(Path(folder), size, dtype):
                notes.append(f"{kind}, {size:,} rows: left out, because {reason}.")
                continue
            load_at_start = round(load(), 2)
            used: list[EngineChoice] = [
                engine for engine in engines if size <= {"ivf": size, "vss": vss_up_to}.get(engine, others_up_to)
            ]
            run_ = _measure_engines(Path(folder), by_kind[kind], size, dtype, used, queries, seconds)
            if size <= others_up_to and peers:
                run_["peers"] = _measure_peers(Path(folder), by_kind[kind], size, peers, queries, seconds, venvs)
            finished = datetime.now(UTC).isoformat(timespec="seconds")
            runs[f"{kind}/{size}"] = {"finished": finished, "load_before": load_at_start, **run_}
        # A run of hours keeps the sizes before the one that fails.
        save(NAME, parameters, load_before, _content(runs, notes), results)
    return save(NAME, parameters, load_before, _content(runs, notes), results)


def _content(runs: Mapping[str, Any], notes: Sequence[str]) -> dict[str, Any]:
    """Return the content of the result file. The runs are sorted by kind and number of rows."""
    return {"runs": dict(sorted(runs.items(), key=_kind_and_rows)), "notes": list(notes), "versions": versions()}


def _earlier_runs(folder: Path) -> dict[str, Any]:
    """Return the runs of the result file, or nothing if there is no file."""
    file = folder / f"{NAME}.json"
    return dict(json.loads(file.read_text())["runs"]) if file.exists() else {}


def _kind_and_rows(named_run: tuple[str, Any]) -> tuple[str, int]:
    """Return the kind and the number of rows of a run. The name of a run is `KIND/ROWS`."""
    kind, _, rows = named_run[0].partition("/")
    return kind, int(rows)


@contextmanager
def cache_below(folder: str) -> Iterator[None]:
    """Let all processes write caches and temporary files below a folder.

    Args:
        folder: the folder. It is created if it does not exist.
    """
    Path(folder).mkdir(exist_ok=True)
    names = ("TMPDIR", "XDG_CACHE_HOME")
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(dict.fromkeys(names, folder))
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


def why_too_small(folder: Path, rows: int, dtype: str) -> str | None:
    """Return the reason why a size cannot be measured on this machine, or None if it can.

    Args:
        folder: a folder on the disk for the data.
        rows: number of vectors.
        dtype: type of the vectors at rest.
    """
    # The shards, the stored vectors, the codes of one engine and the row columns, each at most once.
    at_rest = 384 * np.dtype(dtype).itemsize
    disk = rows * (2 * at_rest + 768 + 400)
    memory = rows * 400 + 2 * 10**9
    if (free := shutil.disk_usage(folder).free) < disk:
        return f"the disk has {free / 1e9:.0f} GB free, and {disk / 1e9:.0f} GB are needed"
    if (free := psutil.virtual_memory().available) < memory:
        return f"{free / 1e9:.0f} GB of memory are free, and {memory / 1e9:.0f} GB are needed"
    return None


_T = TypeVar("_T")


def part(function: Callable[..., _T], *arguments: object) -> _T:
    """Call a module's function in a new process, and return the function's result.

    The process is a fork of a server that has imported the modules below and has done nothing else. So it starts in a
    moment.
    """
    context = get_context("forkserver")
    context.set_forkserver_preload(["benchmarks.search_peers", "rasterembed.search.searcher", "tests.support.vectors"])
    # The server keeps the variables of its start, with the cache folder of the first dataset.
    variables = dict(os.environ)
    with ProcessPoolExecutor(1, mp_context=context, initializer=_set_variables, initargs=(variables,)) as process:
        return process.submit(function, *arguments).result()


def _set_variables(variables: Mapping[str, str]) -> None:
    os.environ.update(variables)


def _measure_engines(
    root: Path, vectors: Vectors, rows: int, dtype: str, engines: Sequence[EngineChoice], queries: int, seconds: float
) -> dict[str, Any]:
    asked = questions(vectors, queries)
    np.save(root / "queries.npy", asked)
    _say("writing the dataset")
    found: dict[str, Any] = {"dataset": write(root, vectors, rows, dtype), "engines": {}}
    _say("exact answers")
    part(_exact, root)
    for engine in engines:
        _say(engine)
        one: dict[str, Any] = {} if engine == "scan" else {"build": part(build, root, engine)}
        one["first_ever"], one["first"] = first_answer(root, engine), first_answer(root, engine)
        one |= part(_ask, root, engine, seconds)
        one["processes"] = _by_processes(root, engine, seconds)
        found["engines"][engine] = one
    shutil.rmtree(root / "store")
    return found


def _measure_peers(
    root: Path, vectors: Vectors, rows: int, ways: Sequence[str], queries: int, seconds: float, venvs: Path
) -> dict[str, Any]:
    try:
        python = python_of("vector_search", venvs)
    except Unavailable as error:
        return {way: {"failed": str(error)} for way in ways}
    folder = root / "peers"
    folder.mkdir()
    write_vectors(folder, vectors, rows, 2 * queries)
    return {way: measure_way(python, way, folder, seconds) for way in ways}


def _say(what: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {what}", file=sys.stderr, flush=True)


def _store(root: Path) -> ObjectStore:
    return ObjectStore(root=str(root / "store"))


def write(root: Path, vectors: Vectors, rows: int, dtype: str) -> dict[str, Any]:
    """Write a dataset of a blank raster with the given vectors.

    The valid fraction of a tile is a random number, so a bound of 0.9 keeps about 10 percent of the rows.

    Args:
        root: folder for the raster, the model and the store.
        vectors: function that generates vectors.
        rows: number of tiles. It is rounded up to a whole line of tiles.
        dtype: type of the vectors at rest.
    """
    cols = math.isqrt(rows)
    lines = -(-rows // cols)
    raster = blank_raster(root / "blank.tif", lines, cols)
    model = Dinov3(model=str(checkpoint(root / "model", 384)))
    fraction = np.random.default_rng(3).random(lines * cols, np.float32)
    begun = time.process_time()
    manifest = write_dataset(
        _store(root), DATASET_ID, raster, model, vectors, valid_fraction=fraction, vector_dtype=dtype
    )
    return {
        "rows": manifest.rows,
        "dtype": dtype,
        "shards_mb": manifest.bytes / 1e6,
        "seconds": time.process_time() - begun,
    }


def _dataset(root: Path) -> Dataset:
    return Dataset.open(_store(root), DATASET_ID)


def _exact(root: Path) -> None:
    """Write the tiles nearest to each query, from the shards alone, without filters and with each filter."""
    asked = np.load(root / "queries.npy")
    nearest = {percent: Nearest(asked, _K) for percent in (100, *PERCENTS)}
    dataset, ids = _dataset(root), []
    first = 0
    for shard in dataset.manifest.shards:
        if not shard.rows:
            continue
        rows = pq.read_table(root / "store" / shard.path, columns=["tile_id", "valid_fraction", "embedding"])
        values = rows["embedding"].combine_chunks().flatten().to_numpy()
        block = unit(values.astype(np.float32).reshape(len(rows), -1))
        fraction = rows["valid_fraction"].to_numpy()
        numbers = np.arange(first, first + len(rows))
        for percent, best in nearest.items():
            kept = fraction >= _least_fraction(percent)
            best.add(block[kept], numbers[kept])
        ids.append(rows["tile_id"].to_numpy().astype(str))
        first += len(rows)
    names = np.concatenate(ids)
    exact: dict[str, Any] = {str(percent): names[best.rows] for percent, best in nearest.items()}
    np.savez(root / "exact.npz", **exact)


def _least_fraction(percent: int) -> float:
    return 1 - percent / 100


def build(root: Path, engine: EngineChoice) -> dict[str, Any]:
    """Build the index of the dataset that `write` wrote.

    Args:
        root: folder of the store.
        engine: engine of the index.

    Returns:
        The time, the memory, the size of the files, and the recall that the build measured.
    """
    files = VectorFiles.of_dataset(_dataset(root))
    options = VectorIndexOptions.model_validate({"index": "always", "index_engine": engine})
    begun, clock = time.process_time(), time.monotonic()
    with peak_of_anonymous_memory() as peak:
        index = build_vector_index(files, options).index
    assert index is not None
    return {
        "cpu_s": time.process_time() - begun,
        "clock_s": time.monotonic() - clock,
        "peak_mib": peak(),
        "file_mb": index.bytes / 1e6,
        "recall": index.recall,
        "lists": index.segments[0].codes.lists if index.segments else 0,
        "probes": index.segments[0].codes.probes if index.segments else 0,
    }


_FIRST = """
import sys
from rasterembed import ObjectStore, Query, Searcher
with Searcher(ObjectStore(root=sys.argv[1]), [sys.argv[2]], engine=sys.argv[3]) as searcher:
    answer = searcher.ask(Query(tile=sys.argv[4]), k=10)
assert [used.name for used in answer.engines] == [sys.argv[3]] and len(answer.hits) == 10, answer
"""


def first_answer(root: Path, engine: str) -> dict[str, float]:
    """Return the clock and processor seconds of a Python process that answers one query.

    Args:
        root: folder of the store.
        engine: engine that must answer.
    """
    command = [sys.executable, "-c", _FIRST, str(root / "store"), DATASET_ID, engine, tile_id(7, 11)]
    before, begun = os.times(), time.perf_counter()
    subprocess.run(command, check=True)
    after = os.times()
    used = after.children_user + after.children_system - before.children_user - before.children_system
    return {"clock_s": time.perf_counter() - begun, "cpu_s": used}


def _ask(root: Path, engine: EngineChoice, seconds: float) -> dict[str, Any]:
    asked = np.load(root / "queries.npy")
    exact = np.load(root / "exact.npz")
    found: dict[str, Any] = {}
    before = status_mib("RssAnon")
    with Searcher(_store(root), [DATASET_ID], engine=engine) as searcher:
        used = searcher.ask_vector(asked[0], k=_K).engines
        assert [one.name for one in used] == [engine], used

        def ask(where: Where, query: NDArray[np.float32]) -> list[str]:
            return [hit.tile_id for hit in searcher.ask_vector(query, where, _K).hits]

        found["filters"] = {"100": _answers(partial(ask, Where()), asked, exact["100"])}
        found["grown_mib"] = status_mib("RssAnon") - before
        for percent in PERCENTS:
            where = Where(min_valid_fraction=_least_fraction(percent))
            found["filters"][str(percent)] = _answers(partial(ask, where), asked, exact[str(percent)])
        found["area"] = _answers(partial(ask, Where(bbox=AREA)), asked, None)
        found["threads"] = {
            str(clients): _answers_a_second(partial(ask, Where()), asked, clients, seconds) for clients in CLIENTS
        }
    if engine in ("flat", "ivf"):
        found["codes"] = _codes(root, asked)
    return found


def _codes(root: Path, asked: NDArray[np.float32]) -> dict[str, float]:
    """Measure the part of an answer that FAISS does: the proposal of candidates."""
    index = open_segments(VectorFiles.of_dataset(_dataset(root)))
    codes = index.segments[0].codes
    times = _times(lambda query: codes.candidates(query[None], CANDIDATES, None), asked)
    index.close()
    return times


def _answers(
    ask: Callable[[NDArray[np.float32]], list[str]], asked: NDArray[np.float32], exact: NDArray[np.str_] | None
) -> dict[str, float]:
    """Time the first answer and the following ones, and measure their recall."""
    begun, cpu = time.perf_counter(), time.process_time()
    ask(asked[0])
    found = {"first_clock_ms": (time.perf_counter() - begun) * 1e3, "first_cpu_ms": (time.process_time() - cpu) * 1e3}
    hits: list[list[str]] = []
    found |= _times(lambda query: hits.append(ask(query)), asked)
    if exact is not None:
        shares = [len(set(hit) & set(tiles)) / len(tiles) for hit, tiles in zip(hits, exact, strict=False)]
        found["recall"] = statistics.mean(shares)
    return found


def _times(ask: Callable[[NDArray[np.float32]], object], asked: NDArray[np.float32]) -> dict[str, float]:
    """Return clock and processor time of an answer in milliseconds: medians and 95th percentile.

    If the answers take longer than 30 seconds together, the rest of the queries is left out.
    """
    clocks, cpus = [], []
    stop = time.perf_counter() + 30
    for query in asked:
        begun, cpu = time.perf_counter(), time.process_time()
        ask(query)
        clocks.append((time.perf_counter() - begun) * 1e3)
        cpus.append((time.process_time() - cpu) * 1e3)
        if time.perf_counter() > stop and len(clocks) >= 3:
            break
    return {
        "clock_ms": statistics.median(clocks),
        "p95_clock_ms": float(np.quantile(clocks, 0.95)),
        "least_clock_ms": min(clocks),
        "cpu_ms": statistics.median(cpus),
        "p95_cpu_ms": float(np.quantile(cpus, 0.95)),
    }


def _answers_a_second(
    ask: Callable[[NDArray[np.float32]], object], asked: NDArray[np.float32], clients: int, seconds: float
) -> dict[str, float]:
    """Return how many answers some threads get together, in a second of the clock and of processor time."""
    numbers, done = count(), [0] * clients
    begun, cpu = time.perf_counter(), time.process_time()

    def client(own: int) -> None:
        while time.perf_counter() - begun < seconds:
            ask(asked[next(numbers) % len(asked)])
            done[own] += 1

    threads = [threading.Thread(target=client, args=(own,)) for own in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    answers = sum(done)
    return {
        "per_clock_s": answers / (time.perf_counter() - begun),
        "per_cpu_s": answers / max(time.process_time() - cpu, 1e-9),
    }


def _by_processes(root: Path, engine: EngineChoice, seconds: float) -> dict[str, float]:
    """Return how many answers ten clients get in a second, together, from a process for each core.

    Each process has a searcher, which its share of the clients uses in threads.
    """
    cores = os.cpu_count() or 1
    clients = max(1, CLIENTS[-1] // cores)
    ready = root / "ready"
    ready.mkdir()
    with ThreadPoolExecutor(cores) as threads:
        asking = [
            threads.submit(part, _ask_in_process, root, engine, seconds, clients, ready / str(n), cores)
            for n in range(cores)
        ]
        answers = sum(one.result() for one in asking)
    shutil.rmtree(ready)
    return {"processes": cores, "clients": cores * clients, "per_clock_s": answers}


def _ask_in_process(
    root: Path, engine: EngineChoice, seconds: float, clients: int, ready: Path, processes: int
) -> float:
    """Return how many answers the clients of this process get in a second.

    Args:
        root: folder of the store.
        engine: engine that must answer.
        seconds: seconds in which answers are counted.
        clients: number of threads.
        ready: file that says that this process has opened the index. All processes have one in the same folder.
        processes: number of processes, which begin to count when all of them are ready.
    """
    asked = np.load(root / "queries.npy")
    with Searcher(_store(root), [DATASET_ID], engine=engine) as searcher:
        ask = partial(searcher.ask_vector, k=_K)
        ask(asked[0])
        ready.touch()
        wait_for(lambda: len(list(ready.parent.iterdir())) == processes, "the other processes")
        return _answers_a_second(ask, asked, clients, seconds)["per_clock_s"]


_HEAD = [
    "engine", "build, s", "of processor", "peak, MiB", "files, MB", "first answer, s", "answer, ms", "95 %",
    "of processor", "FAISS alone", "at 50 %", "at 10 %", "at 1 %", "an area", "first at 10 %", "recall@10",
    "least, filtered", "memory, MiB", "answers a second, 1 thread", "4 threads", "10 threads",
    "10 clients, a process for each core",
]  # fmt: skip


def markdown(report: dict[str, Any]) -> str:
    """Return the results as Markdown tables."""
    machine = report["machine"]
    text = (
        f"{machine['processor']}, {machine['cores']} cores; Python "
        f"{machine['python']}, DuckDB {machine['duckdb']}, {', '.join(report['versions'])}.\n"
    )
    for name, found in report["runs"].items():
        kind, _, _rows = name.partition("/")
        dataset = found["dataset"]
        text += (
            f"\n{KINDS[kind]}, {dataset['rows']:,} rows, {dataset['dtype']} at rest, measured on "
            f"{found['finished'][:10]}, load before {found['load_before']}:\n\n"
        )
        rows = [_row(engine, one) for engine, one in found["engines"].items()]
        peers = found.get("peers", {})
        rows += [_peer_row(way, one) for way, one in peers.items() if "failed" not in one]
        text += table(_HEAD, rows)
        text += "".join(f"\n{LABELS[way]}: {one['failed']}.\n" for way, one in peers.items() if "failed" in one)
    text += "".join(f"\n{note}\n" for note in report["notes"])
    return text + (
        f"\n`auto` searches fewer than {MIN_ROWS:,} rows with `scan`, up to {FLAT_MAX_ROWS:,} rows with `flat`, and "
        "more with `ivf`.\n"
    )


def _row(engine: str, one: dict[str, Any]) -> list[str]:
    build, filters = one.get("build"), one["filters"]
    whole = filters["100"]
    built = [f"{build[key]:,.{digits}f}" for key, digits in _BUILD] if build else [""] * len(_BUILD)
    codes = one.get("codes")
    return [
        f"`{engine}`", *built, f"{one['first']['clock_s']:.2f}",
        f"{whole['clock_ms']:,.1f}", f"{whole['p95_clock_ms']:,.1f}", f"{whole['cpu_ms']:,.1f}",
        f"{codes['cpu_ms']:,.1f}" if codes else "",
        *(f"{filters[str(percent)]['cpu_ms']:,.1f}" for percent in PERCENTS),
        f"{one['area']['cpu_ms']:,.1f}", f"{filters['10']['first_cpu_ms']:,.0f}",
        f"{whole['recall']:.3f}", f"{min(filters[str(percent)]['recall'] for percent in PERCENTS):.3f}",
        f"{one['grown_mib']:,.0f}",
        *_by_clients({clients: answers["per_clock_s"] for clients, answers in one["threads"].items()}),
        f"{one['processes']['per_clock_s']:,.1f}" if "clients" in one.get("processes", {}) else "",
    ]  # fmt: skip


_BUILD = (("clock_s", 1), ("cpu_s", 1), ("peak_mib", 0), ("file_mb", 0))


def _peer_row(way: str, one: dict[str, Any]) -> list[str]:
    ask = one["ask"]
    filters, build = ask["filters"], one["build"] | {"file_mb": one["file_mb"]}
    whole = filters["100"]
    return [
        LABELS[way], *(f"{build[key]:,.{digits}f}" for key, digits in _BUILD), f"{ask['first_s']:.2f}",
        f"{whole['clock_ms']:,.1f}", f"{whole['p95_clock_ms']:,.1f}", f"{whole['cpu_ms']:,.1f}", "",
        *(f"{filters[str(percent)]['cpu_ms']:,.1f}" for percent in PERCENTS), "", "",
        f"{whole['recall']:.3f}", f"{min(filters[str(percent)]['recall'] for percent in PERCENTS):.3f}",
        f"{ask['grown_mib']:,.0f}", *_by_clients(ask["answers_per_s"]), "",
    ]  # fmt: skip


def _by_clients(answers_per_s: Mapping[str, float]) -> list[str]:
    """Return the numbers of answers in a second by number of threads. Numbers that were not measured are empty."""
    return [f"{answers_per_s[str(n)]:,.1f}" if str(n) in answers_per_s else "" for n in CLIENTS]


if __name__ == "__main__":
    run(measure, markdown)
