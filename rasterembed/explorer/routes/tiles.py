"""Map tiles of the grid tiles, their legend and footprints, the tiles at a place, and the similarity of all tiles."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from pydantic import AfterValidator, BaseModel, FiniteFloat, WithJsonSchema

from rasterembed.errors import UsageError
from rasterembed.explorer.asking.images import ImageFolder
from rasterembed.explorer.asking.library_options import library_options
from rasterembed.explorer.asking.questions import opened_query
from rasterembed.explorer.asking.requests import Latitude, Longitude, SimilarityRequest
from rasterembed.explorer.caching import UsedPicture
from rasterembed.explorer.dependencies import KNOWN_PARAMETERS, SEARCH_SLOT, UsedExplorer, UsedView
from rasterembed.explorer.map_tile import MAX_ZOOM, MapTile
from rasterembed.explorer.problems import ProblemError, ProblemType, responses
from rasterembed.explorer.tiles.colouring import DEFAULT_CLASSES, MAX_CLASSES, MIN_CLASSES
from rasterembed.explorer.tiles.layers import Choice, NotReadyError, UnknownSimilarityError, layers_of
from rasterembed.explorer.tiles.legend import ClassesLegend, Colour, RampLegend, RgbLegend
from rasterembed.explorer.tiles.places import FootprintCollection, PlacedTile, footprints_json, tile_named, tiles_at
from rasterembed.search.query import Pick, Where
from rasterembed.search.tile_lookup import why_no_tile

router = APIRouter(prefix="/api", tags=["tiles"], dependencies=[KNOWN_PARAMETERS])

_LEGEND_WAIT_S, _PICTURE_WAIT_S = 60.0, 20.0
"""Seconds that a request waits for colours that are being computed."""


class SimilarityAnswer(BaseModel):
    """A computed similarity of all tiles to a query."""

    similarity: str
    """Name of the similarity, for the parameter `similarity` of map tiles and legend."""
    low: float
    """Cosine similarity with the first colour of the legend: the median."""
    high: float
    """Largest cosine similarity."""


_SIMILARITY = re.compile("[0-9a-f]{32}")


def _check_similarity(name: str) -> str:
    if not _SIMILARITY.fullmatch(name):
        raise ValueError("it has 32 digits and letters from a to f: take the value from the answer of …/similarity")
    return name


SimilarityName = Annotated[
    str, AfterValidator(_check_similarity), WithJsonSchema({"type": "string", "pattern": f"^{_SIMILARITY.pattern}$"})
]


def _choice(
    colour: Annotated[Colour, Query(description="How the tiles are coloured.")] = Colour.PCA,
    classes: Annotated[
        int, Query(ge=MIN_CLASSES, le=MAX_CLASSES, description="Number of classes of the colour `cluster`.")
    ] = DEFAULT_CLASSES,
    similarity: Annotated[
        SimilarityName | None,
        Query(description="Name of a computed similarity, for the colour `similarity`."),
    ] = None,
) -> Choice:
    if colour is Colour.SIMILARITY and similarity is None:
        raise UsageError(
            "the colour `similarity` needs the parameter `similarity`: send the query to …/similarity, and take the "
            "value from the answer"
        )
    return Choice(colour, classes, similarity)


def _filters(
    min_valid_fraction: Annotated[
        FiniteFloat | None, Query(ge=0, le=1, description="Only tiles with at least this share of valid pixels.")
    ] = None,
    since: Annotated[
        str | None, Query(max_length=40, description="Only tiles acquired on or after this date, or time in UTC.")
    ] = None,
    until: Annotated[
        str | None, Query(max_length=40, description="Only tiles acquired on or before this date, or time in UTC.")
    ] = None,
    max_cloud_cover: Annotated[
        FiniteFloat | None, Query(ge=0, le=100, description="Only scenes with at most this cloud cover in percent.")
    ] = None,
    pick: Annotated[
        Pick, Query(description="Of several scenes that cover a tile: all, only the latest, or only the clearest.")
    ] = "all",
) -> Where:
    return library_options(
        Where,
        min_valid_fraction=min_valid_fraction,
        since=since or None,
        until=until or None,
        max_cloud_cover=max_cloud_cover,
        pick=pick,
    )


ChosenColour = Annotated[Choice, Depends(_choice)]
Filters = Annotated[Where, Depends(_filters)]
Zoom = Annotated[int, Path(ge=0, le=MAX_ZOOM)]
Cell = Annotated[int, Path(ge=0, lt=2**MAX_ZOOM)]


@contextmanager
def _problems() -> Iterator[None]:
    """Turn the reasons why a colouring is not available into problems."""
    try:
        yield
    except NotReadyError as error:
        raise ProblemError(
            503,
            ProblemType.NOT_READY,
            "the colours of the tiles are being computed: send the request again",
            {"Retry-After": "1"},
        ) from error
    except UnknownSimilarityError as error:
        raise ProblemError(
            404, ProblemType.UNKNOWN_SIMILARITY, "this similarity is not kept any more: send its query again"
        ) from error


@router.get(
    "/{kind}/{id}/tiles/{z}/{x}/{y}.png",
    responses=responses(404, 409, 502) | {200: {"content": {"image/png": {}}, "description": "The map tile."}},
    response_class=Response,
)
async def map_tile(
    request: Request,
    explorer: UsedExplorer,
    view: UsedView,
    picture: UsedPicture,
    z: Zoom,
    x: Cell,
    y: Cell,
    choice: ChosenColour,
    where: Filters,
) -> Response:
    """Return a map tile of 512 px with the tiles as flat colours. It is transparent elsewhere."""
    at = MapTile.of(z, x, y)
    with _problems():
        # The colours are waited for without a slot, so the rasters are drawn meanwhile.
        await explorer.work.colours.run(lambda: layers_of(view).colouring(choice, _PICTURE_WAIT_S))
        async with explorer.work.drawings.slot(request):
            draw = partial(layers_of(view).draw, at, choice, where, _PICTURE_WAIT_S)
            return await run_in_threadpool(picture.response, "image/png", draw)


@router.get("/{kind}/{id}/legend", responses=responses(404, 409, 502))
async def legend(
    view: UsedView, explorer: UsedExplorer, choice: ChosenColour
) -> RampLegend | ClassesLegend | RgbLegend:
    """Return which value or class each colour stands for. It waits until the colours are computed."""
    with _problems():
        colouring = await explorer.work.colours.run(lambda: layers_of(view).colouring(choice, _LEGEND_WAIT_S))
        return colouring.legend


@router.get(
    "/{kind}/{id}/footprints",
    response_model=FootprintCollection,
    responses=responses(404, 409, 502),
)
async def footprints(
    view: UsedView,
    explorer: UsedExplorer,
    where: Filters,
    bbox: Annotated[
        str,
        Query(
            max_length=200,
            description="West, south, east, north in degrees, with commas. If west > east, the box crosses the "
            "antimeridian.",
        ),
    ],
) -> Response:
    """Return the outlines of the tiles in a box as GeoJSON. If they are too many, none is given."""
    box = _box(bbox)

    def find() -> str | bytes:
        layers = layers_of(view)
        return footprints_json(layers.table, box, layers.passing(where))

    return Response(await explorer.work.store.run(find), media_type="application/geo+json")


@router.get("/{kind}/{id}/at", responses=responses(404, 409, 502))
async def at(view: UsedView, explorer: UsedExplorer, where: Filters, lon: Longitude, lat: Latitude) -> list[PlacedTile]:
    """Return the tile of each scene that contains a place, the latest scene first. The list may be empty."""

    def find() -> list[PlacedTile]:
        layers = layers_of(view)
        return tiles_at(layers.table, lon, lat, layers.passing(where))

    return await explorer.work.store.run(find)


@router.get("/{kind}/{id}/tile/{dataset_id}/{tile_id}", responses=responses(404, 409, 502))
async def tile(
    view: UsedView,
    explorer: UsedExplorer,
    dataset_id: Annotated[str, Path(max_length=200)],
    tile_id: Annotated[str, Path(max_length=200)],
) -> PlacedTile:
    """Return one tile with its place on the map. The page asks for the tiles that its address names."""

    def find() -> PlacedTile:
        found = tile_named(layers_of(view).table, dataset_id, tile_id)
        if found is None:
            raise ProblemError(404, ProblemType.UNKNOWN_TILE, why_no_tile(view.dataset(dataset_id), tile_id))
        return found

    return await explorer.work.store.run(find)


@router.post("/{kind}/{id}/similarity", dependencies=[SEARCH_SLOT], responses=responses(404, 409, 502))
def similarity(view: UsedView, request: SimilarityRequest) -> SimilarityAnswer:
    """Compute the similarity of all tiles to the examples. Map tiles and legend can show it."""
    with opened_query(request.query, ImageFolder()) as query:
        vector = view.searcher.resolve(query).vector
    found = layers_of(view).add_similarity(vector)
    return SimilarityAnswer(similarity=found.key, low=found.low, high=found.high)


def _box(text: str) -> tuple[float, float, float, float]:
    """Return a box from its text.

    Raises:
        UsageError: if it is no box on Earth.
    """
    try:
        west, south, east, north = (float(part) for part in text.split(","))
    except ValueError:
        raise UsageError("`bbox` is no box: give west, south, east, north in degrees, with commas") from None
    if not (-180 <= west <= 180 and -180 <= east <= 180 and -90 <= south <= north <= 90):
        raise UsageError("`bbox` is no box on Earth: give west, south, east, north in degrees, south below north")
    return west, south, east, north
