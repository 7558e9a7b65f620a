"""Draw the report's pictures. From the pictures, people see quickly whether the vectors are useful."""

from __future__ import annotations

import base64
import io
import math
from dataclasses import dataclass

import numpy as np
import pyproj
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import NullFormatter
from numpy.typing import NDArray
from PIL import Image

from rasterembed.dataset.plan import Plan
from rasterembed.escape import cut
from rasterembed.qa.coverage import Overview
from rasterembed.qa.figure import INK, PAPER, SOFT, WIDTH_IN, Heading, add_legend, new_figure, style_axes, to_png
from rasterembed.qa.maps import EMBEDDED, MISSING, StatusMap, cell_to_pixel
from rasterembed.qa.metrics import format_number
from rasterembed.qa.report import Distribution
from rasterembed.qa.vector_statistics import Principal

_MAP_HEIGHT_IN = (1.6, 8.0)
"""Smallest and largest height of a map's panel, in inches."""
_LEFT_IN, _RIGHT_IN, _BELOW_IN = 0.95, 0.15, 1.15
"""Margins of a map's panel, in inches. They hold the labels of the axes. The lower margin also holds the caption."""
_LEGEND_COLUMNS, _LINE_LETTERS, _SWATCH_LETTERS = 3, 135, 7
"""Number of columns in a legend of several lines, number of letters in a line, and width of a colour patch in
letters."""

_CELLS = 2000
"""Largest number of map cells along a side. From a larger grid, only every n-th cell is drawn."""

_WEBP_QUALITY = 80
"""Quality of the WebP pictures in a Markdown text, 0 to 100. At this quality, a picture has a fifth of the size of the
PNG, and its letters are still sharp."""

# Colours of the palette of Okabe and Ito, as in `rasterembed.qa.figure`.
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
    frame = _Frame.of(plan)
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
    figure, axes = _map_figure(heading, frame, "Which tiles have a vector", caption, handles)
    if overview is not None:
        grey = np.where(overview.valid, _DARKEST + (_LIGHTEST - _DARKEST) * overview.grey / 255, 1.0)
        axes.imshow(grey, cmap="gray", vmin=0, vmax=1, extent=frame.extent, aspect=frame.aspect)
    cells = _thinned(status.cells)
    paint = np.zeros((*cells.shape, 4), dtype=np.uint8)
    for i, colour in enumerate(colours):
        paint[cells == i] = (*_rgb(colour), _ALPHAS.get(i, _SKIPPED_ALPHA))
    axes.imshow(paint, extent=frame.cells(plan), aspect=frame.aspect, interpolation="nearest")
    _grid_lines(axes, plan, frame)
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
    frame = _Frame.of(plan)
    shown = _thinned(colours)
    empty = (shown == 0).all(axis=-1)
    handles = [
        Patch(facecolor=colour, label=f"{name}: PC{i + 1}, {principal.explained[i]:.0%} of the variance")
        for i, (name, colour) in enumerate((("red", "#e03131"), ("green", "#2f9e44"), ("blue", "#1c5fd4")))
    ]
    if empty.any():
        handles.append(Patch(facecolor=PAPER, edgecolor=SOFT, linewidth=0.6, label="no vector"))
    figure, axes = _map_figure(
        heading,
        frame,
        "The vectors as colour",
        "Each pixel is a tile. Tiles with similar vectors have similar colours. Look for areas that follow the "
        "landscape. Random dots can mean that vectors belong to other tiles. Straight seams can mean that shards were "
        "computed differently. A single colour can mean that the model does not distinguish the tiles.",
        handles,
    )
    paint = np.where(empty[..., None], np.array(_rgb(PAPER), dtype=np.uint8), shown)
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


def _rgb(colour: str) -> tuple[int, int, int]:
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)


