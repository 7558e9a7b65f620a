"""Draw the pictures of a collection's quality report."""

from __future__ import annotations

import numpy as np
import shapely
from matplotlib.collections import PolyCollection
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from numpy.typing import NDArray

from rasterembed.collection.scene_row import SceneState
from rasterembed.drawing.figure import SOFT, Heading, add_legend, new_figure, style_axes, to_png
from rasterembed.drawing.place_map import place_figure
from rasterembed.qa.collection_outliers import Outliers, principal_axes
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


def draw_scenes(heading: Heading, geometry: NDArray[np.object_], states: NDArray[np.object_]) -> bytes:
    """Draw the footprints of all scenes, with a colour for each state.

    Args:
        heading: text above the picture.
        geometry: footprints in OGC:CRS84, shape (n,), without None, n > 0.
        states: value of `SceneState` of each scene, shape (n,).

    Returns:
        A PNG file.
    """
    caption = (
        "Each outline is a scene, and each dot is its middle. Places in several scenes are darker. Look for scenes "
        "at a wrong place, for gaps, and for failed scenes that lie together."
    )
    counts = {state: int(np.count_nonzero(states == state.value)) for state in _COLOURS}
    shown = {state: colour for state, colour in _COLOURS.items() if counts[state]}
    handles = [
        Patch(facecolor=colour, alpha=0.6, label=f"{state.value}: {counts[state]:,}") for state, colour in shown.items()
    ]
    figure, axes = place_figure(heading, "Scenes by state", caption, shapely.total_bounds(geometry), handles)
    for state, colour in shown.items():
        chosen = geometry[states == state.value]
        middles = shapely.get_coordinates(shapely.centroid(chosen))
        if len(geometry) <= _MOST_OUTLINES:
            rings = shapely.get_exterior_ring(shapely.get_parts(chosen))
            outlines = [shapely.get_coordinates(ring) for ring in rings if ring is not None]
            axes.add_collection(
                PolyCollection(outlines, facecolors=colour, edgecolors=colour, alpha=0.35, linewidths=0.6),
                autolim=False,
            )
        axes.plot(middles[:, 0], middles[:, 1], ".", color=colour, markersize=2.5, scalex=False, scaley=False)
    return to_png(figure)


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
