"""The pipeline: the one sequence of steps that turns a raster into a dataset.

A notebook, the command `rasterembed embed` and the Prefect flow all run `embed_raster`. They differ in the `Steps` they
give it: the flow's steps are Prefect tasks.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

from pydantic import Field

from rasterembed.dataset.dataset import Dataset
from rasterembed.dataset.embedding import EmbeddingJob, Execution, Progress, embed_shard
from rasterembed.dataset.manifest import ALL_STATES, Manifest, State, commit, find_complete, set_state
from rasterembed.dataset.plan import Plan, PlanSettings, make_plan
from rasterembed.dataset.shards import Shard
from rasterembed.dataset.tile_index import write_tile_index
from rasterembed.errors import Cancelled, ObjectMissingError
from rasterembed.model.choice import resolve_device
from rasterembed.qa.report import QaReport
from rasterembed.qa.thresholds import QaThresholds
from rasterembed.raster.profile import RasterProfile, inspect_raster
from rasterembed.raster.source import Source, default_dataset_id, register
from rasterembed.search.index_options import VectorIndexOptions
from rasterembed.store.layout import check_dataset_id
from rasterembed.store.lease import DURATION_S, Lease, hold_lease
from rasterembed.store.object_store import ObjectStore


class EmbedOptions(PlanSettings):
    """Everything that a person can choose about embedding a raster."""

    dataset_id: str | None = Field(
        default=None, description="Name of the dataset. By default it is made from the raster's path."
    )
    execution: Execution = Execution()
    """Settings for speed and memory. They change the vectors only by rounding."""
    qa: QaThresholds = QaThresholds()
    """Bounds that the dataset must keep to become `ready`."""
    search: VectorIndexOptions = VectorIndexOptions()
    """Whether a vector index is built, and how."""
    replace: bool = Field(default=False, description="Embed again if the dataset exists with another configuration.")
    quality_checks: bool = Field(
        default=True,
        description="Run the quality checks. Without them the dataset stays `embedded`, and cannot be searched before "
        "`check_dataset` has made it `ready`.",
    )


@dataclass(frozen=True)
class EmbedResult:
    """How `embed_raster` ended."""

    plan: Plan
    """What the dataset was made from, and how."""
    manifest: Manifest
    """The dataset's manifest, in its final state."""
    report: QaReport | None
    """The quality report; None if no quality checks were asked for, or the dataset was complete before."""
    embedding_seconds: float = 0.0
    """Time in which shards were computed; 0 if the dataset was complete before."""


class Steps:
    """The steps of the pipeline as plain function calls, with hooks for progress and messages.

    Make a subclass to run steps in another way: the Prefect flow runs each one as a task. A subclass changes how a step
    runs, never what it does.
    """

    def register(self, store: ObjectStore, raster: str) -> Source:
        """Find the raster, and record its identity."""
        return register(store, raster)

    def inspect(self, store: ObjectStore, source: Source, *, allow_no_crs: bool) -> RasterProfile:
        """Read the raster's header."""
        return inspect_raster(store, source.uri, allow_no_crs=allow_no_crs)

    def plan(
        self,
        store: ObjectStore,
        source: Source,
        dataset_id: str,
        settings: PlanSettings,
        profile: RasterProfile,
        hub_token: str | None,
    ) -> Plan:
        """Resolve every choice of the run."""
        return make_plan(store, source, dataset_id, settings, profile=profile, hub_token=hub_token)

    def prepare(self, store: ObjectStore, plan: Plan) -> None:
        """Write the plan into the store; see `prepare`."""
        prepare(store, plan)

    def embed(self, store: ObjectStore, plan: Plan, job: EmbeddingJob, progress: Progress) -> Sequence[Shard]:
        """Compute the shards that are missing, and return all of them."""
        return _embed_in_threads(store, plan, job, progress)

    def commit(self, store: ObjectStore, plan: Plan, shards: Sequence[Shard], lease: Lease) -> Manifest:
        """Make the shards a dataset."""
        return commit(store, plan, shards, lease)

    def check_quality(self, store: ObjectStore, manifest: Manifest, thresholds: QaThresholds) -> QaReport:
        """Measure the dataset, and write the quality report."""
        from rasterembed.qa.run import run_qa  # DuckDB and matplotlib take long to import.

        return run_qa(store, manifest, thresholds)

    def index_vectors(self, store: ObjectStore, manifest: Manifest, options: VectorIndexOptions) -> None:
        """Build the vector index, if the options ask for one."""
        from rasterembed.search.vector_index import build_vector_index  # DuckDB takes long to import.

        build_vector_index(Dataset(store, manifest), options)

    def show_progress(self, plan: Plan, progress: Progress) -> AbstractContextManager[object]:
        """Return a context manager that shows the progress while shards are computed. By default nothing is shown."""
        return nullcontext()

    def on_wait(self, message: str) -> None:
        """Report that the run waits for another run of the same dataset."""
        print(message)

    def on_end(self, store: ObjectStore, result: EmbedResult) -> None:
        """Report the end of a run, also of one whose dataset does not pass the quality checks."""


