"""The largest body of a request."""

from __future__ import annotations

import asyncio
import re
from contextlib import suppress

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rasterembed.explorer.problems import ProblemError, ProblemType
from rasterembed.explorer.settings import Limits

_DRAINED_BYTES, _DRAINED_S = 128 * 2**20, 10.0
"""Largest rest of a body that is read before it is refused, in bytes, and the seconds for it."""

_IMAGES = re.compile(r"/api/[^/]+/[^/]+/images")
"""The address that takes images."""


class BodyLimit:
    """Refuses bodies that are too large. Nothing is kept of the bytes above the limit.

    The limit for the time of a body is in `rasterembed.http_connections`.

    Args:
        app: the application behind.
        limits: the limits of the service.
    """

    def __init__(self, app: ASGIApp, limits: Limits) -> None:
        self._app, self._limits = app, limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        most = self._limits.image_bytes if _IMAGES.fullmatch(scope["path"]) else self._limits.body_bytes
        announced = Headers(scope=scope).get("content-length", "0")
        if not announced.isdecimal() or len(announced) > 18 or int(announced) > most:
            await _drain(receive)
            await _too_large(most).response_to(scope)(scope, receive, send)
            return
        received = 0

        async def limited() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > most:  # The body came in chunks, without its length in the head.
                if message.get("more_body", False):
                    await _drain(receive)
                problem = _too_large(most)
                # FastAPI turns other errors while it reads a body into the status 400.
                raise HTTPException(problem.status, problem.detail, problem.headers)
            return message

        await self._app(scope, limited, send)


async def _drain(receive: Receive) -> None:
    """Read the rest of a body, and keep nothing of it.

    If a connection is closed while the client still sends, the client sees a broken connection, and not the answer. So
    a client that sent a little too much gets the answer. One that sends far more is cut off.
    """
    left = _DRAINED_BYTES
    with suppress(TimeoutError):
        async with asyncio.timeout(_DRAINED_S):
            while left > 0:
                message = await receive()
                left -= len(message.get("body", b""))
                if not message.get("more_body", False):
                    return


def _too_large(most: int) -> ProblemError:
    return ProblemError(
        413,
        ProblemType.TOO_LARGE,
        f"the body has more than {most} bytes: send less",
        # The rest of the body is not read, so the connection cannot be used again.
        {"Connection": "close"},
    )