@dataclass(frozen=True)
class _Frame:
    """Axes of a map. They show coordinates of the native CRS.

    They show pixels if the raster is rotated, has ground control points, or has no place on Earth.
    """

    left: float
    """Coordinate of the raster's left edge."""
    top: float
    """Coordinate of the raster's top edge."""
    pixel_width: float
    """Width of a pixel in coordinates."""
    pixel_height: float
    """Height of a pixel in coordinates. It is negative if y grows upwards."""
    width: int
    """Width of the raster, px."""
    height: int
    """Height of the raster, px."""
    aspect: float
    """Length of one unit of y on the figure, divided by the length of one unit of x."""
    x_label: str
    y_label: str

    @classmethod
    def of(cls, plan: Plan) -> _Frame:
        """Return the frame of a dataset's raster."""
        profile = plan.profile
        a, b, c, d, e, f = profile.transform
        if not profile.on_earth or profile.gcps or b or d or profile.crs_wkt is None:
            return cls(0, 0, 1, 1, profile.width, profile.height, 1.0, "Column (px)", "Row (px)")
        crs = pyproj.CRS.from_wkt(profile.crs_wkt)
        aspect, labels = 1.0, ("Easting", "Northing")
        if crs.is_geographic:
            latitude = min(abs(f + e * profile.height / 2), 75.0)
            # A degree of longitude is shorter towards the poles.
            aspect, labels = 1.0 / math.cos(math.radians(latitude)), ("Longitude", "Latitude")
        unit_name = crs.axis_info[0].unit_name if crs.axis_info else "unknown unit"
        unit = {"metre": "m", "degree": "°"}.get(unit_name, cut(unit_name, 20))
        name = crs.name if len(crs.name) < 40 else "native CRS"
        return cls(
            c, f, a, e, profile.width, profile.height, aspect, f"{labels[0]} ({unit}), {name}", f"{labels[1]} ({unit})"
        )

    def box(self, left: float, top: float, right: float, bottom: float) -> tuple[float, float, float, float]:
        """Return matplotlib's extent (left, right, bottom, top) of a box. The box is given in pixels."""
        return (
            self.left + self.pixel_width * left,
            self.left + self.pixel_width * right,
            self.top + self.pixel_height * bottom,
            self.top + self.pixel_height * top,
        )

    @property
    def extent(self) -> tuple[float, float, float, float]:
        """Matplotlib's extent of the raster."""
        return self.box(0, 0, self.width, self.height)

    def cells(self, plan: Plan) -> tuple[float, float, float, float]:
        """Return matplotlib's extent of the tile grid."""
        to_pixel = cell_to_pixel(plan)
        return self.box(*(to_pixel @ (0, 0)), *(to_pixel @ (plan.sharding.cols, plan.sharding.rows)))

    @property
    def shape(self) -> float:
        """Height of the drawn map divided by its width."""
        return abs(self.height * self.pixel_height * self.aspect / (self.width * self.pixel_width))

    def limit(self, axes: Axes) -> None:
        """Limit the axes to the raster. Parts of tiles outside the raster are not drawn."""
        left, right, bottom, top = self.extent
        axes.set_xlim(left, right)
        axes.set_ylim(bottom, top)


def _map_figure(heading: Heading, frame: _Frame, title: str, caption: str, handles: list[Patch]) -> tuple[Figure, Axes]:
    """Return a figure with a legend and one panel of the raster's shape."""
    width = WIDTH_IN - _LEFT_IN - _RIGHT_IN
    tall = min(max(width * frame.shape, _MAP_HEIGHT_IN[0]), _MAP_HEIGHT_IN[1])
    letters = sum(len(str(handle.get_label())) + _SWATCH_LETTERS for handle in handles)
    columns = len(handles) if letters <= _LINE_LETTERS else _LEGEND_COLUMNS
    above = 0.5 + 0.22 * -(-len(handles) // columns)
    height = above + tall + _BELOW_IN
    figure = new_figure(heading, title, height, caption)
    add_legend(figure, handles, 1 - 0.4 / height, columns, handlelength=1.4, columnspacing=1.6)
    axes = figure.add_axes((_LEFT_IN / WIDTH_IN, _BELOW_IN / height, width / WIDTH_IN, tall / height))
    axes.set_anchor("W")
    axes.set_xlabel(frame.x_label, color=SOFT, loc="left")
    axes.set_ylabel(frame.y_label, color=SOFT)
    style_axes(axes)
    axes.ticklabel_format(useOffset=False, style="plain")
    drawn = min(width, tall / frame.shape)
    if drawn < 1.2:  # The panel has no room for two numbers side by side.
        left, right, _, _ = frame.extent
        axes.set_xticks([(left + right) / 2])
    else:
        axes.locator_params(axis="x", nbins=max(1, min(7, int(drawn))))
    axes.locator_params(axis="y", nbins=max(2, min(7, int(drawn * frame.shape))))
    return figure, axes


def _grid_lines(axes: Axes, plan: Plan, frame: _Frame) -> None:
    """Draw thin lines between tiles. If a map has many tiles, draw no lines, because they would cover the map."""
    rows, cols = plan.sharding.rows, plan.sharding.cols
    if max(rows, cols) > 80:
        return
    left, right, bottom, top = frame.cells(plan)
    line = (1.0, 1.0, 1.0, 0.8)
    axes.vlines(np.linspace(left, right, cols + 1), bottom, top, line, linewidth=0.7)
    axes.hlines(np.linspace(top, bottom, rows + 1), left, right, line, linewidth=0.7)


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


def _thinned(cells: NDArray[np.uint8]) -> NDArray[np.uint8]:
    every = -(-max(cells.shape[:2]) // _CELLS)
    return cells[::every, ::every]


def data_uri(png: bytes) -> str:
    """Return a PNG picture as a data URI for a Markdown text.

    The picture is encoded again as WebP. The URI then has some tens of kilobytes.
    """
    data = io.BytesIO()
    Image.open(io.BytesIO(png)).convert("RGB").save(data, "WEBP", quality=_WEBP_QUALITY)
    return f"data:image/webp;base64,{base64.b64encode(data.getvalue()).decode()}"
