"""The pictures of the quality reports."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Response

from rasterembed.explorer.caching import UsedPicture
from rasterembed.explorer.dependencies import KNOWN_PARAMETERS, UsedExplorer, UsedView
from rasterembed.explorer.problems import responses
from rasterembed.explorer.qa_pictures import picture_version, read_picture

router = APIRouter(prefix="/api", tags=["qa"], dependencies=[KNOWN_PARAMETERS])


@router.get(
    "/{kind}/{id}/qa/{name}",
    response_class=Response,
    responses={**responses(404, 409, 502), 200: {"content": {"image/png": {}}}, 304: {"description": "Not changed."}},
)
async def get_qa_picture(
    name: Annotated[str, Path(description="Name of the picture.", max_length=100)],
    view: UsedView,
    explorer: UsedExplorer,
    kept: UsedPicture,
) -> Response:
    """Return a picture of a quality report."""
    return await explorer.work.store.run(
        lambda: kept.response("image/png", lambda: read_picture(view, name), also=picture_version(view, name))
    )
