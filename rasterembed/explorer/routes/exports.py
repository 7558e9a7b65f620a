"""Downloads of an answer: GeoJSON, GeoParquet, or a Python program that gives the same answer."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Response

from rasterembed.explorer.asking.exports import MEDIA_TYPES, answer_download, program_download
from rasterembed.explorer.asking.images import ImageFolder
from rasterembed.explorer.asking.questions import answer_of
from rasterembed.explorer.asking.requests import ExportFormat, ExportRequest
from rasterembed.explorer.asking.snippet import search_program
from rasterembed.explorer.dependencies import KNOWN_PARAMETERS, SEARCH_SLOT, UsedView
from rasterembed.explorer.problems import responses

router = APIRouter(prefix="/api", tags=["search"], dependencies=[KNOWN_PARAMETERS])

_FILE: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The file.",
        "content": {
            kind: {"schema": {"type": "object"} if kind.endswith("json") else {"type": "string", "format": "binary"}}
            for kind in MEDIA_TYPES.values()
        },
    }
}


@router.post(
    "/{kind}/{id}/export",
    dependencies=[SEARCH_SLOT],
    responses={**responses(404, 409, 502), **_FILE},
    response_class=Response,
)
def export(view: UsedView, request: ExportRequest) -> Response:
    """Return a file with the answer of the same search, or a Python program that gives this answer."""
    images = ImageFolder()
    # The search runs for a program too. So a question with an error gives an error, and no program.
    answer = answer_of(view, images, request)
    if request.format is ExportFormat.PYTHON:
        image = None if request.query.image is None else images.path(request.query.image)
        file = program_download(view.id, search_program(view, request, image))
    else:
        file = answer_download(view.id, answer, request.format)
    return Response(file.content, media_type=file.media_type, headers=file.headers)
