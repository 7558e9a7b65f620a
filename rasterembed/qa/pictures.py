"""Draw the report's pictures. From the pictures, people see quickly whether the vectors are useful."""

from __future__ import annotations

import base64
import io

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Patch
from matplotlib.ticker import NullFormatter
from numpy.typing import NDArray
from PIL import Image

from rasterembed.dataset.plan import Plan
from rasterembed.drawing.figure import INK, PAPER, SOFT, Heading, new_figure, style_axes, to_png
from rasterembed.drawing.raster_map import RasterFrame, draw_grid_lines, map_figure, rgb, thinned
from rasterembed.qa.coverage import Overview
from rasterembed.qa.maps import EMBEDDED, MISSING, StatusMap
from rasterembed.qa.metrics import format_number
from rasterembed.qa.report import Distribution
from rasterembed.qa.vector_statistics import Principal

_WEBP_QUALITY = 80
"""Quality of the WebP pictures in a Markdown text, 0 to 100. At this quality, a picture has a fifth of the size of the
PNG, and its letters are still sharp."""

# Colours of the palette of Okabe and Ito, as in `rasterembed.drawing.figure`.
_CLASS_COLOURS = {EMBEDDED: "#0072B2", MISSING: "#D55E00"}
_SKIPPED_COLOURS = ("#E69F00", "#CC79A7", "#F0E442", "#009E73", "#56B4E9")


def draw_coverage(heading: Heading, plan: Plan, status: StatusMap, overview: Overview | None) -> bytes:
    """Draw the status of each tile on top of the raster.

    Args:
        heading: text above the picture.
        plan: the dataset's plan.
        status: the tiles' status.
        overview: overview of the raster. It is drawn in grey below the tiles.

    Returns:
        A PNG file.
    """
    frame = RasterFrame.of(plan)
    colours = [_class_colour(i) for i in range(len(status.labels))]
    handles = [
        Patch(
            facecolor=(colours[i], _ALPHAS.get(i, _SKIPPED_ALPHA) / 255),
            edgecolor=SOFT,
            linewidth=0.6,
            label=f"{label}: {format_number(count)}",
        )
        for i, (label, count) in enumerate(zip(status.labels, status.counts, strict=True))
    ]
    ground = "The raster is drawn in grey." if overview is not None else "There is no overview of the raster to draw."
    caption = (
        f"Each cell is a tile. {ground} Look for missing tiles, which are an error, and for skipped tiles where the "
        "raster has data."
    )
    figure, axes = map_figure(heading, frame, "Which tiles have a vector", caption, handles)
    if overview is not None:
        grey = np.where(overview.valid, _DARKEST + (_LIGHTEST - _DARKEST) * overview.grey / 255, 1.0)
        axes.imshow(grey, cmap="gray", vmin=0, vmax=1, extent=frame.extent, aspect=frame.aspect)
    cells = thinned(status.cells)
    paint = np.zeros((*cells.shape, 4), dtype=np.uint8)
    for i, colour in enumerate(colours):
        paint[cells == i] = (*rgb(colour), _ALPHAS.get(i, _SKIPPED_ALPHA))
    axes.imshow(paint, extent=frame.cells(plan), aspect=frame.aspect, interpolation="nearest")
    draw_grid_lines(axes, plan, frame)
    frame.limit(axes)
    return to_png(figure)


def draw_pca(heading: Heading, plan: Plan, principal: Principal, colours: NDArray[np.uint8]) -> bytes:
    """Draw the first three principal components as red, green and blue.

    Args:
        heading: text above the picture.
        plan: the dataset's plan.
        principal: the components.
        colours: the map from `rasterembed.qa.maps.colour_map`.

    Returns:
        A PNG file.
    """
    frame = RasterFrame.of(plan)
    shown = thinned(colours)
    empty = (shown == 0).all(axis=-1)
    handles = [
        Patch(facecolor=colour, label=f"{name}: PC{i + 1}, {principal.explained[i]:.0%} of the variance")
        for i, (name, colour) in enumerate((("red", "#e03131"), ("green", "#2f9e44"), ("blue", "#1c5fd4")))
    ]
    if empty.any():
        handles.append(Patch(facecolor=PAPER, edgecolor=SOFT, linewidth=0.6, label="no vector"))
    figure, axes = map_figure(
        heading,
        frame,
        "The vectors as colour",
        "Each pixel is a tile. Tiles with similar vectors have similar colours. Look for areas that follow the "
        "landscape. Random dots can mean that vectors belong to other tiles. Straight seams can mean that shards were "
        "computed differently. A single colour can mean that the model does not distinguish the tiles.",
        handles,
    )
    paint = np.where(empty[..., None], np.array(rgb(PAPER), dtype=np.uint8), shown)
    axes.imshow(paint, extent=frame.cells(plan), aspect=frame.aspect, interpolation="nearest")
    frame.limit(axes)
    return to_png(figure)


