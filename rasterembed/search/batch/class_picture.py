"""Draw a map of classes, with examples of each class."""

from __future__ import annotations

import io

import numpy as np
import shapely
from matplotlib.collections import PolyCollection
from matplotlib.patches import Patch
from numpy.typing import NDArray
from PIL import Image

from rasterembed.dataset.dataset import Dataset
from rasterembed.dataset.wkb import FootprintError, read_footprints
from rasterembed.drawing.figure import to_png
from rasterembed.drawing.place_map import place_figure
from rasterembed.drawing.raster_map import RasterFrame, map_figure, rgb, thinned
from rasterembed.number_text import counted
from rasterembed.search.batch.all_tiles import AllTiles
from rasterembed.search.batch.cluster import Classes
from rasterembed.search.batch.pictures import heading
from rasterembed.search.batch.result_file import Drawn
from rasterembed.search.batch.tile_pictures import COLUMNS, TileRow, draw_tile_rows

_COLOURS = (
    "#4363d8", "#3cb44b", "#ffe119", "#e6194b", "#f58231", "#911eb4", "#42d4f4", "#f032e6", "#bfef45", "#fabed4",
    "#469990", "#dcbeff", "#9a6324", "#fffac8", "#800000", "#aaffc3", "#808000", "#ffd8b1", "#000075", "#000000",
)  # fmt: skip
"""Colours of the largest classes: "20 simple, distinct colors" of Sasha Trubetskoy (2017). Smaller classes are grey."""

_OTHER, _EMPTY = "#a9a9a9", "#ffffff"

_MOST_OUTLINES = 100_000
"""Largest number of tiles of a collection whose outlines are drawn. Of more tiles, every n-th is drawn."""


def draw_classes(tiles: AllTiles, classes: Classes) -> Drawn:
    """Draw a map of the classes, and the tiles of each class that are nearest to its centre.

    Args:
        tiles: all tiles.
        classes: the classes.
    """
    named = min(len(_COLOURS), int((classes.sizes > 0).sum()))
    colours = list(_COLOURS[:named])
    rows = []
    for number in range(named):
        members = np.flatnonzero(classes.number == number)
        order = np.lexsort((tiles.id_rank[members], classes.distance[members]))[:COLUMNS]
        shown = members[order].tolist()
        captions = [f"{value:.4f}" for value in classes.distance[shown].tolist()]
        share = classes.sizes[number] / tiles.count
        title = f"class {number}: {counted(classes.sizes[number], 'tile')}, {share:.1%}; the nearest to its centre"
        rows.append(TileRow(title, shown, captions, colour=colours[number]))
    handles = [Patch(facecolor=colours[number], label=f"{number}") for number in range(named)]
    if named < len(classes.sizes):
        handles.append(Patch(facecolor=_OTHER, label="smaller classes"))
    draw = _raster_map if isinstance(tiles.owner, Dataset) else _place_map
    png = draw(tiles, classes, [*colours, _OTHER], handles)
    above = None if png is None else Image.open(io.BytesIO(png)).convert("RGB")
    return draw_tile_rows(
        tiles, f"{counted(len(classes.sizes), 'class', 'classes')} of tiles", rows, "cosine distance", above=above
    )


_TITLE = "Classes"
_CAPTION = (
    "Each cell is a tile, in the colour of its class. Look for areas that follow the landscape. A class that is spread "
    "like noise has no meaning. Ask for fewer classes if two classes look alike, and for more if one class is mixed."
)


def _raster_map(tiles: AllTiles, classes: Classes, colours: list[str], handles: list[Patch]) -> bytes:
    assert isinstance(tiles.owner, Dataset)
    plan = tiles.owner.plan
    cells = np.empty((plan.sharding.rows, plan.sharding.cols, 3), np.uint8)
    cells[:] = rgb(_EMPTY)
    row, col = (tiles.rows.table[name].to_numpy() for name in ("row", "col"))
    inside = (row >= 0) & (col >= 0) & (row < cells.shape[0]) & (col < cells.shape[1])
    palette = np.array([rgb(colour) for colour in colours], np.uint8)
    cells[row[inside], col[inside]] = palette[_colour_number(classes, len(colours))[inside]]
    frame = RasterFrame.of(plan)
    figure, axes = map_figure(heading(tiles), frame, _TITLE, _CAPTION, handles)
    axes.imshow(thinned(cells), extent=frame.cells(plan), aspect=frame.aspect, interpolation="nearest")
    frame.limit(axes)
    return to_png(figure)


def _place_map(tiles: AllTiles, classes: Classes, colours: list[str], handles: list[Patch]) -> bytes | None:
    """Draw the footprints of the tiles. Return None if no tile has a place on Earth."""
    shown = np.arange(0, tiles.count, -(-tiles.count // _MOST_OUTLINES))
    try:
        outlines = read_footprints(tiles.rows.take(shown, ["geometry"])["geometry"])
    except FootprintError as error:
        raise tiles.files.impossible_row(error) from error
    placed = ~shapely.is_missing(outlines)
    outlines, shown = outlines[placed], shown[placed]
    if not len(shown):
        return None
    figure, axes = place_figure(heading(tiles), _TITLE, _CAPTION, shapely.total_bounds(outlines), handles)
    parts, owner = shapely.get_parts(outlines, return_index=True)
    rings = shapely.get_exterior_ring(parts)
    colour = np.array(colours)[_colour_number(classes, len(colours))[shown[owner]]]
    real = ~shapely.is_missing(rings)
    axes.add_collection(
        PolyCollection([shapely.get_coordinates(ring) for ring in rings[real]], facecolors=colour[real].tolist()),
        autolim=False,
    )
    return to_png(figure)


def _colour_number(classes: Classes, colours: int) -> NDArray[np.int32]:
    """Return the number of the colour of each tile. The last colour is for all smaller classes."""
    numbers: NDArray[np.int32] = np.minimum(classes.number, colours - 1)
    return numbers
