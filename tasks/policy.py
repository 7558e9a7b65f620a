"""What every step shares: when it is retried, and how an expected error is logged."""

from __future__ import annotations

import logging
from typing import Any

from prefect import Task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.tasks import exponential_backoff

from rasterembed.errors import RasterEmbedError, StoreUnavailableError


def _store_was_away(task: Task[Any, Any], task_run: TaskRun, state: State[Any]) -> bool:
    """Whether another try may go better: a wrong key or a broken file stays wrong."""
    error = state.data if isinstance(state.data, BaseException) else None
    return isinstance(error, StoreUnavailableError)


STEP: dict[str, Any] = {
    "retries": 4,
    "retry_delay_seconds": exponential_backoff(backoff_factor=2),
    "retry_jitter_factor": 0.3,
    "retry_condition_fn": _store_was_away,
    "cache_policy": NO_CACHE,  # the manifest is the cache; hashing inputs costs more than most steps
    "persist_result": False,
}
"""Options of every task."""


def artifact_key(kind: str, dataset_id: str) -> str:
    """Key of a dataset's artifact, in the characters that Prefect allows: a-z 0-9 and dashes."""
    return f"{kind}-{dataset_id}".replace(".", "-").replace("_", "-")


class _OneLine(logging.Filter):
    """Leaves out the traceback of an error whose text says all that a person needs."""

    def filter(self, record: logging.LogRecord) -> bool:
        if record.exc_info and isinstance(record.exc_info[1], RasterEmbedError):
            record.exc_info = None
            record.exc_text = None
        return True


def log_expected_errors_in_one_line() -> None:
    """Keep tracebacks of `RasterEmbedError` out of flow and task run logs; others keep theirs."""
    for name in ("prefect.flow_runs", "prefect.task_runs"):
        logger = logging.getLogger(name)
        if not any(isinstance(known, _OneLine) for known in logger.filters):
            logger.addFilter(_OneLine())
