"""Measure the coloured tiles of the explorer without a browser: tile table, colours, and map tiles at each zoom.

The tiles are those of `benchmarks.search`: clustered vectors of 384 numbers in one dataset, with a vector index. All
times are processor times of this process, so other processes on the machine hardly change them. A map tile is drawn at
the middle of the raster, and includes the encoding as PNG.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from benchmarks.harness import RESULTS, load, run, save, table, where
from benchmarks.search import DATASET_ID, build, part, write
from benchmarks.vectors import made_up_vectors
from rasterembed.dataset.dataset import Dataset
from rasterembed.explorer.map_tile import MapTile, world_of
from rasterembed.explorer.tiles.colouring import DEFAULT_CLASSES
from rasterembed.explorer.tiles.layers import Choice, TileLayers
from rasterembed.explorer.tiles.legend import Colour
from rasterembed.explorer.tiles.places import footprints_json, tiles_at
from rasterembed.search.query import Query, Where
from rasterembed.search.searcher import Searcher
from rasterembed.store.object_store import ObjectStore

NAME = "tile_layers"

_DIMENSIONS = 384
_ZOOMS = range(21)
_WAIT_S = 600.0

T = TypeVar("T")


def measure(
    *, rows: int = 1_000_000, engine: str = "flat", scratch: Path | None = None, results: Path = RESULTS
) -> dict[str, Any]:
    """Measure the coloured tiles of the explorer.

    Args:
        rows: Number of tiles.
        engine: Engine of the vector index.
        scratch: Folder for the dataset; by default a temporary folder.
        results: Folder for the result file.
    """
    parameters = dict(locals())
    load_before = load()
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        root = Path(folder)
        written = part(_write, root, rows)
        part(build, root, engine)
        found = part(_measure, root / "store")
    return save(NAME, parameters, load_before, {"rows": written["rows"], **found}, results)


def _write(root: Path, rows: int) -> dict[str, Any]:
    return write(root, made_up_vectors(_DIMENSIONS), rows, "float16")


def _measure(store_folder: Path) -> dict[str, Any]:
    """Return processor times in milliseconds, and the memory of the tile table in MB."""
    store = ObjectStore(root=str(store_folder))
    with Searcher(store, [DATASET_ID]) as searcher:
        layers, opened = _timed(lambda: TileLayers(Dataset.open(store, DATASET_ID), searcher))
        table_mb = layers.table.nbytes / 1e6
        colours: dict[str, float] = {}
        for colour in (Colour.VALIDITY, Colour.PCA, Colour.CLUSTER):
            choice = Choice(colour, DEFAULT_CLASSES, None)
            _, colours[colour.value] = _timed(lambda choice=choice: layers.colouring(choice, _WAIT_S))  # type: ignore[misc]
        first = layers.table.tiles.tile_ids[0].as_py()
        found, colours[Colour.SIMILARITY.value] = _timed(
            lambda: layers.add_similarity(searcher.resolve(Query(tile=first)).vector)
        )
        west, south, east, north = layers.table.bbox or (0.0, 0.0, 0.0, 0.0)
        lon, lat = (west + east) / 2, (south + north) / 2
        choices = {
            "validity": (Choice(Colour.VALIDITY, DEFAULT_CLASSES, None), Where()),
            "pca": (Choice(Colour.PCA, DEFAULT_CLASSES, None), Where()),
            "similarity": (Choice(Colour.SIMILARITY, DEFAULT_CLASSES, found.key), Where()),
            "validity, half of the tiles": (
                Choice(Colour.VALIDITY, DEFAULT_CLASSES, None),
                Where(min_valid_fraction=0.5),
            ),
        }
        map_tiles = {}
        for name, (choice, filters) in choices.items():
            layers.draw(_map_tile(lon, lat, 4), choice, filters, _WAIT_S)  # The filters are computed once.
            map_tiles[name] = [
                _timed(lambda z=z, c=choice, f=filters: layers.draw(_map_tile(lon, lat, z), c, f, _WAIT_S))[1]  # type: ignore[misc]
                for z in _ZOOMS
            ]
        tiles_at(layers.table, lon, lat, None)
        _, at = _timed(lambda: tiles_at(layers.table, lon, lat, None))
        _, far = _timed(lambda: footprints_json(layers.table, (west, south, east, north), None))
        layers.close()
    return {
        "table_ms": opened,
        "table_mb": table_mb,
        "colours_ms": colours,
        "map_tiles_ms": map_tiles,
        "at_ms": at,
        "outlines_of_all_ms": far,
    }


def _map_tile(lon: float, lat: float, z: int) -> MapTile:
    u, v = world_of(np.array([lon]), np.array([lat]))
    return MapTile(z, int(u[0] * 2**z), int(v[0] * 2**z))


def _timed(function: Callable[[], T]) -> tuple[T, float]:
    """Return the result of a function, and the processor time of all threads in milliseconds."""
    begun = time.process_time()
    result = function()
    return result, (time.process_time() - begun) * 1e3


def markdown(report: dict[str, Any]) -> str:
    """Return the results as a Markdown table."""
    colours = report["colours_ms"]
    rows = [
        ["the tile table, once for a view", f"{report['table_ms']:,.0f}"],
        ["colours by principal components, once for a view", f"{colours['pca']:,.0f}"],
        ["colours by classes, once for a view", f"{colours['cluster']:,.0f}"],
        ["similarity of all tiles to a query", f"{colours['similarity']:,.0f}"],
        *(
            [f"a map tile by {name}: median of all zooms, slowest", f"{np.median(times):,.0f}, {max(times):,.0f}"]
            for name, times in report["map_tiles_ms"].items()
        ),
        ["the tile at a place", f"{report['at_ms']:,.1f}"],
        ["outlines of a box with too many tiles", f"{report['outlines_of_all_ms']:,.0f}"],
    ]
    memory = f"\n{report['rows']:,} tiles; the tile table takes {report['table_mb']:,.0f} MB.\n"
    return where(report) + table(["work", "processor time, ms"], rows) + memory


if __name__ == "__main__":
    run(measure, markdown)
