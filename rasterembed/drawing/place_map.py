"""Maps in longitude and latitude."""

from __future__ import annotations

import math
from collections.abc import Sequence

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rasterembed.drawing.figure import SOFT, WIDTH_IN, Heading, add_legend, new_figure, style_axes

_HEIGHT_IN = (1.8, 7.0)
"""Smallest and largest height of the map, in inches."""

_LEGEND_COLUMNS = 6
"""Largest number of columns in the legend."""


def place_figure(
    heading: Heading, title: str, caption: str, bounds: tuple[float, float, float, float], handles: Sequence[Artist]
) -> tuple[Figure, Axes]:
    """Return a figure with a legend and one panel whose axes are longitude and latitude.

    Args:
        heading: text above the picture.
        title: first words of the title.
        caption: sentences that tell people how to read the picture.
        bounds: west, south, east and north edge of what is drawn, in degrees. The panel has a margin around them.
        handles: entries of the legend.
    """
    west, south, east, north = _padded(*bounds)
    # A degree of longitude is shorter towards the poles.
    aspect = 1 / math.cos(math.radians(min(abs(south + north) / 2, 75.0)))
    columns = max(1, min(len(handles), _LEGEND_COLUMNS))
    left, right, below, above = 0.95, 0.15, 0.95, 0.5 + 0.22 * -(-len(handles) // columns)
    width = WIDTH_IN - left - right
    tall = min(max(width * (north - south) * aspect / (east - west), _HEIGHT_IN[0]), _HEIGHT_IN[1])
    height = tall + below + above
    figure = new_figure(heading, title, height, caption)
    axes = figure.add_axes((left / WIDTH_IN, below / height, width / WIDTH_IN, tall / height))
    add_legend(figure, handles, 1 - 0.38 / height, columns)
    axes.set_xlim(west, east)
    axes.set_ylim(south, north)
    axes.set_aspect(aspect)
    axes.set_anchor("W")
    axes.ticklabel_format(useOffset=False, style="plain")
    axes.locator_params(axis="x", nbins=5)
    axes.set_xlabel("Longitude (°)", color=SOFT, loc="left")
    axes.set_ylabel("Latitude (°)", color=SOFT)
    style_axes(axes)
    return figure, axes


def _padded(west: float, south: float, east: float, north: float) -> tuple[float, float, float, float]:
    """Return a box with a margin, so that the outermost footprints can be seen."""
    margin = max(0.03 * max(east - west, north - south), 1e-6)
    return west - margin, south - margin, east + margin, north + margin
