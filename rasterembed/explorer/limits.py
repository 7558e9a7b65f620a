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

_WAITING_THREADS = 32
"""Number of threads in which requests wait for colours. FastAPI runs all other work in 40 threads. If requests waited
in these, a few people with a large view could keep the service from answering anything."""


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
    async def slot(self, request: Request) -> AsyncIterator[None]:
        """Hold one of the slots while the block runs. The body of the request must have been read.

        Raises:
            ProblemError: if no slot becomes free in time, or if the client has gone away in the meantime.
        """
        async with self.slot_for_body():
            # A map that a person moves cancels the requests for tiles that are not visible any more.
            if await request.is_disconnected():
                raise ProblemError(499, ProblemType.BUSY, "the client has gone away")
            yield

    @asynccontextmanager
    async def slot_for_body(self) -> AsyncIterator[None]:
        """Hold one of the slots while the block runs. The block may read the body of the request.

        Raises:
            ProblemError: if no slot becomes free in time.
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
            yield
        finally:
            self._semaphore.release()


class WorkLimits:
    """The slots of the service for searches, for pictures and for uploads, and the threads in which requests wait."""

    def __init__(self, limits: Limits) -> None:
        self.searches = Slots(limits.searches, limits.wait_s)
        self.drawings = Slots(limits.drawings, limits.wait_s)
        self.uploads = Slots(limits.uploads, limits.wait_s)
        self._waiting = anyio.CapacityLimiter(_WAITING_THREADS)

    async def wait_in_thread(self, wait: Callable[[], T]) -> T:
        """Return the result of a function that mostly waits. It runs in a thread that does nothing else."""
        return await run_sync(wait, limiter=self._waiting)
