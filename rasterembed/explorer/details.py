"""Details of a view: its card, and everything else that the page needs to show it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import date
from typing import Any

import numpy as np
import shapely
from pydantic import BaseModel, ConfigDict

from rasterembed.artifact_key import artifact_key
from rasterembed.collection.scene_row import SceneState
from rasterembed.dataset.dataset import Dataset
from rasterembed.dataset.extent import outline
from rasterembed.explorer.boxes import Box
from rasterembed.explorer.cards import Card, card_of_collection, card_of_dataset
from rasterembed.explorer.imagery.view_imagery import imagery_of
from rasterembed.explorer.made_up_place import MadeUpPlace
from rasterembed.explorer.qa_pictures import QaPicture, pictures_of
from rasterembed.explorer.quality_line import quality_with_numbers
from rasterembed.explorer.tiles.legend import Colour
from rasterembed.explorer.views import SceneInfo, View

_OUTLINES = 500
"""Largest number of scenes whose outlines are joined. The outline of more scenes is the box around them."""


class DateOfView(BaseModel):
    """A day on which scenes of a view were acquired."""

    model_config = ConfigDict(frozen=True)

    date: date
    """The day, UTC."""
    scenes: int
    rows: int
    """Number of vectors of these scenes."""


class ColourChoice(BaseModel):
    """A way to colour the tiles."""

    model_config = ConfigDict(frozen=True)

    name: str
    label: str
    """Name for people."""


class ViewDetails(Card):
    """A dataset or a collection with everything that the page needs to show it."""

    v: str
    """Version of the view. It changes with the content. Pictures with it in their address never change."""
    dimensions: int
    """Length of a vector."""
    pooling: str
    grid: str
    """The grid of tiles in one line, for people."""
    anchored: bool
    """Whether all scenes share the ids of their tiles, so that a search can pick one scene for each tile."""
    radiometry: str | None
    """How pixels became colours, in one line. None for a collection: each scene has its own."""
    tile_size: int
    """Width and height of a tile, px."""
    outline: dict[str, Any] | None
    """Outline of the rasters as a GeoJSON geometry. None if there is no scene with vectors."""
    on_earth: bool
    """Whether a raster has a place on Earth. If not, the map shows a dataset at a made-up place, and no collection."""
    dates: tuple[DateOfView, ...]
    colours: tuple[ColourChoice, ...]
    searchable: bool
    """Whether the view can be searched. A dataset must be ready, and a collection must have a ready scene."""
    pictures: tuple[QaPicture, ...]
    """Pictures of the quality report."""
    prefect_url: str | None
    """Page of Prefect with the result of the run. None if no address of Prefect is configured."""
    min_zoom: int
    """Smallest zoom at which the rasters are drawn."""
    max_zoom: int
    """Zoom at which a pixel of a raster is about as large as one of the map."""


def details_of(view: View, prefect_ui: str | None) -> ViewDetails:
    """Return the details of a view.

    Args:
        view: the view.
        prefect_ui: address of Prefect's pages, or None.

    Raises:
        DataError: if a file of the view cannot be read.
    """
    content, scenes = view.content, view.scenes
    card = card_of_dataset(content) if isinstance(content, Dataset) else card_of_collection(content)
    if isinstance(content, Dataset):
        model, grid = content.plan.model, content.plan.sharding.grid
        radiometry = content.radiometry.describe()
    else:
        model, grid, radiometry = content.configuration.model, content.configuration.grid, None
    place = MadeUpPlace.of(content)
    shape = view.keep("outline", lambda: _outline(view, scenes, card.bbox, place))
    searchable = any(scene.state is SceneState.READY and scene.rows for scene in scenes)
    zooms = imagery_of(view).zooms
    kind = "dataset" if isinstance(content, Dataset) else "collection"
    return ViewDetails(
        **dict(card)
        | {
            "bbox": card.bbox if place is None else _box_of_place(place),
            "qa": quality_with_numbers(content, card.qa),
        },
        v=view.version,
        dimensions=model.dimensions,
        pooling=model.pooling,
        grid=grid.describe(),
        anchored=grid.anchor == "crs",
        radiometry=radiometry,
        tile_size=grid.size,
        outline=None if shape is None else shapely.geometry.mapping(shape),
        on_earth=any(scene.bbox is not None for scene in scenes),
        dates=_dates(scenes),
        colours=_colours(scenes if isinstance(content, Dataset) else _ready(scenes), searchable),
        searchable=searchable,
        pictures=pictures_of(view),
        prefect_url=None if prefect_ui is None else f"{prefect_ui}/artifacts/key/{artifact_key(kind, view.id)}",
        min_zoom=zooms.smallest,
        max_zoom=zooms.largest,
    )


def _box_of_place(place: MadeUpPlace) -> Box:
    lon, lat = place.lonlats(np.array([0.0, place.width]), np.array([place.height, 0.0]))
    return float(lon[0]), float(lat[0]), float(lon[1]), float(lat[1])


def _outline(
    view: View, scenes: tuple[SceneInfo, ...], bbox: Box | None, place: MadeUpPlace | None
) -> shapely.Geometry | None:
    """Return the outline of all rasters, or of the box around them if they are many."""
    if place is not None:
        return shapely.box(*_box_of_place(place))
    if isinstance(view.content, Dataset):
        return outline(view.content.plan)
    if len(scenes) <= _OUTLINES:
        geometry = view.content.catalogue.filter(states=set(SceneState) - {SceneState.FAILED}).geometry()
        placed = geometry[~(shapely.is_missing(geometry) | shapely.is_empty(geometry))]
        return shapely.union_all(placed) if len(placed) else None
    if bbox is None:
        return None
    west, south, east, north = bbox
    if west <= east:
        return shapely.box(west, south, east, north)
    return shapely.multipolygons([shapely.box(west, south, 180.0, north), shapely.box(-180.0, south, east, north)])


def _dates(scenes: tuple[SceneInfo, ...]) -> tuple[DateOfView, ...]:
    """Return the days of acquisition, the earliest first."""
    counts: Counter[date] = Counter()
    rows: Counter[date] = Counter()
    for scene in scenes:
        if scene.acquired is not None:
            counts[scene.acquired.date()] += 1
            rows[scene.acquired.date()] += scene.rows
    return tuple(DateOfView(date=day, scenes=counts[day], rows=rows[day]) for day in sorted(counts))


def _ready(scenes: Sequence[SceneInfo]) -> list[SceneInfo]:
    """Return the scenes of a collection whose tiles are in its table."""
    return [scene for scene in scenes if scene.state is SceneState.READY]


def _colours(shown: Sequence[SceneInfo], searchable: bool) -> tuple[ColourChoice, ...]:
    """Return the colours of the tiles that the map can show.

    Args:
        shown: the scenes whose tiles are shown.
        searchable: whether the view can be searched. Otherwise, no tile has a similarity to a query.
    """
    embedded = [scene for scene in shown if scene.rows]
    if not embedded:
        return ()
    hidden = set()
    if all(scene.acquired is None for scene in embedded):
        hidden.add(Colour.DATE)
    if not searchable:
        hidden.add(Colour.SIMILARITY)
    return tuple(ColourChoice(name=colour.value, label=colour.label) for colour in Colour if colour not in hidden)
