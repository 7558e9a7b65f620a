"""Errors of the explorer as `application/problem+json` (RFC 9457)."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import Scope

from rasterembed.errors import DataError, ObjectMissingError, StoreError, StoreUnavailableError, UsageError, one_line
from rasterembed.escape import cut, escape_html, escape_terminal
from rasterembed.explorer.small_page import small_page
from rasterembed.explorer.wrong_requests import (
    API,
    methods_of,
    unknown_path,
    unreadable_body,
    wrong_method,
    wrong_value,
)
from rasterembed.store.local_cache import without_local_folders
from rasterembed.store.object_store import ObjectStore

log = logging.getLogger("uvicorn.error")

MEDIA_TYPE = "application/problem+json"

_DETAIL_LETTERS = 1000
"""Longest text of a problem."""


class ProblemType(StrEnum):
    """Kind of a problem. Programs decide by it, and never by a text."""

    WRONG_REQUEST = "wrong-request"
    """A parameter or the body is wrong."""
    NOT_FOUND = "not-found"
    """The address does not exist."""
    WRONG_METHOD = "wrong-method"
    """The address exists, but not for this method."""
    UNKNOWN_VIEW = "unknown-view"
    """The store has no dataset or collection of this id."""
    UNKNOWN_TILE = "unknown-tile"
    """The view has no such tile."""
    UNKNOWN_IMAGE = "unknown-image"
    """The uploaded image is not in the cache any more. Upload it again."""
    UNKNOWN_SIMILARITY = "unknown-similarity"
    """The similarity is not in the cache any more. Ask for it again."""
    RASTER_GONE = "raster-gone"
    """The raster of a dataset is missing, or has changed since it was embedded."""
    MISSING = "missing"
    """An object of the store is missing."""
    NOT_USABLE = "not-usable"
    """The dataset or collection cannot be used as it is, for example because its quality checks did not pass."""
    SIGN_IN = "sign-in"
    """The token is missing or wrong."""
    WRONG_HOST = "wrong-host"
    """The request names a host that the service does not serve."""
    WRONG_ORIGIN = "wrong-origin"
    """A page of another origin sent the request."""
    TOO_LARGE = "too-large"
    """The body is larger than allowed."""
    NO_SPACE = "no-space"
    """The service cannot write into its own cache folder."""
    NOT_READY = "not-ready"
    """The colours of the tiles are being computed. Send the request again."""
    BUSY = "busy"
    """Too many other requests run. Send the request again."""
    STORE_UNAVAILABLE = "store-unavailable"
    """The store does not answer. Send the request again."""
    STORE_REFUSED = "store-refused"
    """The store refuses, for example because of wrong keys."""
    PAGE_MISSING = "page-missing"
    """The page was not built."""
    INTERNAL = "internal"
    """The service made an error. Its log has the details."""


_TITLES = {
    ProblemType.WRONG_REQUEST: "The request is wrong",
    ProblemType.NOT_FOUND: "The address does not exist",
    ProblemType.WRONG_METHOD: "The address does not take this method",
    ProblemType.UNKNOWN_VIEW: "The store has no such dataset or collection",
    ProblemType.UNKNOWN_TILE: "The view has no such tile",
    ProblemType.UNKNOWN_IMAGE: "The image is not kept any more",
    ProblemType.UNKNOWN_SIMILARITY: "The similarity is not kept any more",
    ProblemType.RASTER_GONE: "The raster is missing or has changed",
    ProblemType.MISSING: "An object of the store is missing",
    ProblemType.NOT_USABLE: "It cannot be used as it is",
    ProblemType.SIGN_IN: "Sign in first",
    ProblemType.WRONG_HOST: "This host is not served",
    ProblemType.WRONG_ORIGIN: "The request came from another page",
    ProblemType.TOO_LARGE: "The request is too large",
    ProblemType.NO_SPACE: "The image cannot be kept",
    ProblemType.NOT_READY: "The colours are being computed",
    ProblemType.BUSY: "Too many requests run",
    ProblemType.STORE_UNAVAILABLE: "The store does not answer",
    ProblemType.STORE_REFUSED: "The store refuses",
    ProblemType.PAGE_MISSING: "The page was not built",
    ProblemType.INTERNAL: "The service made an error",
}


class Problem(BaseModel):
    """Why a request was not answered."""

    type: ProblemType
    """Kind of the problem."""
    title: str
    """Short text for people."""
    status: int
    """Status of the answer."""
    detail: str
    """One line for people: what was wrong, where, and what to do."""


class ProblemError(Exception):
    """A problem that becomes the answer of a request.

    Args:
        status: status of the answer.
        type: kind of the problem.
        detail: one line for people.
        headers: further headers of the answer.
    """

    def __init__(self, status: int, type: ProblemType, detail: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(detail)
        self.status, self.type, self.detail, self.headers = status, type, detail, dict(headers or {})

    def response(self) -> Response:
        """Return the problem as the answer of a request."""
        detail = cut(escape_terminal(self.detail), _DETAIL_LETTERS)
        problem = Problem(type=self.type, title=_TITLES[self.type], status=self.status, detail=detail)
        headers = {"Cache-Control": "no-store", **self.headers}
        return Response(problem.model_dump_json(), self.status, headers, MEDIA_TYPE)

    def response_to(self, scope: Scope) -> Response:
        """Return the problem in the form that the sender of a request can read.

        A person who opens a wrong address in a browser gets a small page. Everybody else gets JSON, as from `response`.

        Args:
            scope: the request, as ASGI describes it.
        """
        path: str = scope["path"]
        if f"{path}/".startswith(API) or "text/html" not in Headers(scope=scope).get("accept", ""):
            return self.response()
        # The page may lie below a path of a proxy, which the service does not know: so the links are relative. For a
        # browser, an encoded slash is part of a name. ASGI decodes it in `path`, but not in `raw_path`.
        home = "../" * (scope.get("raw_path", path.encode()).count(b"/") - 1)
        detail = cut(escape_terminal(self.detail), _DETAIL_LETTERS)
        content = f'<p>{escape_html(detail)}</p>\n<p><a href="{home or "./"}">Open the explorer</a></p>'
        page = small_page(escape_html(_TITLES[self.type]), content, self.status, home)
        page.headers.update({"Cache-Control": "no-store", "Vary": "Accept", **self.headers})
        return page


def problem_of(error: Exception) -> ProblemError:
    """Return the problem for an error of the library.

    Args:
        error: an error of this library, or any other error. The details of another error are only in the log.
    """
    text = without_local_folders(str(error))
    if text != str(error):
        log.warning("a request failed: %s", error)  # The page does not show the path.
    match error:
        case ProblemError():
            return error
        case StoreUnavailableError():
            return ProblemError(503, ProblemType.STORE_UNAVAILABLE, text, {"Retry-After": "3"})
        case ObjectMissingError():
            return ProblemError(404, ProblemType.MISSING, text)
        case StoreError():
            return ProblemError(502, ProblemType.STORE_REFUSED, text)
        case DataError():
            return ProblemError(409, ProblemType.NOT_USABLE, text)
        case UsageError():
            return ProblemError(422, ProblemType.WRONG_REQUEST, text)
        case _:
            log.error("a request failed: %s", one_line(error), exc_info=error)
            return ProblemError(
                500, ProblemType.INTERNAL, "this is an error in the explorer: the log of the service has the details"
            )


def responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the description of problems for OpenAPI.

    Args:
        *statuses: statuses of the problems that the endpoint can answer, besides those of every endpoint: 401, 403,
            413, 421, 422, 500 and 503.
    """
    found = sorted({401, 403, 413, 421, 422, 500, 503, *statuses})
    return {
        status: {"model": Problem, "description": "See `Problem`.", "content": {MEDIA_TYPE: {}}} for status in found
    }


