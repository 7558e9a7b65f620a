"""The longest time until a request gets an answer."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rasterembed.errors import one_line
from rasterembed.explorer.problems import ProblemError, ProblemType
from rasterembed.explorer.settings import Limits

log = logging.getLogger("uvicorn.error")


class AnswerLimit:
    """Answers a request with the status 503 if its own answer takes too long.

    A server of S3 that accepts requests and does not answer would hold a request for minutes. A thread that waits for
    the server cannot be stopped, so it works on. Nothing is closed that it uses, and nobody gets its answer.

    Args:
        app: the application behind.
        limits: the limits of the service.
    """

    def __init__(self, app: ASGIApp, limits: Limits) -> None:
        self._app, self._limits = app, limits
        self._left: set[asyncio.Task[None]] = set()
        """Work whose answer nobody gets. Without a reference, Python may remove a task that still runs."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = is_over = False

        async def send_in_time(message: Message) -> None:
            nonlocal started
            if is_over:
                return
            started = True
            await send(message)

        async def answer() -> None:
            await self._app(scope, receive, send_in_time)

        limit_s = self._limits.read_s if scope["method"] in ("GET", "HEAD") else self._limits.ask_s
        work = asyncio.create_task(answer())
        try:
            await asyncio.wait({work}, timeout=limit_s)
            if work.done() or started:
                await work
                return
        except asyncio.CancelledError:
            # The service ends. Uvicorn would write the traceback of a cancelled request into the log.
            work.cancel()
            with suppress(asyncio.CancelledError):
                await work
            if started:
                raise
            problem = _problem("the service was stopped: start it, and send the request again")
            await problem.response_to(scope)(scope, receive, send)
            return
        is_over = True
        self._left.add(work)
        work.add_done_callback(self._forget)
        text = f"no answer within {limit_s:g} s: the store, or the server of a raster, may not answer; try again later"
        await _problem(text).response_to(scope)(scope, receive, send)

    def _forget(self, work: asyncio.Task[None]) -> None:
        self._left.discard(work)
        error = None if work.cancelled() else work.exception()
        if error is not None:
            log.error("a request failed after its answer: %s", one_line(error))


def _problem(text: str) -> ProblemError:
    return ProblemError(503, ProblemType.STORE_UNAVAILABLE, text, {"Retry-After": "5"})
