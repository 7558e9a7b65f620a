"""Bounds on how many requests with much work run at the same time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

import anyio
from anyio.to_thread import run_sync
from fastapi import Request

from rasterembed.explorer.problems import ProblemError, ProblemType
from rasterembed.explorer.settings import Limits

T = TypeVar("T")

_COLOUR_WAITS = 32
"""Number of requests that wait for the colours of tiles at the same time."""


class Slots:
    """A number of requests that may run at the same time. Further requests wait for their turn.

    Args:
        count: number of requests.
        wait_s: seconds that a request waits. After them, the request gets the status 503.
    """

    def __init__(self, count: int, wait_s: float) -> None:
        self._semaphore = asyncio.Semaphore(count)
        self._wait_s = wait_s

    @asynccontextmanager
    async def slot(self, request: Request | None = None) -> AsyncIterator[None]:
        """Hold one of the slots while the block runs.

        Args:
            request: the request, if its body has been read. It must still be connected when it gets its turn. Without
                this parameter, the block may read the body.

        Raises:
            ProblemError: if no slot becomes free in time, or if the client has gone away in the meantime.
        """
        try:
            async with asyncio.timeout(self._wait_s):
                await self._semaphore.acquire()
        except TimeoutError as error:
            raise ProblemError(
                503,
                ProblemType.BUSY,
                f"other requests did not end within {self._wait_s:g} s: send the request again",
                {"Retry-After": "2"},
            ) from error
        try:
            # A map that a person moves cancels the requests for tiles that are not visible any more.
            if request is not None and await request.is_disconnected():
                raise ProblemError(499, ProblemType.BUSY, "the client has gone away")
            yield
        finally:
            self._semaphore.release()


class WaitingThreads:
    """Threads for functions that mostly wait. FastAPI's own threads do all other work.

    If requests waited in FastAPI's threads, a few people with a slow store could keep the service from answering
    anything.

    Args:
        count: number of threads. Further requests wait for their turn, and hold no thread.
        wait_s: seconds that a request waits for a thread. After them, the request gets the status 503.
    """

    def __init__(self, count: int, wait_s: float) -> None:
        self._slots = Slots(count, wait_s)
        self._limiter = anyio.CapacityLimiter(count)

    async def run(self, function: Callable[[], T]) -> T:
        """Return the result of a function. It runs in one of the threads.

        Raises:
            ProblemError: if no thread becomes free in time.
        """
        async with self._slots.slot():
            return await run_sync(function, limiter=self._limiter)


class WorkLimits:
    """The slots of the service for searches, for pictures and for uploads, and the threads in which requests wait."""

    def __init__(self, limits: Limits) -> None:
        self.searches = Slots(limits.searches, limits.wait_s)
        self.drawings = Slots(limits.drawings, limits.wait_s)
        self.uploads = Slots(limits.uploads, limits.wait_s)
        self.store = WaitingThreads(limits.store_questions, limits.wait_s)
        """For all questions to the store outside of these slots, such as to open a view."""
        self.colours = WaitingThreads(_COLOUR_WAITS, limits.wait_s)
