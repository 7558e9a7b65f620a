"""Step 4: the shards, several at once, each a task run."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import copy_context

from prefect import task, unmapped
from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.futures import as_completed
from prefect.runtime import flow_run
from prefect.task_runners import ThreadPoolTaskRunner
from tqdm import tqdm

from rasterembed.dataset.plan import Plan
from rasterembed.dataset.shards import Shard
from rasterembed.model.choice import resolve_device
from rasterembed.pipeline import Execution, Progress, embed_shard
from rasterembed.store.object_store import ObjectStore
from tasks.policy import STEP, artifact_key

_UPDATE_S = 3.0
"""Seconds between updates of the progress artifact: each is a request to the server."""


@task(name="embed-shard", task_run_name="shard-{number:05d}", **STEP)
def embed_one(
    number: int,
    plan: Plan,
    store: ObjectStore,
    execution: Execution,
    device: str,
    hub_token: str | None,
    progress: Progress,
) -> Shard:
    """Compute one shard, unless it is complete in the store; see `rasterembed.pipeline.embed_shard`."""
    return embed_shard(
        plan,
        store,
        number,
        execution=execution,
        device=device,
        hub_token=hub_token,
        run_id=flow_run.id,
        progress=progress,
    )


def embed_shards(
    plan: Plan,
    store: ObjectStore,
    execution: Execution,
    device: str,
    hub_token: str | None,
    share: range | None = None,
) -> list[Shard]:
    """Map `embed_one` over the plan's shards, or a share of them, `shard_threads` at a time.

    One progress artifact and a line on the terminal show the tiles. If a shard fails or the run is cancelled, the
    others end at their next batch: complete shards stay, and nothing else.
    """
    numbers = range(plan.sharding.count) if share is None else share
    what = plan.dataset_id if share is None else f"{plan.dataset_id}-{share.start}-{share.stop}"
    progress = Progress(sum(map(plan.sharding.planned, numbers)))
    with (
        shown(progress, what),
        ThreadPoolTaskRunner(max_workers=execution.shard_threads) as runner,
    ):
        try:
            futures = runner.map(
                embed_one,
                {
                    "number": list(numbers),
                    "plan": unmapped(plan),
                    "store": unmapped(store),
                    "execution": unmapped(execution),
                    "device": unmapped(resolve_device(device)),
                    "hub_token": unmapped(hub_token),
                    "progress": unmapped(progress),
                },
            )
            return [future.result() for future in as_completed(futures)]
        except BaseException:
            progress.stop.set()
            raise


@contextmanager
def shown(progress: Progress, what: str) -> Iterator[None]:
    """Show the progress as an artifact of the run, and as a line where there is a terminal."""
    artifact = create_progress_artifact(0.0, key=artifact_key("tiles", what), description="Tiles dealt with")
    ended = threading.Event()

    def follow() -> None:
        while not ended.wait(_UPDATE_S):
            update_progress_artifact(artifact, 100.0 * progress.done / progress.total)

    thread = threading.Thread(target=copy_context().run, args=(follow,), name="progress", daemon=True)
    # disable=None: no line where nobody watches
    with tqdm(total=progress.total, unit="tile", smoothing=0.1, disable=None) as line:
        progress.on_change = line.update
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()
    update_progress_artifact(artifact, 100.0 * progress.done / progress.total)
