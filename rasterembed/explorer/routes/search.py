"""Searches for similar tiles."""

from __future__ import annotations

from fastapi import APIRouter, Response

from rasterembed.explorer.asking.answers import SearchAnswer, shown_answer
from rasterembed.explorer.asking.images import ImageFolder
from rasterembed.explorer.asking.questions import answer_of
from rasterembed.explorer.asking.requests import SearchRequest
from rasterembed.explorer.dependencies import SEARCH_SLOT, UsedView
from rasterembed.explorer.made_up_place import MadeUpPlace
from rasterembed.explorer.problems import responses

router = APIRouter(prefix="/api", tags=["search"])


@router.post(
    "/{kind}/{id}/search",
    dependencies=[SEARCH_SLOT],
    response_model=SearchAnswer,
    responses=responses(404, 409, 502),
)
def search(view: UsedView, request: SearchRequest) -> Response:
    """Return the k tiles that are nearest to the examples and pass the filters, as GeoJSON."""
    answer = answer_of(view, ImageFolder(), request)
    shown = shown_answer(answer, request.query, MadeUpPlace.of(view.content))
    # FastAPI would check the answer again, and would turn it into Python objects before it writes JSON.
    return Response(shown.model_dump_json(), media_type="application/json")