_OF_OBJECTS = frozenset(
    {
        ProblemType.UNKNOWN_VIEW,
        ProblemType.UNKNOWN_TILE,
        ProblemType.RASTER_GONE,
        ProblemType.MISSING,
        ProblemType.NOT_USABLE,
        ProblemType.STORE_REFUSED,
    }
)
"""Problems that a missing store can cause."""


def folder_is_away(store: ObjectStore) -> StoreUnavailableError:
    """Return the error for a store whose folder is missing."""
    return StoreUnavailableError(f"there is no folder {store.root}: it was removed, or is not mounted")


def add_handlers(app: FastAPI, store: ObjectStore) -> None:
    """Turn the expected errors of a request into problems. `SecurityHeaders` does it for all others.

    Args:
        app: the application.
        store: the store that it shows.
    """

    async def of_error(request: Request, error: Exception) -> Response:
        problem = problem_of(error)
        # If the whole store is missing, the error only says which object was missed first.
        # A folder on a network drive may not answer, so it is asked in a thread.
        if problem.type in _OF_OBJECTS and await run_in_threadpool(lambda: store.folder_is_missing):
            problem = problem_of(folder_is_away(store))
        return problem.response_to(request.scope)

    async def of_validation(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        return ProblemError(422, ProblemType.WRONG_REQUEST, wrong_value(error, request)).response_to(request.scope)

    async def of_http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        if error.status_code == 400:  # FastAPI's answer to a body that it cannot read.
            why = unreadable_body(error.__cause__, request)
            return ProblemError(422, ProblemType.WRONG_REQUEST, why).response_to(request.scope)
        if error.status_code == 405:
            methods = methods_of(app, request.scope)
            detail = wrong_method(request.url.path, request.method, methods)
            problem = ProblemError(405, ProblemType.WRONG_METHOD, detail, {"Allow": ", ".join(methods)})
        elif error.status_code == 404:
            problem = ProblemError(404, ProblemType.NOT_FOUND, unknown_path(app, request.scope))
        else:
            kind = ProblemType.TOO_LARGE if error.status_code == 413 else ProblemType.WRONG_REQUEST
            problem = ProblemError(error.status_code, kind, str(error.detail), error.headers)
        return problem.response_to(request.scope)

    app.add_exception_handler(RequestValidationError, of_validation)
    app.add_exception_handler(HTTPException, of_http)
    for kind in (ProblemError, DataError, UsageError):
        app.add_exception_handler(kind, of_error)
