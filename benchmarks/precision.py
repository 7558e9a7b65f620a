"""Measure how often similar tiles have the query's land cover.

Three ways to choose similar tiles are compared: by the model's vectors, by mean colour (red, green and blue of the
valid pixels), and at random. The raster is a generated scene, and the scene's class raster is the truth. The class of a
tile is the class with most pixels in the tile. Ten similar tiles are chosen for each tile. Precision@10 is the share of
these ten tiles that have the class of the tile, averaged over all tiles of the class. The demo model is untrained: its
result shows that search works, but not the quality of DINOv3.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import rasterio
from numpy.typing import NDArray
from rasterio.windows import Window

from benchmarks.harness import RESULTS, embed, load, run, save, table
from examples.landscape import CLASSES, Scene, make_scene
from rasterembed.dataset.manifest import Manifest
from rasterembed.model.choice import Dinov3
from rasterembed.raster.grid import Grid
from rasterembed.search.query import Query
from rasterembed.search.searcher import Searcher
from rasterembed.store.object_store import ObjectStore

NAME = "precision"

_K = 10
_DATASET = "scene"


def measure(
    *, side: int = 3000, size: int = 112, model: str = "demo", seed: int = 7, results: Path = RESULTS
) -> dict[str, Any]:
    """Embed a scene, and search for the neighbours of every tile.

    Args:
        side: Side of the scene, px.
        size: Side of a tile, px.
        model: Hub id of a DINOv3 checkpoint, a local folder, or demo.
        seed: Seed of the generated landscape.
        results: Folder for the result file.
    """
    parameters = dict(locals())
    load_before = load()
    with tempfile.TemporaryDirectory() as scratch:
        scene = make_scene(Path(scratch), width=side, height=side, seed=seed)
        store = ObjectStore(root=f"{scratch}/store")
        manifest = embed(
            store, str(scene.raster), dataset_id=_DATASET, grid=Grid(size=size), model=Dinov3(model=model, device="cpu")
        )
        found = compare(scene, store)
    return save(NAME, parameters, load_before, {"model": manifest.model, **found}, results)


def compare(scene: Scene, store: ObjectStore) -> dict[str, Any]:
    """Measure the precision of `search`, `colour` and `chance`, for each class and for all tiles.

    Args:
        scene: the scene.
        store: the store with its dataset `scene`.
    """
    with Searcher(store, [_DATASET]) as searcher:
        tiles = _tiles(store, searcher.datasets[0].manifest)
        truth, colours = _truth_and_colours(scene, tiles)
        number = {tile_id: place for place, (tile_id, *_) in enumerate(tiles)}
        by_search = [
            [number[hit.tile_id] for hit in searcher.ask(Query(tile=tile_id), k=_K).hits] for tile_id, *_ in tiles
        ]
    away = np.linalg.norm(colours[:, None] - colours[None], axis=-1)
    np.fill_diagonal(away, np.inf)
    by_colour = np.argsort(away, axis=1, kind="stable")[:, :_K]
    right = {
        "search": _right(truth, np.array(by_search)),
        "colour": _right(truth, by_colour),
        "chance": np.array([(truth == own).sum() - 1 for own in truth]) / (len(truth) - 1),
    }
    classes = {
        CLASSES[value]: {"tiles": int((truth == value).sum())}
        | {name: float(share[truth == value].mean()) for name, share in right.items()}
        for value in np.unique(truth)
    }
    everything = {"tiles": len(truth)} | {name: float(share.mean()) for name, share in right.items()}
    return {"classes": classes, "all": everything}


def _right(truth: NDArray[np.intp], nearest: NDArray[np.intp]) -> NDArray[np.float64]:
    """Return for each tile the share of its similar tiles that have the tile's class, shape (tiles,)."""
    shares: NDArray[np.float64] = (truth[nearest] == truth[:, None]).mean(axis=1)
    return shares


def _tiles(store: ObjectStore, manifest: Manifest) -> list[tuple[str, Window]]:
    """Return ids and windows of the embedded tiles, from the tile index."""
    with store.open(manifest.index) as file:
        rows = pq.read_table(file).to_pylist()
    return [
        (row["tile_id"], Window(row["col_off"], row["row_off"], row["width"], row["height"]))
        for row in rows
        if row["status"] == "embedded"
    ]


def _truth_and_colours(
    scene: Scene, tiles: Sequence[tuple[str, Window]]
) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Return the class of each tile, shape (tiles,), and its mean colour, shape (tiles, 3)."""
    truth, colours = [], []
    with rasterio.open(scene.classes) as classes, rasterio.open(scene.raster) as raster:
        for _, window in tiles:
            values = classes.read(1, window=window)
            counts = np.bincount(values.ravel(), minlength=len(CLASSES))
            counts[0] = 0  # Class 0 is nodata.
            truth.append(int(counts.argmax()))
            colours.append(raster.read(window=window)[:, values > 0].mean(axis=1))
    return np.array(truth), np.array(colours)


def markdown(report: dict[str, Any]) -> str:
    """Return the results as a Markdown table."""
    rows = [
        [name, f"{line['tiles']:,}", *(f"{line[kind]:.2f}" for kind in ("search", "colour", "chance"))]
        for name, line in [*report["classes"].items(), ("all", report["all"])]
    ]
    head = ["class", "tiles", f"search, {report['model']}", "mean colour", "chance"]
    side, size = report["parameters"]["side"], report["parameters"]["size"]
    return f"Precision@{_K} on a scene of {side}×{side} px in tiles of {size} px.\n\n{table(head, rows)}"


if __name__ == "__main__":
    run(measure, markdown)
