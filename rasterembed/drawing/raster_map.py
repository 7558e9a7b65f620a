"""Maps with a cell for each tile of a raster, with axes in coordinates of the raster's CRS."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pyproj
from affine import Affine
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray

from rasterembed.dataset.plan import Plan
from rasterembed.drawing.figure import SOFT, WIDTH_IN, Heading, add_legend, new_figure, style_axes
from rasterembed.escape import cut

_MAP_HEIGHT_IN = (1.6, 8.0)
"""Smallest and largest height of a map's panel, in inches."""
_LEFT_IN, _RIGHT_IN, _BELOW_IN = 0.95, 0.15, 1.15
"""Margins of a map's panel, in inches. They hold the labels of the axes. The lower margin also holds the caption."""
_LEGEND_COLUMNS, _LINE_LETTERS, _SWATCH_LETTERS = 3, 135, 7
"""Number of columns in a legend of several lines, number of letters in a line, and width of a colour patch in
letters."""

_CELLS = 2000
"""Largest number of map cells along a side. From a larger grid, only every n-th cell is drawn."""


@dataclass(frozen=True)
class RasterFrame:
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
    def of(cls, plan: Plan) -> RasterFrame:
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


def map_figure(
    heading: Heading, frame: RasterFrame, title: str, caption: str, handles: list[Patch]
) -> tuple[Figure, Axes]:
    """Return a figure with a legend and one panel of the raster's shape.

    Args:
        heading: text above the picture.
        frame: axes of the panel.
        title: first words of the title.
        caption: sentences that tell people how to read the picture.
        handles: entries of the legend.
    """
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


def draw_grid_lines(axes: Axes, plan: Plan, frame: RasterFrame) -> None:
    """Draw thin lines between tiles. If a map has many tiles, draw no lines, because they would cover the map."""
    rows, cols = plan.sharding.rows, plan.sharding.cols
    if max(rows, cols) > 80:
        return
    left, right, bottom, top = frame.cells(plan)
    line = (1.0, 1.0, 1.0, 0.8)
    axes.vlines(np.linspace(left, right, cols + 1), bottom, top, line, linewidth=0.7)
    axes.hlines(np.linspace(top, bottom, rows + 1), left, right, line, linewidth=0.7)


def rgb(colour: str) -> tuple[int, int, int]:
    """Return red, green and blue of a colour such as `#0072B2`, each from 0 to 255."""
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)


def thinned(cells: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return every n-th row and column of a map, so that a picture has few enough cells to draw."""
    every = -(-max(cells.shape[:2]) // _CELLS)
    return cells[::every, ::every]


def cell_to_pixel(plan: Plan) -> Affine:
    """Return the affine transform from (column, row) of the tile grid to (column, row) of the raster.

    The centre of a cell becomes the centre of its tile. With `edge=shift`, the tiles of the last row and column are
    moved inward. For these tiles, the centre is not exact.
    """
    grid, first = plan.sharding.grid, plan.sharding.first_tile
    offset = (grid.size - grid.step) / 2
    return Affine.translation(int(first.col_off[0]) + offset, int(first.row_off[0]) + offset) @ Affine.scale(grid.step)
