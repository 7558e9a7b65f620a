"""Measure questions about all tiles: neighbours of every tile, duplicates, classes and a diverse sample.

The vectors are those of `benchmarks.search`. Each question runs in its own process and reads the shards of the dataset,
as it does without a vector index. The recall of the neighbours is measured a second time, with another sample than that
of the result's file, and in NumPy.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from benchmarks.harness import RESULTS, alone, load, peak_of_anonymous_memory, run, save, table, timed
from benchmarks.vectors import made_up_vectors
from rasterembed.dataset.dataset import Dataset
from rasterembed.model.choice import Dinov3
from rasterembed.store.object_store import ObjectStore
from tests.support.vectors import blank_raster, checkpoint, write_dataset

NAME = "neighbours"

_SAMPLE = 200
"""Number of tiles whose true neighbours are computed by NumPy."""


def measure(
    *, rows: tuple[int, ...] = (100_000, 1_000_000), dimensions: int = 384, k: int = 10, results: Path = RESULTS
) -> dict[str, Any]:
    """Measure questions about all tiles.

    Args:
        rows: Numbers of tiles. They are rounded up to whole rows of a raster.
        dimensions: Length of a vector.
        k: Number of neighbours of a tile.
        results: Folder for the result file.
    """
    parameters = dict(locals())
    load_before = load()
    sizes: dict[str, Any] = {}
    for count in rows:
        with tempfile.TemporaryDirectory() as scratch:
            root = Path(scratch)
            tiles = alone(_write, root, count, dimensions)
            sizes[str(tiles)] = {
                "neighbours": alone(_neighbours, root, k),
                "deduplicate": alone(_deduplicate, root),
                "cluster": alone(_cluster, root),
                "diversify": alone(_diversify, root),
            }
    return save(NAME, parameters, load_before, {"sizes": sizes}, results)


def _write(root: Path, count: int, dimensions: int) -> int:
    cols = math.isqrt(count)
    raster = blank_raster(root / "blank.tif", -(-count // cols), cols)
    model = Dinov3(model=str(checkpoint(root / "model", dimensions)))
    store = ObjectStore(root=str(root / "store"))
    return write_dataset(store, "made-up", raster, model, made_up_vectors(dimensions)).rows


def _open(root: Path) -> Dataset:
    return Dataset.open(ObjectStore(root=str(root / "store")), "made-up")


def _asked(question: Callable[[], Any]) -> dict[str, Any]:
    """Ask a question, and return its time, memory and facts."""
    found = []
    with peak_of_anonymous_memory() as peak:
        timing = timed(lambda: found.append(question()))
    return {
        "clock_s": round(timing.wall, 2),
        "processor_s": round(timing.cpu, 2),
        "others": round(timing.others, 3),
        "memory_mb": round(peak()),
        "facts": found[0].facts,
    }


def _neighbours(root: Path, k: int) -> dict[str, Any]:
    out = root / "neighbours.parquet"
    dataset = _open(root)
    result = _asked(lambda: dataset.neighbours(out, k))
    return result | {"file_mb": round(out.stat().st_size / 1e6, 1), "recall": _recall(dataset, out, k)}


def _recall(dataset: Dataset, out: Path, k: int) -> dict[str, float]:
    """Return the share of the true neighbours in the file, and the largest error of a distance, from a sample."""
    rng = np.random.default_rng(7)
    numbers = np.sort(rng.choice(dataset.manifest.rows, _SAMPLE, replace=False))
    vectors = dataset.vectors()
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    rows = pq.read_table(out, columns=["tile_id", "neighbour_tile_id", "distance"])
    ids = np.concatenate([batch.column(0).to_numpy(zero_copy_only=False) for batch in dataset.batches(["tile_id"])])
    place = {name: number for number, name in enumerate(ids)}
    found, error = 0, 0.0
    for number in numbers:
        part = rows.slice(int(number) * k, k)
        assert set(part["tile_id"].to_pylist()) == {ids[number]}
        distances = 1.0 - vectors @ vectors[number]
        distances[number] = np.inf
        others = [place[name] for name in part["neighbour_tile_id"].to_pylist()]
        last = np.partition(distances, k - 1)[k - 1]
        found += int((distances[others] <= last + 1e-6).sum())
        error = max(error, float(np.abs(distances[others] - part["distance"].to_numpy()).max()))
    return {"sample": _SAMPLE, "recall": found / (_SAMPLE * k), "largest_error": error}


def _deduplicate(root: Path) -> dict[str, Any]:
    return _asked(lambda: _open(root).deduplicate(root / "groups.parquet", 0.3))


def _cluster(root: Path) -> dict[str, Any]:
    result = _asked(lambda: _open(root).cluster(root / "classes.parquet", 200))
    del result["facts"]["sizes"]
    return result


def _diversify(root: Path) -> dict[str, Any]:
    return _asked(lambda: _open(root).diversify(root / "sample.parquet", 100))


def markdown(report: dict[str, Any]) -> str:
    """Return the results as a Markdown table."""
    rows, k = [], report["parameters"]["k"]
    for count, size in report["sizes"].items():
        near, groups, sample = size["neighbours"], size["deduplicate"], size["diversify"]
        way = f"{near['recall']['recall']:.3f} of the true neighbours, {near['file_mb']:,.0f} MB file"
        notes = {
            "neighbours": f"{k} neighbours of each tile, {way}",
            "deduplicate": f"{groups['facts']['kept']:,} kept at threshold {groups['facts']['threshold']:g}",
            "cluster": f"{size['cluster']['facts']['classes']} classes",
            "diversify": f"{sample['facts']['tiles']} tiles",
        }
        for question, note in notes.items():
            figures = size[question]
            rows.append(
                [
                    question,
                    f"{int(count):,}",
                    f"{figures['clock_s']:,.0f}",
                    f"{figures['processor_s']:,.0f}",
                    f"{figures['others']:.0%}",
                    f"{figures['memory_mb']:,}",
                    note,
                ]
            )
    machine = report["machine"]
    head = ["question", "tiles", "clock, s", "processor, s", "other processes", "memory, MiB", "result"]
    return (
        f"{report['parameters']['dimensions']} dimensions; {machine['processor']}, {machine['cores']} cores, load "
        f"before {machine['load_before']}. Memory does not count pages of mapped files.\n\n{table(head, rows)}"
    )


if __name__ == "__main__":
    run(measure, markdown)
