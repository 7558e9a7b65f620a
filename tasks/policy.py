"""Rules for every task: when to retry, and how to log an expected error."""

from __future__ import annotations

import logging
from typing import Any

from prefect import Task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.tasks import exponential_backoff

from rasterembed.errors import RasterEmbedError, StoreUnavailableError
from rasterembed.escape import escape_lines


def _store_was_away(task: Task[Any, Any], task_run: TaskRun, state: State[Any]) -> bool:
    """Return whether a retry may succeed. It may if the store was unavailable, but not if a key or a file is wrong."""
    error = state.data if isinstance(state.data, BaseException) else None
    return isinstance(error, StoreUnavailableError)


STEP: dict[str, Any] = {
    "retries": 4,
    "retry_delay_seconds": exponential_backoff(backoff_factor=2),
    "retry_jitter_factor": 0.3,
    "retry_condition_fn": _store_was_away,
    # The manifest shows which work is done. To use Prefect's cache, Prefect would hash the inputs, which takes longer
    # than most steps.
    "cache_policy": NO_CACHE,
    "persist_result": False,
}
"""Options of every task."""


class _ForPeople(logging.Filter):
    """Removes the traceback of an expected error, and makes control characters visible.

    The text of an expected error is enough for a person. A message may contain a name from a bucket, and control
    characters in this name must not control a terminal.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        if record.exc_info and isinstance(record.exc_info[1], RasterEmbedError):
            record.exc_info = None
            record.exc_text = None
        record.msg, record.args = escape_lines(record.getMessage()), ()
        return True


def log_expected_errors_in_one_line() -> None:
    """Log each `RasterEmbedError` of a flow or task run without traceback. Other errors keep their traceback.

    Control characters in the messages of these loggers become visible codes.
    """
    for name in ("prefect.flow_runs", "prefect.task_runs"):
        logger = logging.getLogger(name)
        if not any(isinstance(known, _ForPeople) for known in logger.filters):
            logger.addFilter(_ForPeople())
