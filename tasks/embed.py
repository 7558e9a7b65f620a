"""Step 4: compute the shards, several at a time. Each shard is a task run."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import copy_context
from typing import Any
from uuid import UUID

from prefect import task, unmapped
from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.futures import as_completed
from prefect.task_runners import ThreadPoolTaskRunner
from tqdm import tqdm

from rasterembed.dataset.embedding import EmbeddingJob, Progress, embed_shard
from rasterembed.dataset.plan import Plan
from rasterembed.dataset.shards import Shard
from rasterembed.store.object_store import ObjectStore
from tasks.policy import STEP, artifact_key

_UPDATE_S = 3.0
"""Seconds between updates of the progress artifact. Each update is a request to the server."""


@task(name="embed-shard", task_run_name="shard-{number:05d}", **STEP)
def embed_one(number: int, store: ObjectStore, plan: Plan, job: EmbeddingJob, progress: Progress) -> Shard:
    """Compute one shard, unless the shard is complete; see `rasterembed.dataset.embedding.embed_shard`."""
    return embed_shard(store, plan, number, job, progress)


def embed_shards(store: ObjectStore, plan: Plan, job: EmbeddingJob, progress: Progress, numbers: range) -> list[Shard]:
    """Run `embed_one` for each shard in `numbers`, `shard_threads` at a time.

    If a shard fails or the run is cancelled, the other shards stop at their next batch. Only complete shards stay in
    the store.
    """
    task_runner: ThreadPoolTaskRunner[Shard] = ThreadPoolTaskRunner(max_workers=job.execution.shard_threads)
    with task_runner as runner:
        try:
            rest = {"store": store, "plan": plan, "job": job, "progress": progress}
            parameters = {"number": list(numbers), **{name: unmapped(value) for name, value in rest.items()}}
            futures: list[Any] = runner.map(embed_one, parameters)  # futures of Shard
            return [future.result() for future in as_completed(futures)]
        except BaseException:
            progress.stop.set()
            raise


@contextmanager
def shown(progress: Progress, name: str) -> Iterator[None]:
    """Show the progress as an artifact of the run, and on a terminal also as a progress bar."""
    artifact = create_progress_artifact(0.0, key=artifact_key("tiles", name), description="Tiles embedded or skipped")
    assert isinstance(artifact, UUID)  # Inside an event loop, the call would return a coroutine.
    ended = threading.Event()

    def follow() -> None:
        while not ended.wait(_UPDATE_S):
            update_progress_artifact(artifact, 100.0 * progress.done / progress.total)

    thread = threading.Thread(target=copy_context().run, args=(follow,), name="progress", daemon=True)
    # disable=None: tqdm prints nothing if standard error is not a terminal.
    with tqdm(total=progress.total, unit="tile", smoothing=0.1, disable=None) as line:
        progress.on_change = line.update
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()
    update_progress_artifact(artifact, 100.0 * progress.done / progress.total)