def draw_norms(heading: Heading, norm: Distribution, valid_fraction: Distribution) -> bytes:
    """Draw histograms of the vectors' norms and of the tiles' valid fractions.

    Args:
        heading: text above the picture.
        norm: distribution of the norms.
        valid_fraction: distribution of the valid fractions.

    Returns:
        A PNG file.
    """
    caption = (
        "Norms should form one compact hump. A bar at zero or far from the other bars means broken vectors. Most valid "
        "fractions are 1. Tiles at the raster's edge and at gaps in its data have smaller valid fractions."
    )
    figure = new_figure(heading, "Norms and valid fractions", 4.4, caption)
    left, right = figure.subplots(
        1, 2, gridspec_kw={"left": 0.07, "right": 0.985, "top": 0.84, "bottom": 0.235, "wspace": 0.2}
    )
    _histogram(left, norm, "Euclidean norm of the vector (no unit)")
    _histogram(right, valid_fraction, "Valid pixels / pixels of the tile")
    return to_png(figure)


_ALPHAS = {EMBEDDED: 45, MISSING: 225}
_SKIPPED_ALPHA = 150
"""Opacity of the cells of a class, 0 to 255. The raster is visible below embedded tiles, but hardly below missing
tiles."""

_DARKEST, _LIGHTEST = 0.4, 0.97
"""Range of the raster's greys, 0 to 1. Darker and lighter greys are used for lines and gaps."""


def _class_colour(tile_class: int) -> str:
    """Return the colour of a class of `rasterembed.qa.maps.StatusMap`."""
    skip_reason = tile_class - len(_CLASS_COLOURS)
    return _CLASS_COLOURS.get(tile_class) or _SKIPPED_COLOURS[skip_reason % len(_SKIPPED_COLOURS)]


def _histogram(axes: Axes, distribution: Distribution, label: str) -> None:
    counts = np.array(distribution.counts)
    axes.stairs(counts, distribution.edges, fill=True, color="#0072B2", alpha=0.85)
    filled = counts[counts > 0]
    if filled.max() > 100 * filled.min():
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter("{x:,.0f}")
        axes.yaxis.set_minor_formatter(NullFormatter())  # The default formatter writes numbers as formulas.
        axes.set_ylim(bottom=0.7)
    quantiles = distribution.quantiles
    if quantiles:
        axes.axvspan(quantiles["p01"], quantiles["p99"], color=PAPER, zorder=0, label="1st to 99th percentile")
        axes.axvline(
            quantiles["p50"], color="#D55E00", linewidth=1.6, label=f"median {format_number(quantiles['p50'])}"
        )
    axes.set_xlim(distribution.edges[0], distribution.edges[-1])
    axes.set_xlabel(label, color=SOFT)
    axes.set_ylabel("Tiles", color=SOFT)
    rows, minimum, maximum = map(format_number, (distribution.rows, distribution.minimum, distribution.maximum))
    axes.set_title(
        f"{rows} vectors, {minimum} to {maximum}",
        fontsize=9.5,
        color=INK,
        loc="left",
    )
    axes.ticklabel_format(axis="x", useOffset=False, style="plain")
    axes.legend(frameon=False, fontsize=8.5, labelcolor=INK, loc="upper left")
    style_axes(axes)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def data_uri(png: bytes) -> str:
    """Return a PNG picture as a data URI for a Markdown text.

    The picture is encoded again as WebP. The URI then has some tens of kilobytes.
    """
    data = io.BytesIO()
    Image.open(io.BytesIO(png)).convert("RGB").save(data, "WEBP", quality=_WEBP_QUALITY)
    return f"data:image/webp;base64,{base64.b64encode(data.getvalue()).decode()}"
