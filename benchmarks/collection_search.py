"""Measure the table of a collection: writing it, adding a scene to it, opening it, and searching it.

Each scene has 32 x 32 tiles in an anchored grid. Every second scene covers the same ground as the scene before it, at
another time. The vectors are those of `benchmarks.vectors`. Each part runs in its own process. Times are processor
times. Memory is the growth of the process.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.transform import Affine

from benchmarks.harness import RESULTS, alone_with_memory, figure, load, run, save, table
from benchmarks.vectors import Vectors, made_up_vectors, questions
from rasterembed.collection.collection import Collection
from rasterembed.collection.table import read_table
from rasterembed.collection.table_writing import write_table
from rasterembed.collection_upkeep import rebuild_collection
from rasterembed.model.choice import Dinov3
from rasterembed.raster.grid import Grid
from rasterembed.search.collection_searcher import CollectionSearcher
from rasterembed.search.query import Query, Where
from rasterembed.store.object_store import ObjectStore
from tests.support.vectors import SIDE, blank_raster, checkpoint, write_dataset

NAME = "collection-search"

_TILES = 32
"""Tiles on each side of a scene."""

_ID = "made"
_K = 10

_WHERE = {
    "no filter": Where(),
    "half of the scenes, by date": Where(since=date(2025, 6, 1)),
    "the latest scene of each tile": Where(pick="latest"),
    "the clearest scene of each tile": Where(pick="clearest"),
    "a box with one place": Where(bbox=(24.46, 60.55, 24.54, 60.59)),
}


def measure(
    *,
    scenes: tuple[int, ...] = (98, 978),
    dimensions: int = 384,
    queries: int = 5,
    results: Path = RESULTS,
) -> dict[str, Any]:
    """Measure the table of collections.

    Args:
        scenes: Numbers of scenes to measure. A scene has 1,024 vectors.
        dimensions: Length of a vector.
        queries: Number of queries for each filter.
        results: Folder for the result file.
    """
    parameters = dict(locals())
    load_before = load()
    sizes = {}
    for count in scenes:
        with tempfile.TemporaryDirectory() as scratch:
            root = Path(scratch)
            os.environ["TMPDIR"] = scratch
            alone_with_memory(_write_scenes, root, count, dimensions)
            size: dict[str, Any] = {"catalogue": alone_with_memory(_write_catalogue, root)}
            size["table"] = alone_with_memory(_write_table, root, 1)
            size["grown"] = alone_with_memory(_write_table, root, 0)
            size["first"] = alone_with_memory(_first_answer, root)
            size["search"] = alone_with_memory(_search, root, dimensions, queries)
            sizes[str(count)] = size
    return save(NAME, parameters, load_before, {"sizes": sizes}, results)


def _store(root: Path) -> ObjectStore:
    return ObjectStore(root=str(root / "store"))


def _later(vectors: Vectors, first: int, numbers: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return the vectors of the tiles whose numbers begin at `first`."""
    return vectors(numbers + first)


def _write_scenes(root: Path, count: int, dimensions: int) -> dict[str, Any]:
    model = Dinov3(model=str(checkpoint(root / "model", dimensions)))
    vectors = made_up_vectors(dimensions)
    step = 10 * SIDE * _TILES
    for number in range(count):
        place = number // 2
        corner = 360_000 + step * (place % 32), 6_720_000 - step * (place // 32)
        raster = blank_raster(
            root / f"scene-{number:05d}.tif",
            _TILES,
            _TILES,
            transform=Affine(10, 0, corner[0], 0, -10, corner[1]),
            when=f"{2025 + number % 2}:01:01 10:00:00",
        )
        first = number * _TILES * _TILES
        grid = Grid(size=SIDE, anchor="crs")
        write_dataset(_store(root), f"scene-{number:05d}", raster, model, partial(_later, vectors, first), grid=grid)
    return {}


def _write_catalogue(root: Path) -> dict[str, Any]:
    begun = time.process_time()
    collection = rebuild_collection(_store(root), _ID, datasets=["scene-*"])
    return {"seconds": time.process_time() - begun, "scenes": collection.catalogue.count}


def _write_table(root: Path, missing: int) -> dict[str, Any]:
    """Write the table without the last `missing` scenes. If there is no table with the same scenes, it is new."""
    collection = Collection.open(_store(root), _ID)
    ids = collection.catalogue.table["id"].to_pylist()
    if missing:
        for name in list(collection.store.sizes(collection.layout.table_folder)):
            collection.store.delete(collection.layout.table_file(name))
    catalogue = collection.catalogue.updated([], without=ids[len(ids) - missing :])
    before = read_table(collection.store, collection.layout)
    begun, clock = time.process_time(), time.monotonic()
    written = write_table(collection.store, collection.layout, collection.configuration, catalogue)
    kept = {part.path for part in written.parts} & {part.path for part in (before.parts if before else ())}
    return {
        "seconds": time.process_time() - begun,
        "clock_seconds": time.monotonic() - clock,
        "rows": written.rows,
        "files": len(written.parts),
        "kept_files": len(kept),
        "mb": sum(part.bytes for part in written.parts) / 1e6,
    }


def _first_answer(root: Path) -> dict[str, Any]:
    begun = time.process_time()
    with CollectionSearcher(_store(root), _ID) as searcher:
        opened = time.process_time() - begun
        answer = searcher.ask(Query(lonlat=(24.5, 60.57)), k=_K)
    assert len(answer.hits) == _K
    return {"open_s": opened, "first_s": time.process_time() - begun}


def _search(root: Path, dimensions: int, queries: int) -> dict[str, Any]:
    vectors = questions(made_up_vectors(dimensions), queries)
    with CollectionSearcher(_store(root), _ID) as searcher:

        def ask(where: Where, vector: NDArray[np.float32]) -> None:
            assert len(searcher.ask_vector(vector, where, _K).hits) == _K

        return {
            "seconds": {name: figure(_answer_times(vectors, partial(ask, where))) for name, where in _WHERE.items()}
        }


def _answer_times(vectors: NDArray[np.float32], ask: Callable[[NDArray[np.float32]], object]) -> list[float]:
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
    rows = []
    for size in report["sizes"].values():
        written, grown, first = size["table"], size["grown"], size["first"]
        rows.append(
            [
                f"{size['catalogue']['scenes']:,}", f"{grown['rows']:,}", f"{grown['mb']:,.0f}",
                f"{written['seconds']:.1f}", f"{written['memory_mb']:,}",
                f"{grown['seconds']:.1f}", f"{grown['files'] - grown['kept_files']} of {grown['files']}",
                f"{first['open_s']:.2f}", f"{first['first_s']:.2f}", f"{first['memory_mb']:,}",
            ]
        )  # fmt: skip
    head = [
        "scenes", "vectors", "table, MB", "write, s", "memory, MiB", "add a scene, s", "files written", "open, s",
        "first answer, s", "memory, MiB",
    ]  # fmt: skip
    answers = [
        [
            f"{size['grown']['rows']:,}",
            *(f"{seconds['median'] * 1e3:,.0f}" for seconds in size["search"]["seconds"].values()),
        ]
        for size in report["sizes"].values()
    ]
    machine = report["machine"]
    return (
        f"{report['parameters']['dimensions']} dimensions, processor time; {machine['processor']}, DuckDB "
        f"{machine['duckdb']}, load before {machine['load_before']}.\n\n{table(head, rows)}\n"
        f"Milliseconds of an answer of an open searcher, by the exact scan, k = {_K}:\n\n"
        f"{table(['vectors', *_WHERE], answers)}"
    )


if __name__ == "__main__":
    run(measure, markdown)
