"""The pipeline of the scenes of a collection: embed many scenes with one loaded model, and return a row for each.

A scene becomes a dataset with the same files as those of `rasterembed.pipeline`. Three things differ, because an
archive may have a hundred thousand small scenes:

- The run holds one lease, that of the collection. Only a run with this lease writes the datasets of the collection.
- A run does not look for the files of a new dataset. One listing of the dataset's folder tells whether it is new,
  because a run writes the plan before everything else.
- The quality of a scene is judged by the vectors while they are in memory. `check_dataset` writes the full report.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from functools import cached_property
from itertools import islice

from pydantic import BaseModel, ConfigDict

from rasterembed.collection.compared_colours import ComparedColours
from rasterembed.collection.doubtful_stretches import CheckedStretches
from rasterembed.collection.found_scene import REASON_LETTERS, FoundScene
from rasterembed.collection.lattice import Lattice
from rasterembed.collection.members import member_id
from rasterembed.collection.scene_row import SceneRow, embedded_row, failed_row
from rasterembed.dataset.embedding import EmbeddingJob, Progress, embed_summarised_shard, in_threads
from rasterembed.dataset.manifest import ALL_STATES, Commit, Manifest, State, commit, find_complete, set_state
from rasterembed.dataset.plan import Plan, make_plan, shared_radiometry
from rasterembed.dataset.shards import Shard
from rasterembed.dataset.vector_summary import VectorSummary, summarise_shard
from rasterembed.errors import (
    Cancelled,
    DataError,
    LeaseLostError,
    ObjectMissingError,
    StoreUnavailableError,
    one_line,
)
from rasterembed.model.choice import ResolvedModel, resolve_device
from rasterembed.pipeline import EmbedOptions, RunMessages, why_nothing_was_embedded
from rasterembed.qa.verdict import judge_vectors
from rasterembed.raster.radiometry import ResolvedRadiometry
from rasterembed.raster.scene_profile import inspect_scene
from rasterembed.raster.source import Source
from rasterembed.store.layout import folder_of
from rasterembed.store.lease import Lease
from rasterembed.store.modification_time import time_of
from rasterembed.store.object_store import ObjectStore

_MORE_SCENES, _MORE_SCENES_S3 = 1, 6
"""Scenes that are at work beyond those that compute, with a store in a folder and on S3. While two scenes compute, the
next ones are opened and the last ones are committed. On S3, each of these steps waits for several answers."""


class SceneMessages(RunMessages):
    """Receives the messages of a run over scenes. This class prints them, and shows no progress."""

    def on_scene_begin(self, dataset_id: str, progress: Progress) -> None:
        """Follow the progress of a scene that is about to be computed. Several threads call this method.

        Args:
            dataset_id: id of the scene's dataset.
            progress: counts the tiles of the scene. This method may set its `on_change`.
        """


class SceneJob(BaseModel):
    """The part of a run that is the same for all its scenes. It can be stored as JSON."""

    model_config = ConfigDict(frozen=True)

    collection_id: str
    """Name of the collection."""
    listing: str
    """Address of the listing that the scenes were found in."""
    options: EmbedOptions
    """Options of every scene, without the dataset id."""
    lattice: Lattice | None = None
    """CRS and pixel size that every scene must have. None if any scene is right."""
    model: ResolvedModel
    """The model of the collection."""
    tiles: int
    """Estimated number of tiles of all scenes in the listing. The engine `auto` is chosen by it, once for the run."""


def embed_scenes(
    store: ObjectStore,
    job: SceneJob,
    scenes: Iterable[FoundScene],
    lease: Lease,
    *,
    hub_token: str | None = None,
    messages: SceneMessages,
) -> Iterator[SceneRow]:
    """Embed scenes in this process, and yield the row of each scene when it is complete, in any order.

    A scene that fails gets a row with the reason, and does not stop the others. While the model computes some scenes,
    the next ones are opened and read.

    Args:
        store: store of the collection.
        job: what the scenes have in common.
        scenes: the scenes.
        lease: the lease on the collection. It is checked before each commit.
        hub_token: access token for gated weights.
        messages: receives the messages. Several threads call it.

    Raises:
        StoreUnavailableError: if the store does not answer. All other scenes would fail too.
        LeaseLostError: if another run took the collection over.
        Cancelled: if the run was told to stop.
    """
    worker = _SceneWorker(store, job, lease, messages, hub_token)
    rest = iter(scenes)
    more = _MORE_SCENES_S3 if store.is_s3 else _MORE_SCENES
    with ThreadPoolExecutor(worker.shard_threads + more, thread_name_prefix="scene") as pool:
        working: set[Future[SceneRow]] = set()
        try:
            while True:
                # One more scene waits in the queue, so that a thread finds work at once.
                new = islice(rest, worker.shard_threads + more + 1 - len(working))
                working |= {pool.submit(worker.embed, scene) for scene in new}
                if not working:
                    break
                done, working = wait(working, return_when=FIRST_COMPLETED)
                for future in done:
                    yield future.result()
            for warning in worker.stretches.counts():
                messages.on_warning(warning)
        except BaseException:
            worker.stop.set()
            for future in working:
                future.cancel()
            raise


def estimated_tiles(scenes: Iterable[FoundScene], step: int) -> int:
    """Return the estimated number of tiles of scenes, without reading them. Compressed files have more tiles.

    A run that goes on after a kill lists the same scenes, and so gets the same number.

    Args:
        scenes: all scenes of a listing.
        step: distance between the corners of neighbouring tiles, px.
    """
    return sum(max(1, (scene.size or 0) // (3 * step**2)) for scene in scenes)


class _Stop(threading.Event):
    """Stops one scene, whose shards may run at the same time. It is also set if the whole run must stop."""

    def __init__(self, run: threading.Event) -> None:
        super().__init__()
        self._run = run

    def is_set(self) -> bool:
        """Return whether the scene must stop."""
        return super().is_set() or self._run.is_set()


class _SceneWorker:
    """Embeds scenes of a collection. Several threads may use it."""

    def __init__(
        self, store: ObjectStore, job: SceneJob, lease: Lease, messages: SceneMessages, hub_token: str | None
    ) -> None:
        self._store, self._job, self._lease, self._messages = store, job, lease, messages
        execution = job.options.execution
        device = resolve_device(job.options.model.device)
        self._colours = ComparedColours()
        self.stretches = CheckedStretches()
        self._shards = EmbeddingJob(execution, device, hub_token, lease.run_id, job.tiles)
        self.shard_threads = self._shards.shard_threads
        # Shards of all scenes together that are computed at the same time. Their pixels and vectors are in memory.
        self._slots = threading.BoundedSemaphore(self.shard_threads)
        self.stop = threading.Event()
        lease.on_lost = self.stop.set

    def embed(self, scene: FoundScene) -> SceneRow:
        """Embed one scene, and return its row. A scene that fails gets a row with the reason."""
        if self.stop.is_set():
            raise Cancelled("the run was told to stop")
        if scene.problem is not None:
            return self._failed(scene, scene.problem)
        try:
            plan = self._plan(scene)
            return embedded_row(self._job.listing, plan, self._dataset(self._store.allowing(*plan.rasters), plan))
        except (StoreUnavailableError, LeaseLostError):
            raise
        except (Cancelled, ObjectMissingError) as error:
            # Another run may have taken the collection over, and caused this error. `check` then raises LeaseLostError.
            self._lease.check()
            if isinstance(error, Cancelled):
                raise
            return self._failed(scene, one_line(error, REASON_LETTERS))
        except Exception as error:  # Nobody can know every way in which a library fails at a damaged file.
            return self._failed(scene, one_line(error, REASON_LETTERS))

    @cached_property
    def _shared(self) -> ResolvedRadiometry | None:
        """Radiometry of the dataset that `stretch_of` names. It is kept, because all scenes need it."""
        return shared_radiometry(self._store, self._job.options.radiometry)

    def _failed(self, scene: FoundScene, reason: str) -> SceneRow:
        return failed_row(self._job.collection_id, scene, self._job.listing, reason)

    def _plan(self, scene: FoundScene) -> Plan:
        options = self._job.options
        source = _source_of(self._store, scene, self._job.options.assets)
        profile = inspect_scene(self._store, source, allow_no_crs=options.selection.allow_no_crs)
        if self._job.lattice is not None:
            self._job.lattice.check(profile, options.grid, source.uri)
        dataset_id = member_id(self._job.collection_id, scene.uri)
        plan = make_plan(
            self._store, source, dataset_id, options, profile=profile, model=self._job.model, shared=self._shared
        )
        warning = self._colours.warning(plan)
        if warning is not None:
            self._messages.on_warning(warning)
        return plan

    def _dataset(self, store: ObjectStore, plan: Plan) -> Manifest:
        """Write the dataset of a scene, unless it is complete, and return its manifest."""
        store.clear_scratch(plan.layout.dataset_folder)
        first = not store.sizes(plan.layout.dataset_folder)
        if not first:
            manifest = self._complete(store, plan)
            if manifest is not None:
                return manifest
            for key in (plan.layout.tile_index, plan.layout.shard(plan.fingerprint, 0)):
                store.clear_scratch(folder_of(key))
        if self._job.options.radiometry.is_given:
            warning = self.stretches.warning(store, plan)
            if warning is not None:
                self._messages.on_warning(warning)
        self._lease.check_often()
        plan.write(store)
        shards, summaries = self._embed(store, plan, first=first)
        state, reason = self._judge(plan, summaries)
        skipped = {number: summary.skipped for number, summary in summaries.items()}
        manifest = commit(store, plan, shards, self._lease, Commit(state, reason, skipped, first))
        if manifest.rows == 0:
            why = why_nothing_was_embedded(plan, skipped.values())
            self._messages.on_warning(f"{why}; a collection with datasets keeps its settings, so use a new collection")
        return manifest

    def _embed(self, store: ObjectStore, plan: Plan, *, first: bool) -> tuple[list[Shard], dict[int, VectorSummary]]:
        """Compute the shards that are missing. Return all shards, and the summary of each by its number."""
        progress = Progress(plan.sharding.tile_count, stop=_Stop(self.stop))
        self._messages.on_scene_begin(plan.dataset_id, progress)
        rows = self._job.options.qa.sample_rows

        def one(number: int) -> tuple[Shard, VectorSummary]:
            with self._slots:
                if self.stop.is_set():
                    raise Cancelled("the run was told to stop")
                return embed_summarised_shard(
                    store, plan, number, self._shards, progress, sample_rows=rows, first=first
                )

        found = [one(0)] if plan.sharding.count == 1 else in_threads(one, plan, self.shard_threads, progress.stop)
        return [shard for shard, _ in found], {shard.number: summary for shard, summary in found}

    def _judge(self, plan: Plan, summaries: dict[int, VectorSummary]) -> tuple[State, str | None]:
        """Return the state of a dataset, and the reason why it did not pass its quality checks."""
        if not self._job.options.quality_checks:
            return "embedded", None
        reason = judge_vectors(plan.sharding.tile_count, list(summaries.values()), self._job.options.qa).reason
        return "ready" if reason is None else "failed_qa", reason

    def _complete(self, store: ObjectStore, plan: Plan) -> Manifest | None:
        """Return the manifest of a dataset that an interrupted run completed, or None if it is not complete."""
        manifest = find_complete(store, plan, replace=True, states=ALL_STATES)
        if manifest is None:
            return None
        if not plan.is_stored(store):
            self._lease.check_often()
            plan.write(store)
        if self._job.options.quality_checks and manifest.state in ("embedded", "failed_qa"):
            rows = self._job.options.qa.sample_rows
            summaries = {shard.number: summarise_shard(store, plan, shard.path, rows) for shard in manifest.shards}
            state, reason = self._judge(plan, summaries)
            self._lease.check_often()
            return set_state(store, manifest, state, reason)
        return manifest


def _source_of(store: ObjectStore, scene: FoundScene, assets: tuple[str, ...]) -> Source:
    """Return the identity of a scene. The listing knows that of a single file, so the file is not looked at again.

    If the file changed since the listing, the reader of its pixels notices the change.
    """
    size, version, modified = scene.size, scene.version, scene.modified
    if scene.source is not None or scene.is_item or size is None or version is None or modified is None:
        return scene.register(store, assets)
    if size == 0:
        raise DataError(f"{scene.uri}: the file is empty")
    return Source(uri=scene.uri, size=size, version=version, modified=time_of(modified))
