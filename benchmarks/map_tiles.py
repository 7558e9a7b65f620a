"""Measure the processor time of a map tile of the explorer: reading, warping, colours and the WebP file.

The processor time is compared, because it hardly depends on other processes of the machine. No picture is kept between
the rounds, and the raster stays open, as it does while a person moves the map.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import shapely

from benchmarks.harness import RESULTS, default_rasters, figure, load, run, save, spread, table, take_turns, where
from rasterembed.dataset.dataset import Dataset
from rasterembed.dataset.extent import outline
from rasterembed.explorer.imagery.drawing import draw
from rasterembed.explorer.imagery.open_rasters import OpenRaster, OpenRasters
from rasterembed.explorer.imagery.raster_place import RasterPlace
from rasterembed.explorer.map_tile import MapTile, world_of
from rasterembed.model.choice import Dinov3
from rasterembed.raster.grid import Grid
from rasterembed.store.object_store import ObjectStore
from tests.support.vectors import checkpoint, write_dataset

NAME = "map_tiles"

ZOOMS = {"half as large as its pixels": -1, "as large as its pixels": 0, "twice as large as its pixels": 1}
"""How large a pixel of the raster is drawn, in pixels of the map, and the distance from the raster's own zoom."""


def measure(
    *, raster: str = "TCI.tif", rasters: Path | None = None, rounds: int = 5, results: Path = RESULTS
) -> dict[str, Any]:
    """Draw all map tiles of a raster at several zooms.

    Args:
        raster: File name of the raster.
        rasters: Folder of the raster. By default the variable RASTERS, or shared/data/rasters beside the project.
        rounds: Number of measurements of each zoom.
        results: Folder for the result file.
    """
    parameters = dict(locals())
    load_before = load()
    with tempfile.TemporaryDirectory() as folder:
        store = ObjectStore(root=f"{folder}/store")
        model = Dinov3(model=str(checkpoint(Path(folder) / "model", 4)))
        manifest = write_dataset(
            store,
            "raster",
            (rasters or default_rasters()) / raster,
            model,
            lambda tiles: np.ones((len(tiles), 4), np.float32),
            grid=Grid(size=224),
        )
        opened = OpenRasters()
        with opened.use(Dataset(store, manifest), on_grid=False) as source:
            zoom = RasterPlace(source.dataset.plan).native_zoom()
            tiles = {name: _tiles(source.dataset, zoom + step) for name, step in ZOOMS.items()}
            cases: dict[str, Callable[[], None]] = {
                name: partial(_draw, source, shown) for name, shown in tiles.items()
            }
            for case in cases.values():
                case()  # The first run fills the caches.
            times = take_turns(cases, rounds)
        opened.close()
    runs = {
        name: {"tiles": len(tiles[name]), "ms": asdict(figure([1000 * t.cpu / len(tiles[name]) for t in turns]))}
        for name, turns in times.items()
    }
    return save(NAME, parameters, load_before, {"runs": runs}, results)


def _tiles(dataset: Dataset, zoom: int) -> list[MapTile]:
    """Return the map tiles of a zoom that show the raster of a dataset."""
    west, south, east, north = shapely.bounds(outline(dataset.plan))
    (left, right), (top, bottom) = (
        axis * 2**zoom for axis in world_of(np.array([west, east]), np.array([north, south]))
    )
    return [MapTile(zoom, x, y) for y in range(int(top), int(bottom) + 1) for x in range(int(left), int(right) + 1)]


def _draw(source: OpenRaster, tiles: list[MapTile]) -> None:
    for tile in tiles:
        draw(source, tile).encoded()


def markdown(report: dict[str, Any]) -> str:
    """Return the result as a Markdown table."""
    rows = [[name, str(found["tiles"]), spread(found["ms"])] for name, found in report["runs"].items()]
    return where(report) + table(["a pixel of the raster is drawn", "map tiles", "ms of a core a map tile"], rows)


if __name__ == "__main__":
    run(measure, markdown)
