"""Map tiles of the rasters, and thumbnails."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query, Response

from rasterembed.explorer.asking.library_options import library_options
from rasterembed.explorer.caching import UsedPicture
from rasterembed.explorer.dependencies import DRAWING_SLOT, KNOWN_PARAMETERS, UsedView
from rasterembed.explorer.imagery.view_imagery import imagery_of
from rasterembed.explorer.map_tile import MapTile
from rasterembed.explorer.problems import responses
from rasterembed.search.query import Where
from rasterembed.store.layout import MAX_ID_LETTERS

router = APIRouter(prefix="/api", tags=["imagery"], dependencies=[KNOWN_PARAMETERS])

_WEBP = "image/webp"

_LETTERS = 40
"""Largest number of characters of a time or of a tile's id."""

Number = Annotated[int, Path(ge=0, lt=2**31)]
When = Annotated[
    str | None,
    Query(max_length=_LETTERS, description="Time of acquisition (UTC), such as 2024-06-01 or 2024-06-01T10:00:00Z."),
]


class WebpResponse(Response):
    """A picture in the format WebP."""

    media_type = _WEBP


@router.get(
    "/{kind}/{id}/imagery/{z}/{x}/{y}.webp",
    dependencies=[DRAWING_SLOT],
    response_class=WebpResponse,
    responses=responses(404, 409, 502),
)
def map_tile(
    view: UsedView, picture: UsedPicture, z: Number, x: Number, y: Number, since: When = None, until: When = None
) -> Response:
    """Return a map tile of 512 px of the rasters, in the colours of the model's input.

    It is transparent where no raster has a valid pixel. In a collection, the newest scene is on top.
    """
    tile = MapTile.of(z, x, y)
    where = library_options(Where, since=since or None, until=until or None)
    return picture.response(_WEBP, lambda: imagery_of(view).map_tile(tile, where))


@router.get(
    "/{kind}/{id}/thumbnails/{dataset_id}/{tile_id}.webp",
    dependencies=[DRAWING_SLOT],
    response_class=WebpResponse,
    responses=responses(404, 409, 502),
)
def thumbnail(
    view: UsedView,
    picture: UsedPicture,
    dataset_id: Annotated[str, Path(max_length=MAX_ID_LETTERS)],
    tile_id: Annotated[str, Path(max_length=_LETTERS)],
    side: Annotated[int, Query(ge=16, le=512, description="Width and height, px.")] = 160,
) -> Response:
    """Return a small picture of a grid tile, in the colours of the model's input."""
    return picture.response(_WEBP, lambda: imagery_of(view).thumbnail(dataset_id, tile_id, side))
