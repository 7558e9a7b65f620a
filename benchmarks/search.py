"""Measure the cost of search in 10,000 to 1,000,000 vectors: exact scan, HNSW index, and build of the index.

The vectors are generated: 200 clusters in 64 directions, with noise in all dimensions. Embeddings of a real scene are
similar to these vectors: a scene has few kinds of places, and its vectors use fewer directions than dimensions. Each
part of the benchmark runs in its own process, one after the other. All times are processor times, because other
processes on the machine hardly change them. A query uses one thread, so on a quiet machine the processor time of a
query equals the wall time.
"""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.harness import RESULTS, alone_with_memory, figure, load, run, save, table
from rasterembed.dataset.dataset import Dataset
from rasterembed.model.choice import Dinov3
from rasterembed.raster.grid import tile_id
from rasterembed.search.engines.scan import ScanEngine, connect
from rasterembed.search.engines.vss import VssEngine
from rasterembed.search.filters import Filters
from rasterembed.search.index.building import build_vector_index
from rasterembed.search.index_options import VectorIndexOptions
from rasterembed.search.query import Query
from rasterembed.search.searcher import Searcher
from rasterembed.search.vector_files import VectorFiles
from rasterembed.store.object_store import ObjectStore
from tests.support.vectors import blank_raster, checkpoint, write_dataset

NAME = "search"

PATIENCE_S = 1.0
"""Largest allowed time for an answer, in seconds. An answer within one second does not interrupt the user's thoughts
(Nielsen, Usability Engineering, 1993, chapter 5)."""

_CLUSTERS, _DIRECTIONS = 200, 64
_K = 10


def measure(
    *,
    rows: tuple[int, ...] = (10_000, 30_000, 100_000, 1_000_000),
    index_up_to: int = 1_000_000,
    dimensions: int = 384,
    queries: int = 20,
    results: Path = RESULTS,
) -> dict[str, Any]:
    """Measure search.

    Args:
        rows: Numbers of vectors to measure.
        index_up_to: Largest number of rows with an index. The build for a million rows takes about half an hour on one
            core.
        dimensions: Length of a vector.
        queries: Number of queries for each engine and size.
        results: Folder for the result file.
    """
    parameters = dict(locals())
    load_before = load()
    sizes = {}
    for count in rows:
        with tempfile.TemporaryDirectory() as scratch:
            root = Path(scratch)
            size: dict[str, Any] = alone_with_memory(_write, root, count, dimensions)
            size["scan"] = alone_with_memory(_scan, root, dimensions, queries)
            if count <= index_up_to:
                size["build"] = alone_with_memory(_build, root)
                size["vss"] = alone_with_memory(_vss, root, dimensions, queries)
            sizes[str(count)] = size
    largest = max(rows)
    per_row = sizes[str(largest)]["scan"]["seconds"].median / largest
    threshold = {"patience_s": PATIENCE_S, "scan_s_per_row": per_row, "rows": _one_digit(PATIENCE_S / per_row)}
    return save(NAME, parameters, load_before, {"sizes": sizes, "threshold": threshold}, results)


