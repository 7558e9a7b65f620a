"""Draw the pictures of neighbours and of groups."""

from __future__ import annotations

import io

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from rasterembed.drawing.figure import SOFT, Heading, new_figure, style_axes, to_png
from rasterembed.model.checkpoints import DEMO
from rasterembed.number_text import number_text
from rasterembed.search.batch.all_tiles import AllTiles
from rasterembed.search.batch.deduplicate import Groups
from rasterembed.search.batch.result_file import Drawn
from rasterembed.search.batch.tile_pictures import COLUMNS, TileRow, draw_tile_rows

_SHARES = (0.0, 0.1, 0.5, 0.9, 0.99, 1.0)
"""The example tiles are at these places in the order of the distances to their nearest neighbours."""

_MOST_GROUPS = 10
"""Largest number of groups in a picture."""

_BINS = 60
_FIRST_COLOUR, _LAST_COLOUR = "#0072B2", "#E69F00"


def heading(tiles: AllTiles) -> Heading:
    """Return the text at the top of a figure."""
    return Heading(tiles.files.owner_id, tiles.model, tiles.model.startswith(DEMO))


def draw_neighbours(tiles: AllTiles, numbers: NDArray[np.int64], distances: NDArray[np.float32]) -> Drawn:
    """Draw a histogram of the distances, and example tiles with their neighbours.

    The examples go from the tile with the nearest neighbour to the tile whose nearest neighbour is farthest.

    Args:
        tiles: all tiles.
        numbers: row numbers of the neighbours, shape (n, k), -1 where there are fewer.
        distances: their distances, shape (n, k).
    """
    first = np.asarray(distances[:, 0])
    order = np.argsort(first, kind="stable")
    # Of few tiles, several shares lead to the same tile, which is shown once.
    chosen = {int(order[round(share * (len(order) - 1))]): share for share in _SHARES}
    rows = []
    for number, share in chosen.items():
        real = np.flatnonzero(numbers[number] >= 0)[: COLUMNS - 1]
        others = numbers[number][real].tolist()
        far = [f"{value:.4f}" for value in distances[number][real].tolist()]
        title = {
            0.0: "the tile with the nearest neighbour of all",
            1.0: "the tile that is most unlike all others",
        }.get(share, f"{share:.0%} of the tiles have a nearer neighbour than this tile")
        rows.append(TileRow(title, [number, *others], ["tile", *far], framed=True))
    figure = Image.open(io.BytesIO(to_png(_histogram(tiles, distances)))).convert("RGB")
    return draw_tile_rows(tiles, "Nearest tiles of every tile", rows, "distance: cosine distance", above=figure)


def _histogram(tiles: AllTiles, distances: NDArray[np.float32]) -> Figure:
    k = distances.shape[1]
    caption = (
        "How far away the nearest tile is, and the last of the neighbours. A hump near 0 means many tiles that are "
        "almost equal: see the command deduplicate. Tiles at the right are unlike all others."
    )
    figure = new_figure(heading(tiles), "Distances to the neighbours", 3.2, caption)
    axes = figure.subplots(gridspec_kw={"left": 0.085, "right": 0.985, "top": 0.86, "bottom": 0.3})
    last = np.asarray(distances[:, k - 1])
    shown = [(np.asarray(distances[:, 0]), "nearest tile", _FIRST_COLOUR), (last, f"neighbour {k}", _LAST_COLOUR)]
    shown = [(values[np.isfinite(values)], label, colour) for values, label, colour in shown[: 1 if k == 1 else 2]]
    highest = max((float(np.quantile(values, 0.999)) for values, _, _ in shown if len(values)), default=0.0)
    edges = np.linspace(0.0, max(highest, 1e-6), _BINS + 1)
    for values, label, colour in shown:
        if len(values):
            counts = np.histogram(np.minimum(values, edges[-1]), edges)[0]
            axes.stairs(counts, edges, fill=True, color=colour, alpha=0.55, label=label)
            axes.axvline(float(np.median(values)), color=colour, linewidth=1.4, label=f"median {np.median(values):.4f}")
    axes.set_xlim(edges[0], edges[-1])
    axes.set_xlabel("Cosine distance (0: same direction)", color=SOFT)
    axes.set_ylabel("Tiles", color=SOFT)
    axes.yaxis.set_major_formatter("{x:,.0f}")
    if axes.get_legend_handles_labels()[0]:  # A single tile has no neighbour to draw.
        axes.legend(frameon=False, fontsize=8.5, loc="upper right")
    style_axes(axes)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    return figure


def draw_groups(tiles: AllTiles, groups: Groups, threshold: float) -> Drawn:
    """Draw the largest groups, each as a row with the kept tile and some of the others, the farthest last.

    Args:
        tiles: all tiles.
        groups: the groups.
        threshold: largest cosine distance to the kept tile.
    """
    rows = []
    for group in range(min(_MOST_GROUPS, len(groups.sizes))):
        if groups.sizes[group] < 2:
            break
        members = np.flatnonzero(groups.group == group)
        members = members[members != groups.kept[group]]
        members = members[np.lexsort((tiles.id_rank[members], groups.distance[members]))]
        places = np.unique(np.linspace(0, len(members) - 1, min(COLUMNS - 1, len(members))).round().astype(np.int64))
        shown = members[places].tolist()
        captions = [f"{value:.4f}" for value in groups.distance[shown].tolist()]
        farthest = float(groups.distance[members].max())
        title = f"group {group}: {groups.sizes[group]:,} tiles, the farthest {farthest:.4f} from the kept tile"
        rows.append(TileRow(title, [int(groups.kept[group]), *shown], ["kept", *captions], framed=True))
    title = "Largest groups of tiles that are almost equal" if rows else "No two tiles are almost equal"
    return draw_tile_rows(tiles, title, rows, f"threshold {number_text(threshold)}")
