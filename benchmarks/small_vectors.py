"""Compare the types of stored vectors: bytes a row, neighbours that change, time to read, and money for storage.

The vectors come from a model with random weights, as wide as ViT-S and ViT-L, and with a few layers. The tiles overlap,
so each vector has similar vectors in its set. Give `--model` to measure the vectors of trained weights.

The neighbours are also measured for other ways to make int8: one scale for all numbers, and one scale for each
dimension. Some models have a few dimensions with far larger numbers than the others. Such models are imitated: one
dimension of every vector is multiplied by a factor.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, get_args

import duckdb
import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from benchmarks.harness import (
    RESULTS,
    default_rasters,
    embed,
    figure,
    load,
    make_checkpoint,
    run,
    save,
    spread,
    table,
    take_turns,
    where,
)
from examples.landscape import make_scene
from rasterembed.dataset.dataset import Dataset
from rasterembed.dataset.embedding import Execution
from rasterembed.dataset.manifest import ALL_STATES
from rasterembed.dataset.selection import VectorDtype
from rasterembed.dataset.shards import EmbeddedBatch, write_shard
from rasterembed.dataset.vector_column import decode_vectors, store_vectors, vector_columns
from rasterembed.model.choice import Dinov3
from rasterembed.raster.grid import Grid
from rasterembed.store.object_store import ObjectStore

NAME = "small_vectors"

DTYPES: tuple[VectorDtype, ...] = get_args(VectorDtype)

REAL = ("TCI.tif", "cogeo.tif", "RGB.byte.tif", "mosaic_cog1.tif", "cog_rgb_mask.tif", "world.rgb.tif")
"""Real rasters, of Landsat, Sentinel-2 and aerial pictures. shared/data/rasters/SOURCES.md describes them."""

FACTORS = (10.0, 30.0)
"""Factors by which one dimension is multiplied, to imitate a model with a few large numbers."""

PRICE = 0.023
"""Price of storage in USD for 10^9 bytes and a month. It is an assumption, near the list price of S3 Standard in
North America for the first 50 TB. Look up the price of your store."""

ROWS = (10**6, 10**7, 10**8, 10**9, 10**10, 10**11)
"""Numbers of rows whose storage is priced."""

_TILE = 64
"""Side of a tile, px. A tile has only 16 patches, so the model is fast."""

_QUERIES = 1000
_NEIGHBOURS = 10
_SAME_DISTANCE = 1e-6
"""Largest difference between two float32 distances that are treated as equal."""

Vectors = NDArray[np.float32]


def _one_scale(vectors: Vectors, axis: int | None) -> Vectors:
    """Return vectors rounded to int8 with one scale for all numbers (axis None), or for each dimension (axis 0)."""
    scale = np.abs(vectors).max(axis=axis, keepdims=True) / np.float32(127)
    rounded: Vectors = np.rint(vectors / np.maximum(scale, np.finfo(np.float32).tiny)) * scale
    return rounded


SCHEMES: dict[str, Callable[[Vectors], Vectors]] = {
    "float16": lambda vectors: store_vectors(vectors, "float16").vectors(),
    "int8": lambda vectors: store_vectors(vectors, "int8").vectors(),
    "int8, one scale": partial(_one_scale, axis=None),
    "int8, a scale for each dimension": partial(_one_scale, axis=0),
}
"""Ways to round vectors. `float16` and `int8` are those of `vector_dtype`."""


def measure(
    *,
    side: int = 2000,
    stride: int = 27,
    widths: tuple[int, ...] = (384, 1024),
    layers: int = 4,
    model: str | None = None,
    rounds: int = 5,
    rasters: Path | None = None,
    results: Path = RESULTS,
) -> dict[str, Any]:
    """Compare the types of stored vectors.

    Args:
        side: Side of the generated scene, px.
        stride: Distance between the left sides of neighbouring tiles, px. A tile has 64 px.
        widths: Lengths of the vectors.
        layers: Number of layers of the models with random weights.
        model: Hub id of a DINOv3 checkpoint, or a local folder. The default is models with random weights.
        rounds: Number of measurements of each time.
        rasters: Folder of real rasters. The default is the variable RASTERS, or ../shared/data/rasters. Without the
            rasters, only the generated scene is measured.
        results: Folder for the result file.
    """
    parameters = dict(locals())
    load_before = load()
    folder = rasters or default_rasters()
    real = [folder / name for name in REAL if (folder / name).exists()]
    neighbours: dict[str, Any] = {}
    storage: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as scratch:
        scene = make_scene(Path(scratch), width=side, height=side).raster
        for width, weights in _models(Path(scratch), widths, layers, model):
            store = ObjectStore(root=f"{scratch}/store-{width}")
            datasets = [_embed(store, path, stride, weights) for path in (scene, *real)]
            name = f"{datasets[0].manifest.dimensions}"
            storage[name] = _storage(store, datasets[0], rounds)
            for source, own in (("scene", datasets[:1]), ("real rasters", datasets[1:])):
                if own:
                    vectors = np.concatenate([dataset.vectors() for dataset in own])
                    neighbours[f"{source}, {name} numbers"] = _neighbours(vectors)
    return save(NAME, parameters, load_before, {"storage": storage, "neighbours": neighbours, "price": PRICE}, results)


def _models(scratch: Path, widths: Sequence[int], layers: int, model: str | None) -> Iterator[tuple[int, str]]:
    """Yield width and address of each model. A given model has one width only, which is not needed."""
    if model is not None:
        yield 0, model
        return
    for width in widths:
        yield (
            width,
            str(
                make_checkpoint(
                    scratch / f"model-{width}",
                    hidden_size=width,
                    intermediate_size=4 * width,
                    num_hidden_layers=layers,
                    num_attention_heads=width // 32,
                )
            ),
        )


def _embed(store: ObjectStore, raster: Path, stride: int, weights: str) -> Dataset:
    manifest = embed(
        store,
        str(raster),
        dataset_id=raster.stem.lower().replace(".", "-"),
        grid=Grid(size=_TILE, stride=stride),
        model=Dinov3(model=weights, device="cpu"),
        execution=Execution(batch_size=256),
    )
    return Dataset.open(store, manifest.dataset_id, ALL_STATES)


def _storage(store: ObjectStore, dataset: Dataset, rounds: int) -> dict[str, Any]:
    """Write the shards of a dataset with each type, and measure their sizes and the times to read them."""
    paths = {vector_dtype: _write(store, dataset, vector_dtype) for vector_dtype in DTYPES}
    dimensions, rows = dataset.manifest.dimensions, dataset.manifest.rows
    question = dataset.vectors()[rows // 2].tolist()
    with duckdb.connect(config={"threads": 1}) as connection:

        def scan(files: list[str]) -> None:
            connection.execute(
                f"SELECT min(array_cosine_distance(embedding::FLOAT[{dimensions}], $question::FLOAT[{dimensions}])) "
                "FROM read_parquet($files)",
                {"files": files, "question": question},
            ).fetchall()

        scans = take_turns({name: partial(scan, files) for name, files in paths.items()}, rounds)
    reads = take_turns({name: partial(_read, name, files) for name, files in paths.items()}, rounds)
    measured = {}
    for name, files in paths.items():
        vectors, others = _bytes(files, name)
        measured[name] = {
            "bytes_per_number": vectors / (rows * dimensions),
            "other_bytes_per_row": others / rows,
            "bytes_per_row": (vectors + others) / rows,
            "scan_us_per_row": figure([time.cpu * 1e6 / rows for time in scans[name]]),
            "read_us_per_row": figure([time.cpu * 1e6 / rows for time in reads[name]]),
        }
    return {"rows": rows, "dtypes": measured}


def _write(store: ObjectStore, dataset: Dataset, vector_dtype: VectorDtype) -> list[str]:
    """Write the shards of a dataset again, as those of another dataset, and return their paths."""
    selection = dataset.plan.selection.model_copy(update={"vector_dtype": vector_dtype})
    plan = dataset.plan.model_copy(update={"selection": selection, "dataset_id": f"{dataset.id}-{vector_dtype}"})
    vectors, paths, start = dataset.vectors(), [], 0
    for shard in dataset.shards:
        with store.open(shard.path) as file:
            rows = pq.read_table(file, columns=["tile_id", "valid_fraction"])
        places = {tile: place for place, tile in enumerate(plan.sharding.tiles(shard.number).ids())}
        positions = np.array([places[tile] for tile in rows["tile_id"].to_pylist()], np.intp)
        batch = EmbeddedBatch(positions, rows["valid_fraction"].to_numpy(), vectors[start : start + shard.rows])
        paths.append(store.uri(write_shard(store, plan, shard.number, [batch]).path))
        start += shard.rows
    return paths


def _read(vector_dtype: VectorDtype, paths: Sequence[str]) -> None:
    for path in paths:
        decode_vectors(pq.read_table(path, columns=list(vector_columns(vector_dtype))))


def _bytes(paths: Sequence[str], vector_dtype: VectorDtype) -> tuple[int, int]:
    """Return the number of bytes of the vectors in some files, and the number of all other bytes."""
    vectors = total = 0
    for path in paths:
        total += Path(path).stat().st_size
        footer = pq.read_metadata(path)
        for group in map(footer.row_group, range(footer.num_row_groups)):
            for column in map(group.column, range(group.num_columns)):
                if column.path_in_schema.split(".")[0] in vector_columns(vector_dtype):
                    vectors += column.total_compressed_size
    return vectors, total - vectors


def _neighbours(vectors: Vectors) -> dict[str, Any]:
    """Return the recall at 10 of each way to round, for the vectors, and with one dimension of larger numbers."""
    queries = np.random.default_rng(0).choice(len(vectors), min(_QUERIES, len(vectors)), replace=False)
    # The dimension with the median spread is multiplied. One without spread would not change the neighbours.
    dimension = int(np.argsort(vectors.std(axis=0))[vectors.shape[1] // 2])
    recall = {}
    for factor in (1.0, *FACTORS):
        stretched = vectors.copy()
        stretched[:, dimension] *= np.float32(factor)
        exact = _distances(stretched, queries)
        furthest = np.partition(exact, _NEIGHBOURS - 1, axis=1)[:, _NEIGHBOURS - 1, None]
        recall[f"{factor:g}"] = {
            name: _recall(exact, furthest, _distances(rounded(stretched), queries)) for name, rounded in SCHEMES.items()
        }
    return {"rows": len(vectors), "queries": len(queries), "recall_at_10": recall}


def _distances(vectors: Vectors, queries: NDArray[np.intp]) -> NDArray[np.float32]:
    """Return the cosine distances of some rows to all rows, shape (queries, n). A row is infinitely far from itself."""
    wide = vectors.astype(np.float64)
    unit = (wide / np.maximum(np.linalg.norm(wide, axis=1, keepdims=True), np.finfo(np.float32).tiny)).astype(
        np.float32
    )
    distances: NDArray[np.float32] = 1 - unit[queries] @ unit.T
    distances[np.arange(len(queries)), queries] = np.inf
    return distances


def _recall(exact: NDArray[np.float32], furthest: NDArray[np.float32], rounded: NDArray[np.float32]) -> float:
    """Return the share of the ten nearest rows by rounded vectors that are among the nearest by exact vectors.

    A row counts if its exact distance is not larger than that of the tenth neighbour, so rows of equal distance are no
    errors (Aumüller, Bernhardsson, Faithfull: ANN-Benchmarks, Information Systems 87, 2020).
    """
    found = np.argpartition(rounded, _NEIGHBOURS, axis=1)[:, :_NEIGHBOURS]
    return float((np.take_along_axis(exact, found, axis=1) <= furthest + _SAME_DISTANCE).mean())


def markdown(report: dict[str, Any]) -> str:
    """Return the results as Markdown tables."""
    return "\n".join(
        [
            where(report) + _storage_table(report["storage"]),
            _neighbours_table(report["neighbours"]),
            _price_table(report["storage"], report["price"]),
        ]
    )


def _storage_table(storage: dict[str, Any]) -> str:
    head = ["vectors", "bytes a number", "bytes a row, all columns", "scan, µs a row", "read, µs a row"]
    rows = [
        [
            f"{dimensions} numbers, {name}",
            f"{measured['bytes_per_number']:.2f}",
            f"{measured['bytes_per_row']:,.0f}",
            spread(measured["scan_us_per_row"]),
            spread(measured["read_us_per_row"]),
        ]
        for dimensions, found in storage.items()
        for name, measured in found["dtypes"].items()
    ]
    return table(head, rows)


def _neighbours_table(neighbours: dict[str, Any]) -> str:
    head = ["recall@10 compared with float32", "vectors", *SCHEMES]
    rows = []
    for source, found in neighbours.items():
        for factor, recall in found["recall_at_10"].items():
            name = source if factor == "1" else f"{source}, one dimension × {factor}"
            rows.append([name, f"{found['rows']:,}", *(f"{recall[scheme]:.3f}" for scheme in SCHEMES)])
    return table(head, rows)


def _price_table(storage: dict[str, Any], price: float) -> str:
    head = ["USD a year", *(f"10{str(len(str(rows)) - 1).translate(_SUPERSCRIPTS)} rows" for rows in ROWS)]
    lines = [
        [
            f"{dimensions} numbers, {name}",
            *(_dollars(measured["bytes_per_row"] * rows / 1e9 * price * 12) for rows in ROWS),
        ]
        for dimensions, found in storage.items()
        for name, measured in found["dtypes"].items()
    ]
    return table(head, lines)


_SUPERSCRIPTS = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")


def _dollars(value: float) -> str:
    """Return an amount with two or more digits."""
    return f"{value:.2f}" if value < 10 else f"{float(f'{value:.3g}'):,.0f}"


if __name__ == "__main__":
    run(measure, markdown)
