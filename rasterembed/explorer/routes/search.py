"""Searches for similar tiles: to the examples of a query, and to the tile at a place."""

from __future__ import annotations

from fastapi import APIRouter, Response

from rasterembed.explorer.asking.answers import ClickAnswer, SearchAnswer, shown_answer
from rasterembed.explorer.asking.images import ImageFolder
from rasterembed.explorer.asking.questions import answer_of, query_of_tile, where_of_place
from rasterembed.explorer.asking.requests import ClickRequest, SearchRequest
from rasterembed.explorer.dependencies import KNOWN_PARAMETERS, SEARCH_SLOT, UsedView
from rasterembed.explorer.made_up_place import MadeUpPlace
from rasterembed.explorer.problems import responses
from rasterembed.explorer.tiles.layers import layers_of
from rasterembed.explorer.tiles.places import tiles_at
from rasterembed.explorer.views import View

router = APIRouter(prefix="/api", tags=["search"], dependencies=[KNOWN_PARAMETERS])


@router.post(
    "/{kind}/{id}/search",
    dependencies=[SEARCH_SLOT],
    response_model=SearchAnswer,
    responses=responses(404, 409, 502),
)
def search(view: UsedView, request: SearchRequest) -> Response:
    """Return the k tiles that are nearest to the examples and pass the filters, as GeoJSON."""
    # FastAPI would check the answer again, and would turn it into Python objects before it writes JSON.
    return Response(_shown(view, request).model_dump_json(), media_type="application/json")


@router.post(
    "/{kind}/{id}/click",
    dependencies=[SEARCH_SLOT],
    response_model=ClickAnswer,
    responses=responses(404, 409, 502),
)
def click(view: UsedView, request: ClickRequest) -> Response:
    """Return the tiles at a place, and the answer of `search` for the tile of the latest scene.

    It does in one request what `at` and `search` do in two, so a click on the map is answered sooner.
    """
    layers = layers_of(view)
    tiles = tiles_at(layers.table, *request.lonlat, layers.passing(where_of_place(request)))
    answer = None
    if tiles:
        query = query_of_tile(tiles[0].dataset_id, tiles[0].tile_id)
        answer = _shown(view, SearchRequest(query=query, where=request.where, k=request.k))
    return Response(ClickAnswer(tiles=tiles, answer=answer).model_dump_json(), media_type="application/json")


def _shown(view: View, request: SearchRequest) -> SearchAnswer:
    """Return the answer to a request as the page shows it."""
    answer = answer_of(view, ImageFolder(), request)
    return shown_answer(answer, request.query, MadeUpPlace.of(view.content))
