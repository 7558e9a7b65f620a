"""Show the progress of a run: as an artifact with rate and time left, and as a progress bar on a terminal."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import TextIO
from uuid import UUID

import httpx
from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.exceptions import PrefectException
from prefect.logging.handlers import PrefectConsoleHandler

from rasterembed.artifact_key import artifact_key
from rasterembed.dataset.embedding import Progress
from rasterembed.progress.pace import Pace
from rasterembed.progress.progress_bar import progress_bar
from rasterembed.progress.repeating import repeated

_UPDATE_S = 3.0
"""Seconds between updates of the progress artifact. Each update is a request to the server."""


@contextmanager
def shown(progress: Progress, name: str, unit: str = "tile") -> Iterator[None]:
    """Show the progress as an artifact of the run, and on a terminal also as a progress bar.

    Args:
        progress: the progress of the run.
        name: name in the artifact's key, such as the dataset's id.
        unit: word for one unit of the work.
    """
    pace, started = Pace(unit), time.monotonic()
    artifact = create_progress_artifact(
        0.0, key=artifact_key(f"{unit}s", name), description=pace.describe(progress, started)
    )
    assert isinstance(artifact, UUID)  # Inside an event loop, the call would return a coroutine.

    def update(text: str) -> None:
        # Ignore a server that does not answer, because the run must continue. The next update shows the progress.
        with suppress(httpx.HTTPError, PrefectException):
            update_progress_artifact(artifact, 100.0 * progress.shown / max(progress.total, 1), description=text)

    terminal = sys.stderr
    try:
        with (
            progress_bar(progress, unit),
            _logs_above_the_bar(terminal),
            repeated(lambda: update(pace.describe(progress, time.monotonic())), _UPDATE_S),
        ):
            yield
    finally:
        update(pace.describe_end(progress, time.monotonic() - started))


@contextmanager
def _logs_above_the_bar(terminal: TextIO) -> Iterator[None]:
    """Let Prefect's console handlers write to the present `sys.stderr`, which prints lines above the progress bar.

    Args:
        terminal: the stream that was `sys.stderr` before the bar was shown. Only handlers that write to it change.
    """
    with ExitStack() as stack:
        for handler in logging.root.handlers:
            if isinstance(handler, PrefectConsoleHandler) and handler.stream is terminal:
                stack.callback(setattr, handler.console, "file", handler.console.file)
                handler.console.file = sys.stderr
        yield
