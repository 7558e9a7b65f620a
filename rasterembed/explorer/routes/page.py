"""The page, its files, the sign-in, and the health of the service."""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel

from rasterembed.explorer.dependencies import UsedExplorer
from rasterembed.explorer.sign_in import answer_form, enter, sign_in_form, sign_out, state_of
from rasterembed.explorer.small_page import STYLE, STYLE_SHEET

router = APIRouter(tags=["page"])

# The endpoints of this module are `async`, although they read small files. Others run in threads, and a store that does
# not answer can hold all threads. A person must get the page then too, because the page tells what is wrong.

_READ = ["GET", "HEAD"]


class Health(BaseModel):
    """Answer of a service that runs."""

    status: Literal["ok"] = "ok"


@router.get("/health", summary="Tell whether the service runs")
async def health() -> Health:
    """Return a fixed answer. The store is not asked."""
    return Health()


@router.api_route("/", methods=_READ, include_in_schema=False)
async def page(request: Request, explorer: UsedExplorer) -> Response:
    """Return the page."""
    return explorer.page_files.page(request)


@router.api_route("/assets/{name}", methods=_READ, include_in_schema=False)
async def asset(name: str, request: Request, explorer: UsedExplorer) -> Response:
    """Return a file of the page."""
    return explorer.page_files.asset(request, name)


@router.api_route("/sign-in", methods=_READ, include_in_schema=False)
async def sign_in_page(request: Request) -> Response:
    """Return the sign-in page."""
    return sign_in_form(state_of(request.query_params.get("next", "")))


@router.get(f"/{STYLE_SHEET}", include_in_schema=False)
async def style_of_small_pages() -> Response:
    """Return the style sheet of the sign-in page and of the pages that describe a problem."""
    return Response(STYLE, headers={"Cache-Control": "public, max-age=3600"}, media_type="text/css; charset=utf-8")


@router.post("/sign-in", include_in_schema=False)
async def send_sign_in(request: Request, explorer: UsedExplorer) -> Response:
    """Give a cookie for the right token."""
    return answer_form(explorer.sign_in, request, await request.body())


@router.get("/enter", include_in_schema=False)
async def enter_page(request: Request, explorer: UsedExplorer) -> Response:
    """Sign a browser in by a code that can be used once."""
    parameters = request.query_params
    return enter(explorer.sign_in, request, parameters.get("code", ""), parameters.get("next", ""))


@router.post("/sign-out", include_in_schema=False)
async def send_sign_out(explorer: UsedExplorer) -> Response:
    """Remove the cookie."""
    return sign_out(explorer.sign_in)
