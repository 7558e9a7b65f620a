"""Step 4: compute the shards, several at a time. Each shard is a task run."""

from __future__ import annotations

from typing import Any

from prefect import task, unmapped
from prefect.futures import as_completed
from prefect.task_runners import ThreadPoolTaskRunner

from rasterembed.dataset.embedding import EmbeddingJob, Progress, embed_shard
from rasterembed.dataset.plan import Plan
from rasterembed.dataset.shards import Shard
from rasterembed.store.object_store import ObjectStore
from tasks.policy import STEP


@task(name="embed-shard", task_run_name="shard-{number:05d}", **STEP)
def embed_one(number: int, store: ObjectStore, plan: Plan, job: EmbeddingJob, progress: Progress) -> Shard:
    """Compute one shard, if it is not complete; see `rasterembed.dataset.embedding.embed_shard`."""
    return embed_shard(store, plan, number, job, progress)


def embed_shards(store: ObjectStore, plan: Plan, job: EmbeddingJob, progress: Progress, numbers: range) -> list[Shard]:
    """Run `embed_one` for each shard in `numbers`, `shard_threads` at a time.

    If a shard fails or the run is cancelled, the other shards stop at their next batch. Only complete shards stay in
    the store.
    """
    task_runner: ThreadPoolTaskRunner[Shard] = ThreadPoolTaskRunner(max_workers=job.shard_threads)
    with task_runner as runner:
        try:
            rest = {"store": store, "plan": plan, "job": job, "progress": progress}
            parameters = {"number": list(numbers), **{name: unmapped(value) for name, value in rest.items()}}
            futures: list[Any] = runner.map(embed_one, parameters)  # futures of Shard
            return [future.result() for future in as_completed(futures)]
        except BaseException:
            progress.stop.set()
            raise
