"""Choose the scenes of a view that are drawn on a map tile, and draw them over each other."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import cached_property

import numpy as np
from rio_tiler.errors import EmptyMosaicError
from rio_tiler.models import ImageData
from rio_tiler.mosaic.methods.defaults import FirstMethod
from rio_tiler.mosaic.reader import mosaic_reader

from rasterembed.explorer.imagery.drawing import Drawing
from rasterembed.explorer.map_tile import MAX_ZOOM, MapTile, world_of
from rasterembed.explorer.views import SceneInfo
from rasterembed.search.query import Where

MOST_SCENES = 24
"""Largest number of scenes that are read for a map tile. A map tile that needs more is not drawn."""

_CELLS = 64
"""Number of cells along each side of the part of a map tile that has scenes. A scene is needed if no newer scene covers
one of its cells."""

_THREADS = 4
"""Number of scenes of a map tile that are read at the same time."""

_LONG_AGO = datetime.min.replace(tzinfo=UTC)
"""Scenes without a time of acquisition lie below all others."""

_SPARE = 2
"""Scenes lie irregularly. The smallest zoom is chosen as if a map tile needed this many times as many scenes."""


class SceneBoxes:
    """The places of the scenes of a view on the web map.

    Args:
        scenes: the scenes. Those without a place on Earth are left out.
    """

    def __init__(self, scenes: Sequence[SceneInfo]) -> None:
        placed = [scene for scene in scenes if scene.bbox is not None]
        # The newest scene comes first. Scenes of the same time have the order of their ids.
        placed.sort(key=lambda scene: scene.dataset_id)
        placed.sort(key=lambda scene: scene.time or _LONG_AGO, reverse=True)
        self.scenes: tuple[SceneInfo, ...] = tuple(placed)
        """The scenes, the newest first."""
        boxes = np.array([scene.bbox for scene in placed], np.float64).reshape(-1, 4)
        west, south, east, north = boxes.T
        crosses = west > east
        left, top = world_of(west, north)
        right, bottom = world_of(np.where(crosses, east + 360.0, east), south)
        whole = np.stack([left, top, right, bottom], axis=1)
        # A scene across the antimeridian has a second box, on the other side of the map.
        self._boxes = np.concatenate([whole, whole[crosses] - [1.0, 0.0, 1.0, 0.0]])
        self._owners = np.concatenate([np.arange(len(placed)), np.flatnonzero(crosses)])

    def choose(self, tile: MapTile, where: Where) -> list[SceneInfo]:
        """Return the scenes to draw on a map tile, the newest first.

        The newest scenes that cover it are chosen. If fewer than `MOST_SCENES` do, older scenes are added,
        because a scene has no pixels in a part of its box.

        Args:
            tile: the map tile.
            where: `since` and `until` leave scenes out.

        Returns:
            No scene if more than `MOST_SCENES` scenes are needed to cover the map tile.
        """
        if tile.z < self.smallest_zoom:
            return []
        # Edges of the boxes in the map tile, from 0 to 1.
        near = self._boxes * 2.0**tile.z - [tile.x, tile.y, tile.x, tile.y]
        seen = np.flatnonzero(np.logical_and.reduce([*(near[:, :2] < 1).T, *(near[:, 2:] > 0).T]))
        if not seen.size:
            return []
        near = np.clip(near[seen], 0.0, 1.0)
        low, high = near[:, :2].min(axis=0), near[:, 2:].max(axis=0)
        cells = np.rint((near.reshape(-1, 2, 2) - low) / np.maximum(high - low, 1e-12) * _CELLS).astype(int)
        covered = np.zeros((_CELLS, _CELLS), bool)
        needed: list[int] = []
        others: list[int] = []
        order = np.argsort(self._owners[seen], kind="stable")
        for owner, ((left, top), (right, bottom)) in zip(
            self._owners[seen][order].tolist(), cells[order].tolist(), strict=True
        ):
            if not where.acquired_within(self.scenes[owner].time):
                continue
            # A narrow box has a cell too.
            area = slice(min(top, _CELLS - 1), max(bottom, top + 1)), slice(min(left, _CELLS - 1), max(right, left + 1))
            if not covered[area].all():
                covered[area] = True
                needed.append(owner)
            elif len(others) < MOST_SCENES:
                others.append(owner)
        needed = list(dict.fromkeys(needed))
        if len(needed) > MOST_SCENES:
            return []
        chosen = list(dict.fromkeys([*needed, *others]))[:MOST_SCENES]
        return [self.scenes[owner] for owner in sorted(chosen)]

    @cached_property
    def smallest_zoom(self) -> int:
        """Smallest zoom at which a map tile needs at most `MOST_SCENES` scenes, if they lie regularly."""
        sides = self._boxes[:, 2:] - self._boxes[:, :2]
        side = float(np.median(np.sqrt(np.maximum(sides.prod(axis=1), 0)))) if len(sides) else 0.0
        if side <= 0:
            return 0
        # Scenes of several dates at one place count once.
        places = np.unique(np.rint((self._boxes[:, :2] + self._boxes[:, 2:]) / (2 * side)), axis=0)
        if len(places) * _SPARE <= MOST_SCENES:
            return 0
        across = math.sqrt(MOST_SCENES / _SPARE) - 1
        return min(max(math.ceil(-math.log2(across * side)), 0), MAX_ZOOM)


def draw_mosaic(
    scenes: Sequence[SceneInfo], draw: Callable[[SceneInfo], Drawing], skipped: tuple[type[Exception], ...]
) -> Drawing:
    """Draw scenes over each other. The first scene is on top. Scenes below are read only where it has no colour.

    Args:
        scenes: the scenes.
        draw: function that draws one scene on the map tile.
        skipped: errors of a scene after which the other scenes are drawn without it.

    Raises:
        Exception: the error of the first scene, if each scene has an error of `skipped`.
    """
    errors: list[Exception] = []

    def read(scene: SceneInfo) -> ImageData:
        try:
            drawing = draw(scene)
        except skipped as error:
            errors.append(error)
            raise
        hidden = np.broadcast_to(~drawing.valid, drawing.colours.shape)
        return ImageData(np.ma.MaskedArray(drawing.colours, mask=hidden.copy()))

    try:
        image, _ = mosaic_reader(
            scenes, read, pixel_selection=FirstMethod, threads=_THREADS, allowed_exceptions=skipped
        )
    except EmptyMosaicError:
        if errors:
            raise errors[0] from None
        return Drawing.empty()
    shown = np.ma.getmaskarray(image.array)[0]
    return Drawing(np.asarray(image.array.data, np.uint8), ~shown)
