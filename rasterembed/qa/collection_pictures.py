"""Draw the pictures of a collection's quality report."""

from __future__ import annotations

import math

import numpy as np
import shapely
from matplotlib.collections import PolyCollection
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from numpy.typing import NDArray

from rasterembed.collection.scene_row import SceneState
from rasterembed.qa.collection_outliers import Outliers, principal_axes
from rasterembed.qa.figure import SOFT, WIDTH_IN, Heading, add_legend, new_figure, style_axes, to_png
from rasterembed.qa.scene_means import SceneMeans

_COLOURS = {
    SceneState.READY: "#0072B2",
    SceneState.EMBEDDED: "#56B4E9",
    SceneState.FAILED_QA: "#E69F00",
    SceneState.FAILED: "#D55E00",
}
"""Colours of the palette of Okabe and Ito."""

_MOST_OUTLINES = 5000
"""Largest number of scenes whose outlines are drawn. If there are more scenes, only their middles are drawn."""

_MOST_POINTS = 20_000
"""Largest number of points in the picture of the vectors. If there are more scenes, every n-th scene and all outliers
are drawn."""

_HEIGHT_IN = (1.8, 7.0)
"""Smallest and largest height of the map, in inches."""


def draw_scenes(heading: Heading, geometry: NDArray[np.object_], states: NDArray[np.object_]) -> bytes:
    """Draw the footprints of all scenes, with a colour for each state.

    Args:
        heading: text above the picture.
        geometry: footprints in OGC:CRS84, shape (n,), without None, n > 0.
        states: value of `SceneState` of each scene, shape (n,).

    Returns:
        A PNG file.
    """
    west, south, east, north = _padded(*shapely.total_bounds(geometry))
    # A degree of longitude is shorter towards the poles.
    aspect = 1 / math.cos(math.radians(min(abs(south + north) / 2, 75.0)))
    left, right, below, above = 0.95, 0.15, 0.95, 0.72
    width = WIDTH_IN - left - right
    tall = min(max(width * (north - south) * aspect / (east - west), _HEIGHT_IN[0]), _HEIGHT_IN[1])
    height = tall + below + above
    caption = (
        "Each outline is a scene, and each dot is its middle. Places in several scenes are darker. Look for scenes "
        "at a wrong place, for gaps, and for failed scenes that lie together."
    )
    figure = new_figure(heading, "Scenes by state", height, caption)
    axes = figure.add_axes((left / WIDTH_IN, below / height, width / WIDTH_IN, tall / height))
    handles = []
    for state, colour in _COLOURS.items():
        chosen = geometry[states == state.value]
        if not len(chosen):
            continue
        handles.append(Patch(facecolor=colour, alpha=0.6, label=f"{state.value}: {len(chosen):,}"))
        middles = shapely.get_coordinates(shapely.centroid(chosen))
        if len(geometry) <= _MOST_OUTLINES:
            rings = shapely.get_exterior_ring(shapely.get_parts(chosen))
            outlines = [shapely.get_coordinates(ring) for ring in rings if ring is not None]
            axes.add_collection(
                PolyCollection(outlines, facecolors=colour, edgecolors=colour, alpha=0.35, linewidths=0.6)
            )
        axes.plot(middles[:, 0], middles[:, 1], ".", color=colour, markersize=2.5)
    add_legend(figure, handles, 1 - 0.38 / height, len(handles))
    axes.set_xlim(west, east)
    axes.set_ylim(south, north)
    axes.set_aspect(aspect)
    axes.set_anchor("W")
    axes.ticklabel_format(useOffset=False, style="plain")
    axes.locator_params(axis="x", nbins=5)
    axes.set_xlabel("Longitude (°)", color=SOFT, loc="left")
    axes.set_ylabel("Latitude (°)", color=SOFT)
    style_axes(axes)
    return to_png(figure)


def _padded(west: float, south: float, east: float, north: float) -> tuple[float, float, float, float]:
    """Return a box with a margin, so that the outermost footprints can be seen."""
    margin = max(0.03 * max(east - west, north - south), 1e-6)
    return west - margin, south - margin, east + margin, north + margin


def draw_vectors(heading: Heading, means: SceneMeans, outliers: Outliers, limit: float) -> bytes:
    """Draw the mean vectors of the scenes along their first two principal components, and the outliers' scores.

    Args:
        heading: text above the picture.
        means: statistics of the scenes, at least two.
        outliers: scores of the same scenes.
        limit: score above which a scene is an outlier.

    Returns:
        A PNG file.
    """
    caption = (
        "Left: each dot is a scene, and near dots have similar mean vectors. Right: how far each scene is from the "
        "others. Outliers are above or right of the dashed lines. Look for groups of scenes that belong together."
    )
    figure = new_figure(heading, "Mean vectors of the scenes", 4.6, caption)
    panels = figure.subplots(
        1, 2, gridspec_kw={"left": 0.08, "right": 0.985, "top": 0.84, "bottom": 0.24, "wspace": 0.22}
    )
    far = outliers.score > limit
    shown = np.zeros(means.count, dtype=bool)
    shown[:: -(-means.count // _MOST_POINTS)] = True
    centred = means.centred()
    places = centred @ principal_axes(centred, 2).T
    norm = np.abs(outliers.norm_score)
    for panel, x, y in ((panels[0], places[:, 0], places[:, 1]), (panels[1], norm, outliers.vector_score)):
        for chosen, colour in ((shown & ~far, _COLOURS[SceneState.READY]), (far, _COLOURS[SceneState.FAILED])):
            panel.plot(x[chosen], y[chosen], "o", color=colour, markersize=4, alpha=0.6, markeredgewidth=0)
        style_axes(panel)
    panels[0].set_xlabel("First principal component", color=SOFT)
    panels[0].set_ylabel("Second principal component", color=SOFT)
    panels[1].axvline(limit, color=SOFT, linewidth=0.8, linestyle="--")
    panels[1].axhline(limit, color=SOFT, linewidth=0.8, linestyle="--")
    panels[1].set_xlabel("Score of the mean norm", color=SOFT)
    panels[1].set_ylabel("Score of the mean vector", color=SOFT)
    handles = [
        Line2D(
            [], [], marker="o", linestyle="", color=_COLOURS[SceneState.FAILED], label=f"outliers: {int(far.sum()):,}"
        ),
        Line2D([], [], marker="o", linestyle="", color=_COLOURS[SceneState.READY], label="other scenes"),
    ]
    add_legend(figure, handles, 0.925, 2)
    return to_png(figure)