def embed_raster(
    store: ObjectStore,
    raster: str,
    options: EmbedOptions = EmbedOptions(),
    *,
    steps: Steps | None = None,
    hub_token: str | None = None,
    run_id: str | None = None,
) -> EmbedResult:
    """Embed a raster, check the result, and make it a dataset that can be searched.

    Work that is complete is never done again: kill the call at any point, make it again, and it continues where it
    stopped.

    Args:
        store: store that the dataset goes to; its credentials read a raster on S3.
        raster: a path, or s3://bucket/key.
        options: everything that can be chosen.
        steps: how the steps run; by default as plain calls in this process.
        hub_token: access token for gated weights.
        run_id: name of the run in receipts and in the lease; by default a random one.

    Returns:
        The plan, the manifest of the ready dataset, and the quality report.

    Raises:
        QaError: if the dataset does not pass its quality checks. It exists then in state `failed_qa`.
        RasterEmbedError: for everything else that a person can cause, with one line that says what was wrong.

    Example:
        >>> from rasterembed import EmbedOptions, ObjectStore, embed_raster  # doctest: +SKIP
        >>> result = embed_raster(ObjectStore(root="embeddings"), "scene.tif")  # doctest: +SKIP
        >>> result.manifest.state  # doctest: +SKIP
        'ready'
    """
    steps = steps or Steps()
    run_id = run_id or uuid.uuid4().hex
    if options.dataset_id is not None:
        check_dataset_id(options.dataset_id)
    source = steps.register(store, raster)
    profile = steps.inspect(store, source, allow_no_crs=options.selection.allow_no_crs)
    dataset_id = options.dataset_id or default_dataset_id(source.uri)
    plan = steps.plan(store, source, dataset_id, options, profile, hub_token)
    result = _complete(store, plan, options)
    if result is None:
        wait_s = options.execution.lease_wait
        with hold_lease(store, plan.layout, run_id, wait_s=wait_s, on_wait=steps.on_wait) as lease:
            # Another run may have completed the dataset while this one waited.
            result = _complete(store, plan, options)
            if result is None:
                result = _carry_out(store, plan, options, steps, lease, hub_token)
    steps.on_end(store, result)
    if result.report is not None:
        result.report.check()
    return result


def _complete(store: ObjectStore, plan: Plan, options: EmbedOptions) -> EmbedResult | None:
    """Return the result if the store has the dataset complete."""
    states: tuple[State, ...] = ("ready",) if options.quality_checks else ("ready", "embedded")
    manifest = find_complete(store, plan, replace=options.replace, states=states)
    return None if manifest is None else EmbedResult(plan, manifest, None)


def _carry_out(
    store: ObjectStore, plan: Plan, options: EmbedOptions, steps: Steps, lease: Lease, hub_token: str | None
) -> EmbedResult:
    """Run the steps that follow the plan. The lease is held."""
    steps.prepare(store, plan)
    progress = Progress(plan.sharding.tile_count)
    lease.on_lost = progress.stop.set
    job = EmbeddingJob(options.execution, resolve_device(options.model.device), hub_token, lease.run_id)
    started = time.monotonic()
    try:
        with steps.show_progress(plan, progress):
            shards = steps.embed(store, plan, job, progress)
    except (Cancelled, ObjectMissingError):
        lease.check()  # If another run took the dataset over, say that: it stopped this run, or deleted its file.
        raise
    seconds = time.monotonic() - started
    manifest = steps.commit(store, plan, shards, lease)
    if not options.quality_checks:
        return EmbedResult(plan, manifest, None, seconds)
    report = steps.check_quality(store, manifest, options.qa)
    if report.passed:
        steps.index_vectors(store, manifest, options.search)
    manifest = set_state(store, manifest, "ready" if report.passed else "failed_qa")
    return EmbedResult(plan, manifest, report, seconds)


def check_dataset(
    store: ObjectStore,
    dataset_id: str,
    thresholds: QaThresholds = QaThresholds(),
    *,
    steps: Steps | None = None,
    run_id: str | None = None,
) -> QaReport:
    """Check the quality of an existing dataset, write the report, and set the dataset's state.

    Args:
        store: store of the dataset; its credentials read the source raster.
        dataset_id: name of the dataset.
        thresholds: bounds that the dataset must keep.
        steps: how the step runs; by default as a plain call in this process.
        run_id: name of the run in the lease; by default a random one.

    Returns:
        The report. The dataset is `ready` if it passed, else `failed_qa`.

    Raises:
        UsageError: if there is no such dataset.
        LeaseHeldError: if a run that is alive writes the dataset.
    """
    steps = steps or Steps()
    layout = Dataset.open(store, dataset_id, states=ALL_STATES).layout
    # The wait outlasts the lease of a run that died.
    with hold_lease(store, layout, run_id or uuid.uuid4().hex, wait_s=1.5 * DURATION_S, on_wait=steps.on_wait):
        manifest = Dataset.open(store, dataset_id, states=ALL_STATES).manifest
        report = steps.check_quality(store, manifest, thresholds)
        set_state(store, manifest, "ready" if report.passed else "failed_qa")
    return report


def prepare(store: ObjectStore, plan: Plan) -> None:
    """Write the plan and, for a new dataset, the index of planned tiles. Delete what a killed run left unfinished.

    A dataset that is being replaced keeps its tile index until the manifest is replaced.
    """
    for key in (plan.layout.shard(plan.fingerprint, 0), plan.layout.tile_index, plan.layout.manifest):
        store.clear_scratch(key.rsplit("/", 1)[0])
    plan.write(store)
    if store.read(plan.layout.manifest) is None:
        write_tile_index(store, plan)


def _embed_in_threads(store: ObjectStore, plan: Plan, job: EmbeddingJob, progress: Progress) -> list[Shard]:
    """Compute all shards in this process, several at a time. The first failure stops the others."""
    with ThreadPoolExecutor(job.execution.shard_threads, thread_name_prefix="shard") as pool:
        futures = [
            pool.submit(embed_shard, store, plan, number, job, progress) for number in range(plan.sharding.count)
        ]
        try:
            return [future.result() for future in as_completed(futures)]
        except BaseException:
            progress.stop.set()
            for future in futures:
                future.cancel()
            raise
