"""The answer of a search as GeoJSON with the fields that the page shows."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

import shapely
from pydantic import BaseModel, ConfigDict

from rasterembed.explorer.asking.requests import AskedQuery
from rasterembed.explorer.made_up_place import MadeUpPlace
from rasterembed.explorer.tiles.places import PlacedTile
from rasterembed.search.answer import Answer, Example, Hit, Role, UsedEngine
from rasterembed.store.local_cache import without_local_folders


class HitProperties(BaseModel):
    """The properties of a hit."""

    rank: int
    """Place in the answer, from 1."""
    dataset_id: str
    tile_id: str
    distance: float
    """Cosine distance to the query, 0 to 2."""
    similarity: float
    """1 - distance."""
    lon: float | None
    """Longitude of the tile's centre, degrees. A dataset without a place on Earth has a made-up place. In a collection,
    a tile of a scene without a place on Earth has None."""
    lat: float | None
    valid_fraction: float
    acquired: datetime | None
    scene: str | None
    """Address of the scene's file. Only hits of a collection have it."""
    cloud_cover: float | None
    """Cloud cover of the scene in percent."""


class HitFeature(BaseModel):
    """A hit as a GeoJSON Feature."""

    type: Literal["Feature"] = "Feature"
    id: str
    """`dataset_id/tile_id`."""
    geometry: dict[str, Any] | None
    """Footprint in longitude and latitude. See `HitProperties.lon` for tiles without a place on Earth."""
    properties: HitProperties


class ShownExample(BaseModel):
    """An example of the query."""

    role: Role
    tile: str | None
    """`dataset_id/tile_id`, or None if the example is an image."""
    image: str | None
    """SHA-256 digest of the image, or None if the example is a tile."""
    lonlat: tuple[float, float] | None
    """The place by which the example was given, or None."""
    remark: str
    """Remark for people. Empty if there is nothing to say."""


class ShownEngine(BaseModel):
    """The search engine that answered."""

    dataset_id: str
    """Id of the dataset or the collection."""
    name: str
    why: str
    """Settings of the vector index, or the reason why none was used, for people."""


class SearchAnswer(BaseModel):
    """The k nearest tiles as a GeoJSON FeatureCollection. The nearest tile comes first."""

    model_config = ConfigDict(frozen=True)

    type: Literal["FeatureCollection"] = "FeatureCollection"
    features: list[HitFeature]
    query: str
    """The query as text for people."""
    model: str
    """Id of the model that computed the vectors."""
    examples: list[ShownExample]
    notes: list[str]
    """Remarks about the answer, one line each, for people."""
    hints: list[str]
    """Those of the notes that say which filter left no tile, or what a person may have meant instead."""
    engines: list[ShownEngine]
    seconds: float
    """Time from the query to the answer, in seconds."""
    k: int


class ClickAnswer(BaseModel):
    """The tiles at a place, and the tiles that are nearest to the first of them."""

    model_config = ConfigDict(frozen=True)

    tiles: list[PlacedTile]
    """The tile of each scene that contains the place, the latest scene first."""
    answer: SearchAnswer | None
    """None if no tile contains the place and passes the filters."""


def shown_answer(answer: Answer, asked: AskedQuery, place: MadeUpPlace | None = None) -> SearchAnswer:
    """Return an answer as the page shows it. The service's own files are not named.

    Args:
        answer: the answer of the library.
        asked: the examples of the request.
        place: the place on the map of a dataset without a place on Earth. None for all other views.
    """

    def short(text: str) -> str:
        shown = without_local_folders(text)
        return shown if asked.image is None else shown.replace(asked.image, asked.image[:12])

    return SearchAnswer(
        features=[_feature(hit, place) for hit in answer.hits],
        query=short(answer.query),
        model=answer.model,
        examples=[_example(example, asked) for example in answer.examples],
        notes=list(map(short, answer.notes())),
        hints=list(map(short, answer.hint.splitlines())),
        engines=[_engine(engine) for engine in answer.engines],
        seconds=answer.seconds,
        k=answer.k,
    )


def _feature(hit: Hit, place: MadeUpPlace | None) -> HitFeature:
    values = {name: getattr(hit, name) for name in HitProperties.model_fields if name != "similarity"}
    outline = shapely.from_wkb(hit.geometry)
    if place is not None:
        outline = place.geometry(outline)
        values |= {"lon": outline.centroid.x, "lat": outline.centroid.y}
    return HitFeature(
        id=f"{hit.dataset_id}/{hit.tile_id}",
        geometry=None if values["lon"] is None else shapely.geometry.mapping(outline),
        properties=HitProperties(similarity=1.0 - hit.distance, **values),
    )


def _example(example: Example, asked: AskedQuery) -> ShownExample:
    tile = example.tile
    return ShownExample(
        role=example.role,
        tile=None if tile is None else f"{tile.dataset_id}/{tile.tile_id}",
        image=None if example.image is None else asked.image,
        lonlat=example.lonlat,
        remark=example.remark,
    )


def _engine(engine: UsedEngine) -> ShownEngine:
    return ShownEngine(dataset_id=engine.dataset_id, name=engine.name, why=without_local_folders(engine.why))