def _one_digit(value: float) -> int:
    """Round a number down to one significant digit."""
    power = 10 ** math.floor(math.log10(value))
    return int(value // power * power)


def made_up_vectors(dimensions: int) -> Callable[[NDArray[np.intp]], NDArray[np.float32]]:
    """Return a function that generates vectors.

    The function takes the numbers of n tiles, shape (n,), and returns vectors, shape (n, dimensions). The same numbers
    always give the same vectors.
    """
    rng = np.random.default_rng(1)
    centres = rng.standard_normal((_CLUSTERS, _DIRECTIONS), dtype=np.float32)
    directions = rng.standard_normal((_DIRECTIONS, dimensions), dtype=np.float32) / np.float32(_DIRECTIONS**0.5)

    def vectors(numbers: NDArray[np.intp]) -> NDArray[np.float32]:
        own = np.random.default_rng(int(numbers[0]))
        shape = len(numbers), _DIRECTIONS
        low = centres[own.integers(0, _CLUSTERS, shape[0])] + np.float32(0.7) * own.standard_normal(shape, np.float32)
        noise = own.standard_normal((shape[0], dimensions), np.float32)
        generated: NDArray[np.float32] = low @ directions + np.float32(0.2) * noise
        return generated

    return vectors


def _write(root: Path, count: int, dimensions: int) -> dict[str, Any]:
    cols = math.isqrt(count)
    raster = blank_raster(root / "blank.tif", -(-count // cols), cols)
    model = Dinov3(model=str(checkpoint(root / "model", dimensions)))
    store = ObjectStore(root=str(root / "store"))
    manifest = write_dataset(store, "made-up", raster, model, made_up_vectors(dimensions))
    return {"rows": manifest.rows, "shards": len(manifest.shards), "shards_mb": manifest.bytes / 1e6}


def questions(dimensions: int, queries: int) -> list[NDArray[np.float32]]:
    """Return vectors that are not in the dataset, but are similar to its vectors."""
    return list(made_up_vectors(dimensions)(np.arange(10**9, 10**9 + queries, dtype=np.intp)))


def _first_answer(root: Path, engine: str) -> float:
    """Return the processor seconds to open a searcher and to get its first answer."""
    begun = time.process_time()
    with Searcher(ObjectStore(root=str(root / "store")), ["made-up"], engine=engine) as searcher:  # type: ignore[arg-type]
        answer = searcher.ask(Query(tile=tile_id(7, 11)), k=_K)
    seconds = time.process_time() - begun
    expected = "scan" if engine == "scan" else "vss"
    assert [used.name for used in answer.engines] == [expected], answer.engines
    return seconds


def _scan(root: Path, dimensions: int, queries: int) -> dict[str, Any]:
    first = _first_answer(root, "scan")
    dataset = Dataset.open(ObjectStore(root=str(root / "store")), "made-up")
    engine = ScanEngine(dataset, connect())
    seconds = answer_times(questions(dimensions, queries), lambda q: engine.nearest(q, _K, Filters()))
    return {"first_s": first, "seconds": figure(seconds)}


def _build(root: Path) -> dict[str, Any]:
    begun = time.process_time()
    dataset = Dataset.open(ObjectStore(root=str(root / "store")), "made-up")
    info = build_vector_index(
        VectorFiles.of_dataset(dataset), VectorIndexOptions(index="always", index_engine="vss")
    ).index
    assert info is not None
    return {
        "seconds": time.process_time() - begun,
        "clock_seconds": info.build_seconds,
        "file_mb": info.bytes / 1e6,
        "recall": info.recall,
        "recall_sample": info.recall_sample,
    }


def _vss(root: Path, dimensions: int, queries: int) -> dict[str, Any]:
    first = _first_answer(root, "auto")
    store = ObjectStore(root=str(root / "store"))
    engine = VssEngine(VectorFiles.of_dataset(Dataset.open(store, "made-up")))
    seconds = answer_times(questions(dimensions, queries), lambda q: engine.nearest(q, _K, Filters()))
    return {"first_s": first, "seconds": figure(seconds)}


def answer_times(vectors: list[NDArray[np.float32]], ask: Callable[[NDArray[np.float32]], object]) -> list[float]:
    """Return the processor seconds of each answer. The first question is asked once before, and that is not counted."""
    ask(vectors[0])
    seconds = []
    for vector in vectors:
        begun = time.process_time()
        ask(vector)
        seconds.append(time.process_time() - begun)
    return seconds


def markdown(report: dict[str, Any]) -> str:
    """Return the results as Markdown tables."""
    dimensions = report["parameters"]["dimensions"]
    rows = []
    for count, size in report["sizes"].items():
        exact, build, vss = size["scan"], size.get("build"), size.get("vss")
        rows.append([f"{int(count):,}", "scan", "", "", *_answers(exact), "1"])
        if build and vss:
            again = build["seconds"] / (exact["seconds"]["median"] - vss["seconds"]["median"])
            paid = f"{again:,.0f}" if again > 0 else "never"
            built = [f"{build['seconds']:,.1f}", f"{build['file_mb']:,.0f}"]
            rows.append([f"{int(count):,}", "vss", *built, *_answers(vss), f"{build['recall']:.3f}"])
            rows[-1].append(paid)
        rows[-1 if not vss else -2].append("")
    head = [
        "vectors", "engine", "build, s", "file, MB", "first answer, s", "next answers, ms", "answers a second",
        "memory, MB", f"recall@{_K}", "answers that pay for the build",
    ]  # fmt: skip
    threshold = report["threshold"]
    machine = report["machine"]
    return (
        f"{dimensions} dimensions, k = {_K}, processor time; {machine['processor']}, DuckDB {machine['duckdb']}, "
        f"load before {machine['load_before']}.\n\n"
        f"{table(head, rows)}\n"
        f"The exact scan takes {threshold['scan_s_per_row'] * 1e6:.1f} µs a row, so it answers within "
        f"{threshold['patience_s']:g} s up to {threshold['rows']:,} rows, rounded down to one digit: that is the "
        "default of `index_min_rows`.\n"
    )


def _answers(engine: dict[str, Any]) -> list[str]:
    median = engine["seconds"]["median"]
    return [f"{engine['first_s']:.2f}", f"{median * 1e3:.1f}", f"{1 / median:,.1f}", f"{engine['memory_mb']:,}"]


if __name__ == "__main__":
    run(measure, markdown)
