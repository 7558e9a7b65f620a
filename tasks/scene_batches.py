"""Embed the scenes of a collection in batches: in this run, or in child runs on workers."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from prefect import get_run_logger, task
from prefect.client.orchestration import get_client
from prefect.logging.loggers import LoggingAdapter

from rasterembed.collection.found_scene import FoundScene
from rasterembed.collection.scene_row import SceneRow, failed_row
from rasterembed.dataset.embedding import Progress
from rasterembed.errors import Cancelled, DataError
from rasterembed.scene_batches import Batch, clear_batches, deal_to_workers, read_rows, write_batch
from rasterembed.scene_pipeline import SceneJob, SceneMessages, embed_scenes
from rasterembed.store.layout import CollectionLayout
from rasterembed.store.lease import Lease
from rasterembed.store.object_store import ObjectStore
from tasks.child_runs import ATTEMPTS, POLL_S, ChildRuns, Ended, ShareTexts
from tasks.policy import STEP

_HOPELESS = 8
"""If this number of batches fails and none succeeds, the run ends. The reason is then the workers, and not a scene."""


@task(name="embed-scenes", task_run_name="scenes-{first:06d}", **STEP)
def embed_batch(first: int, embed: Callable[[], list[SceneRow]]) -> list[SceneRow]:
    """Embed a batch of scenes; see `rasterembed.scene_pipeline.embed_scenes`.

    If the store was away, the task is tried again. Complete scenes are then found, and not computed again.

    Args:
        first: number of the batch's first scene, from 0. The name of the task run holds it.
        embed: function that embeds the batch. Prefect would look into every scene for results of other tasks, if the
            scenes were an argument.
    """
    return embed()


class LoggedMessages(SceneMessages):
    """Writes the messages about scenes to a log. Threads without the context of the run call it.

    Args:
        log: logger of the task run.
    """

    def __init__(self, log: logging.Logger | LoggingAdapter) -> None:
        self._log = log

    def on_wait(self, message: str) -> None:
        """Log that the run waits for another run, or that the wait has ended."""
        self._log.info("%s", message)

    def on_continue(self, message: str) -> None:
        """Log how much of the work an interrupted run has done already."""
        self._log.info("%s", message)

    def on_warning(self, message: str) -> None:
        """Log a warning."""
        self._log.warning("%s", message)


class CountedScenes:
    """Counts the complete scenes of a run. A task that is tried again finds its first scenes complete.

    Args:
        count: number of scenes of the run.
    """

    def __init__(self, count: int) -> None:
        self.progress = Progress(count)
        self._seen: set[str] = set()

    def add(self, row: SceneRow) -> None:
        """Count a scene, unless it was counted before."""
        if row.id not in self._seen:
            self._seen.add(row.id)
            self.progress.add(1)


def embed_counted(
    store: ObjectStore,
    job: SceneJob,
    scenes: Sequence[FoundScene],
    lease: Lease,
    hub_token: str | None,
    counted: CountedScenes,
) -> list[SceneRow]:
    """Embed scenes in this process, count each complete one, and return their rows. Messages go to the run's log.

    Args:
        store: store of the collection.
        job: what the scenes have in common.
        scenes: the scenes.
        lease: the lease on the collection.
        hub_token: access token for gated weights.
        counted: counts the scenes.

    Raises:
        StoreUnavailableError: if the store does not answer.
        LeaseLostError: if another run took the collection over.
        Cancelled: if the run was told to stop.
    """
    rows, messages = [], LoggedMessages(get_run_logger())
    for row in embed_scenes(store, job, scenes, lease, hub_token=hub_token, messages=messages):
        rows.append(row)
        counted.add(row)
    return rows


@dataclass(frozen=True)
class SceneFleet:
    """The workers of a run over a collection, and the parameters that their child runs of `embed-scenes` get."""

    workers: int
    """Number of child runs at a time."""
    deployment: str
    """Name of the deployment, as `embed-scenes/embed-batch-docker`."""
    store: str | None
    """Name of the object-store block."""
    source_store: str | None
    """Name of the source-store block."""
    weights: str | None
    """Name of the weights block."""


def embed_scenes_on_workers(
    store: ObjectStore, job: SceneJob, scenes: Sequence[FoundScene], lease: Lease, fleet: SceneFleet
) -> Iterator[SceneRow]:
    """Let child runs embed the scenes, and yield the rows of each batch when it is complete.

    This run holds the lease. Each child run checks it before each commit. If a child run crashes or fails, another one
    gets the same batch, and computes only what is missing. A batch that fails `ATTEMPTS` times is halved, until the
    scene at which the workers die is alone. That scene is recorded as failed.

    Args:
        store: store of the collection.
        job: what the scenes have in common.
        scenes: the scenes.
        lease: the lease on the collection.
        fleet: the workers.

    Raises:
        UsageError: if the deployment does not exist.
        DataError: if `_HOPELESS` batches failed, and none was completed.
        Cancelled: if somebody cancelled a child run.
        LeaseLostError: if another run took the collection over.
    """
    layout = CollectionLayout(job.collection_id)
    stop = threading.Event()
    lease.on_lost = stop.set
    with get_client(sync_client=True) as client:
        texts = ShareTexts(
            parameters=lambda batch: _parameters(store, job, batch, fleet),
            key=lambda batch: f"{batch.first}-{batch.stop}",
            name=_name,
        )
        children = ChildRuns(
            client, fleet.deployment, "embed-scenes/embed-batch-docker and embed-scenes/embed-batch-process", texts
        )
        with children:
            clear_batches(store, layout)
            dealer = _Dealer(store, layout, job, scenes, lease, children)
            for first, batch in deal_to_workers(scenes, fleet.workers):
                dealer.add(first, first + len(batch))
            while dealer.deal(fleet.workers):
                if stop.wait(POLL_S):
                    lease.check()
                    raise Cancelled("the run was told to stop")
                for ended in children.look():
                    yield from dealer.collect(ended)
        clear_batches(store, layout)


def _name(batch: Batch) -> str:
    return f"scenes {batch.first} to {batch.stop - 1}"


def _parameters(store: ObjectStore, job: SceneJob, batch: Batch, fleet: SceneFleet) -> dict[str, object]:
    return {
        "collection": job.collection_id,
        "lease": batch.lease,
        "first": batch.first,
        "stop": batch.stop,
        "sha256": batch.sha256,
        "root": store.root,
        "store": fleet.store,
        "source_store": fleet.source_store,
        "weights": fleet.weights,
    }


class _Dealer:
    """Deals batches to child runs, and collects their rows."""

    def __init__(
        self,
        store: ObjectStore,
        layout: CollectionLayout,
        job: SceneJob,
        scenes: Sequence[FoundScene],
        lease: Lease,
        children: ChildRuns[Batch],
    ) -> None:
        self._store, self._layout, self._job, self._scenes = store, layout, job, scenes
        self._lease, self._children = lease, children
        self._waiting: list[tuple[int, int, int]] = []
        self._completed = self._failed = 0

    def add(self, first: int, stop: int, attempt: int = 1) -> None:
        """Add a batch to those that wait for a worker.

        Args:
            first: number of the first scene.
            stop: number after the last scene.
            attempt: number of the first attempt. The batch is given up after attempt `ATTEMPTS`.
        """
        self._waiting.append((first, stop, attempt))

    def deal(self, workers: int) -> bool:
        """Start child runs, so that `workers` are at work. Return whether any is at work."""
        while self._waiting and len(self._children.running) < workers:
            first, stop, attempt = self._waiting.pop(0)
            self._lease.check_often()
            batch = write_batch(
                self._store, self._layout, self._job, self._lease.number, first, self._scenes[first:stop]
            )
            self._children.start(batch, attempt)
        return bool(self._children.running)

    def collect(self, ended: Ended[Batch]) -> Iterator[SceneRow]:
        """Yield the rows of a batch that ended. Halve a batch that failed."""
        batch = ended.child.share
        if ended.reason is None:
            self._completed += 1
            yield from read_rows(self._store, self._layout, batch)
            return
        self._failed += 1
        what = f"{_name(batch)}: child run {ended.name} ended {ended.reason}"
        if self._failed >= _HOPELESS and not self._completed:
            raise DataError(f"{what}, as all others did; run the flow again to continue")
        if batch.stop - batch.first > 1:
            middle = (batch.first + batch.stop) // 2
            get_run_logger().warning("%s after %d attempts; the batch is halved", what, ATTEMPTS)
            for first, stop in ((batch.first, middle), (middle, batch.stop)):
                self.add(first, stop, attempt=ATTEMPTS)
            return
        reason = f"the worker that embedded it ended {ended.reason}"
        yield failed_row(self._layout.collection_id, self._scenes[batch.first], self._job.listing, reason)
