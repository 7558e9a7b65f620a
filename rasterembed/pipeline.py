"""The pipeline: the one sequence of steps that turns a raster into a dataset.

A notebook, the command `rasterembed embed` and the Prefect flow all run `embed_raster`. They differ in the `Steps` that
they pass to `embed_raster`: the flow's steps are Prefect tasks.
"""

from __future__ import annotations

import math
import os
import time
import uuid
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pydantic import Field

from rasterembed.collection.members import member_id
from rasterembed.collection.replacing import check_replacement, collections_with
from rasterembed.collection.threaded import map_threaded
from rasterembed.collection_writer import record_check
from rasterembed.dataset.continuing import what_stands, written_text
from rasterembed.dataset.dataset import Dataset
from rasterembed.dataset.embedding import EmbeddingJob, Execution, Progress, embed_shard, in_threads
from rasterembed.dataset.listing import find_unfinished
from rasterembed.dataset.manifest import ALL_STATES, Manifest, State, commit, find_complete, read_manifest, set_state
from rasterembed.dataset.naming import choose_dataset_id
from rasterembed.dataset.plan import Plan, PlanSettings, make_plan
from rasterembed.dataset.setting_differences import entry_differences, without_consequences
from rasterembed.dataset.setting_names import differences_text
from rasterembed.dataset.shards import Shard, count_written_shards, find_shard, skipped_positions
from rasterembed.dataset.tile_index import SkippedTiles, write_tile_index
from rasterembed.errors import (
    Cancelled,
    DataError,
    ObjectMissingError,
    StoreError,
    UsageError,
    check_type,
    told_when_interrupted,
)
from rasterembed.escape import escape_terminal
from rasterembed.known_parameters import known_parameters
from rasterembed.model.choice import resolve_device
from rasterembed.model.cost import costly_input
from rasterembed.model.normalisation import doubtful_normalisation
from rasterembed.number_text import agreeing, counted, part_of
from rasterembed.qa.report import QaReport
from rasterembed.qa.thresholds import QaThresholds
from rasterembed.raster.profile import RasterProfile
from rasterembed.raster.scene import Scene, register_scene
from rasterembed.raster.scene_profile import inspect_scene
from rasterembed.raster.skip_reason import SkipReason, reasons_text
from rasterembed.raster.source import Source
from rasterembed.raster.stretch_check import doubtful_stretch
from rasterembed.search.index_options import VectorIndexOptions
from rasterembed.slow_imports import collector_paused
from rasterembed.store.dataset_owner import collection_of, collection_of_member
from rasterembed.store.layout import MEMBER_MARK, check_dataset_id, folder_of, name_of
from rasterembed.store.lease import DEAD_RUN_S, Lease, hold_lease
from rasterembed.store.object_store import ObjectStore
from rasterembed.store.store_command import store_command

if TYPE_CHECKING:
    from rasterembed.search.index.building import BuildResult

_PADDED = 4
"""Smallest ratio of the side of a tile to that of the raster for a warning."""

_ENLARGED = 8
"""Smallest number of px that a pixel of the raster becomes in a warped grid, in each direction, for a warning."""


class EmbedOptions(PlanSettings):
    """All options for embedding a raster."""

    dataset_id: str | None = Field(
        default=None,
        description="Name of the dataset. The default name is made from the raster's path.",
    )
    assets: tuple[str, ...] = Field(
        default=(),
        description="Keys or common names of the assets to use, if the raster is a STAC Item. By default the asset "
        "visual, else red, green and blue, else the only data asset.",
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
        description="Run the quality checks. Without these checks the state of the dataset stays `embedded`. The "
        "dataset can be searched only after `check_dataset` has set its state to `ready`.",
    )


@dataclass(frozen=True)
class EmbedResult:
    """The result of `embed_raster`."""

    plan: Plan
    """The plan of the dataset: its raster and all settings."""
    manifest: Manifest
    """The dataset's manifest, in its final state."""
    report: QaReport | None
    """The quality report. None if the quality checks were turned off, or if the dataset was already complete."""
    embedding_seconds: float = 0.0
    """Time in seconds for computing the shards. 0 if the dataset was already complete."""
    computed_tiles: int = 0
    """Number of tiles that this run computed. The other tiles were in the store before."""

    def __repr__(self) -> str:
        """Return one short line."""
        done = "already complete" if self.already_complete else f"embedded in {self.embedding_seconds:.1f} s"
        checks = "" if self.report is None else f"; quality checks: {self.report.summary()}"
        return escape_terminal(f"EmbedResult: {self.manifest.summary()}; {done}{checks}")

    @property
    def already_complete(self) -> bool:
        """Whether the dataset was complete before, so that nothing was computed."""
        return self.embedding_seconds == 0.0


class RunMessages:
    """Receives the messages of a run. This class prints them."""

    def on_wait(self, message: str) -> None:
        """Report that the run waits for another run, or that the wait has ended. See `hold_lease`."""
        print(escape_terminal(message))

    def on_continue(self, message: str) -> None:
        """Report how much of the work an interrupted run has done already."""
        print(escape_terminal(message))

    def on_warning(self, message: str) -> None:
        """Report something that a person should look at, although the run goes on."""
        print(f"warning: {escape_terminal(message)}")


class Steps(RunMessages):
    """The steps of the pipeline as plain function calls, with hooks for progress and messages.

    A subclass can run the steps in another way: the Prefect flow runs each step as a task. A subclass never changes the
    result of a step.
    """

    def register(self, store: ObjectStore, raster: Scene, assets: Sequence[str]) -> Source:
        """Find the raster or the files of the scene, and return their addresses, sizes and versions."""
        return register_scene(store, raster, assets)

    def inspect(self, store: ObjectStore, source: Source, *, allow_no_crs: bool) -> RasterProfile:
        """Read the header of the raster, or of all files of the scene."""
        return inspect_scene(store, source, allow_no_crs=allow_no_crs)

    def plan(
        self,
        store: ObjectStore,
        source: Source,
        dataset_id: str,
        settings: PlanSettings,
        profile: RasterProfile,
        hub_token: str | None,
    ) -> Plan:
        """Replace every default and `auto` in the settings by its actual value, and return the plan."""
        return make_plan(store, source, dataset_id, settings, profile=profile, hub_token=hub_token)

    def prepare(self, store: ObjectStore, plan: Plan) -> None:
        """Write the plan into the store. See the function `prepare` of this module."""
        prepare(store, plan)

    def embed(self, store: ObjectStore, plan: Plan, job: EmbeddingJob, progress: Progress) -> Sequence[Shard]:
        """Compute the missing shards, and return all shards of the dataset."""
        return _embed_in_threads(store, plan, job, progress)

    def commit(self, store: ObjectStore, plan: Plan, shards: Sequence[Shard], lease: Lease) -> Manifest:
        """Write the manifest, so that the shards become a dataset."""
        return commit(store, plan, shards, lease)

    def check_quality(self, store: ObjectStore, manifest: Manifest, thresholds: QaThresholds) -> QaReport:
        """Measure the dataset, and write the quality report."""
        with collector_paused():  # DuckDB and matplotlib take long to import.
            from rasterembed.qa.run import run_qa

        return run_qa(store, manifest, thresholds)

    def judge_quality(self, store: ObjectStore, manifest: Manifest, thresholds: QaThresholds) -> QaReport:
        """Measure the dataset, and write nothing."""
        from rasterembed.qa.run import judge_dataset  # DuckDB takes long to import.

        return judge_dataset(store, manifest, thresholds)

    def index_vectors(self, store: ObjectStore, manifest: Manifest, options: VectorIndexOptions) -> None:
        """Build the vector index, if the options ask for one."""
        from rasterembed.search.index.building import build_vector_index  # DuckDB takes long to import.
        from rasterembed.search.vector_files import VectorFiles

        self.on_indexed(build_vector_index(VectorFiles.of_dataset(Dataset(store, manifest)), options))

    def on_indexed(self, result: BuildResult) -> None:
        """Report the outcome for the vector index. This class reports nothing."""

    def show_progress(self, plan: Plan, progress: Progress) -> AbstractContextManager[object]:
        """Return a context manager that shows the progress while shards are computed. This class shows nothing."""
        return nullcontext()

    def on_end(self, store: ObjectStore, result: EmbedResult) -> None:
        """Report the end of a run. This method is also called if the dataset does not pass its quality checks."""


@known_parameters
def embed_raster(
    store: ObjectStore,
    raster: str | os.PathLike[str] | Mapping[str, str],
    options: EmbedOptions = EmbedOptions(),
    *,
    steps: Steps | None = None,
    hub_token: str | None = None,
    run_id: str | None = None,
) -> EmbedResult:
    """Embed a raster, check the result, and write a dataset that can be searched.

    Complete shards are never computed again. If the process is killed at any point, call the function again: the work
    continues where it stopped. If the dataset is complete already, only its vector index is brought in line with
    `options.search`. With `auto`, a dataset with fewer rows than `index_min_rows` keeps its index, if it has one.

    Args:
        store: store of the new dataset. The store's credentials are also used to read a raster on S3.
        raster: a path or s3://bucket/key of a raster or of a STAC Item, or a mapping of channels to files, such as
            `{"red": "B04.tif", "green": "B03.tif", "blue": "B02.tif"}`.
        options: all options.
        steps: how the steps run. By default, they are plain calls in this process.
        hub_token: access token for gated weights.
        run_id: name of the run in receipts and in the lease. The default name is random.

    Returns:
        The plan, the dataset's manifest in its final state, and the quality report.

    Raises:
        QaError: if the dataset does not pass its quality checks. The dataset then exists in state `failed_qa`.
        RasterEmbedError: for every other error that a person can correct. The text is one line.

    Example:
        >>> from rasterembed import EmbedOptions, ObjectStore, embed_raster  # doctest: +SKIP
        >>> result = embed_raster(ObjectStore(root="embeddings"), "scene.tif")  # doctest: +SKIP
        >>> result.manifest.state  # doctest: +SKIP
        'ready'
    """
    check_type(store, ObjectStore, "store", 'an ObjectStore, such as ObjectStore(root="embeddings")')
    check_type(options, EmbedOptions, "options", 'EmbedOptions, such as EmbedOptions(dataset_id="scene")')
    raster = os.fspath(raster) if isinstance(raster, os.PathLike) else raster
    if not isinstance(raster, Mapping):
        check_type(raster, str, "raster", "a path, the text s3://bucket/key, or a mapping of channels to files")
    steps = steps or Steps()
    run_id = run_id or uuid.uuid4().hex
    if options.dataset_id is not None:
        check_dataset_id(options.dataset_id)
    with told_when_interrupted(lambda: "nothing was written yet"):
        plan = _plan(store, raster, options, steps, hub_token)
    store = store.allowing(*plan.rasters)
    with told_when_interrupted(lambda: what_stands(store, plan)):
        return _bring_to_end(store, plan, options, steps, hub_token, run_id)


def _plan(store: ObjectStore, raster: Scene, options: EmbedOptions, steps: Steps, hub_token: str | None) -> Plan:
    """Look at the raster and the model, and return the plan of the dataset."""
    source = steps.register(store, raster, options.assets)
    profile = steps.inspect(store, source, allow_no_crs=options.selection.allow_no_crs)
    dataset_id = options.dataset_id or choose_dataset_id(store, source.uri, *source.other_files)
    _check_no_member(store, dataset_id, source)
    plan = steps.plan(store, source, dataset_id, options, profile, hub_token)
    doubt = doubtful_normalisation(options.model, plan.model)
    if doubt is not None:
        steps.on_warning(doubt)
    requested = PlanSettings(**{name: getattr(options, name) for name in PlanSettings.model_fields})
    return plan.model_copy(update={"requested": requested})


def _bring_to_end(
    store: ObjectStore, plan: Plan, options: EmbedOptions, steps: Steps, hub_token: str | None, run_id: str
) -> EmbedResult:
    """Run the steps that are missing until the dataset is complete."""
    result = _complete(store, plan, options)
    if result is None:
        check_replacement(store, plan)
    if result is None or not plan.is_stored(store) or _is_index_due(store, plan, result.manifest, options):
        wait_s = options.execution.lease_wait
        with hold_lease(store, plan.layout, run_id, wait_s=wait_s, on_wait=steps.on_wait) as lease:
            # Another run may have completed the dataset while this one waited.
            result = _complete(store, plan, options)
            if result is None:
                result = _carry_out(store, plan, options, steps, lease, hub_token)
            else:
                if not plan.is_stored(store):  # The dataset is complete, but the plan is missing. A search needs it.
                    plan.write(store)
                if _is_index_due(store, plan, result.manifest, options):
                    steps.index_vectors(store, result.manifest, options.search)
    if result.manifest.rows == 0:
        skipped = [skipped_positions(store, plan, number) for number in range(plan.sharding.count)]
        steps.on_warning(why_nothing_was_embedded(plan, skipped))
    steps.on_end(store, result)
    if result.report is not None:
        result.report.check(store)
    return result


def _check_no_member(store: ObjectStore, dataset_id: str, source: Source) -> None:
    """Refuse the dataset of a scene in a collection. Only a run over the collection may write it.

    Raises:
        UsageError: if the store has a collection that the id belongs to, or if a new collection would use the id for
            this raster.
    """
    if MEMBER_MARK not in dataset_id:
        return
    collection_id = collection_of(dataset_id) or ""
    layout = collection_of_member(store, dataset_id)
    if layout is not None or _is_member_of(collection_id, dataset_id, source):
        raise UsageError(
            f"dataset id {dataset_id!r} belongs to collection {collection_id!r}: embed the scene with the collection "
            f"({store_command(store, f'collection embed SCENES --collection {collection_id}')}), "
            "or choose another dataset id"
        )


def _is_member_of(collection_id: str, dataset_id: str, source: Source) -> bool:
    try:
        return member_id(collection_id, source.uri) == dataset_id
    except UsageError:  # The first part of the id is not the id of a collection.
        return False


_DECLARE_VALID = "if its pixels do hold data, declare which are valid (`nodata`, `mask` or `ignore_alpha`)"


def why_nothing_was_embedded(plan: Plan, skipped: Iterable[SkippedTiles]) -> str:
    """Return one line about a complete dataset without vectors: why its tiles were skipped, and what to do.

    Args:
        plan: plan of the dataset.
        skipped: the skipped tiles of each shard.
    """
    counts: Counter[str] = Counter()
    for positions in skipped:
        counts.update({reason: len(tiles) for reason, tiles in positions.items()})
    reasons = reasons_text(counts, plan.selection.min_valid_fraction)
    advice = {
        SkipReason.NO_VALID_PIXEL: _DECLARE_VALID,
        SkipReason.LOW_VALID_FRACTION: _DECLARE_VALID,
        SkipReason.OFF_EARTH: "check the CRS and the position of the raster, and the `size` of a tile",
        SkipReason.UNDECODABLE: "the file may be damaged: get it again",
    }
    texts = dict.fromkeys(text for reason, text in advice.items() if reason in counts)
    return f"{plan.source.uri}: every tile was skipped ({reasons}), so there is nothing to search: {'; '.join(texts)}"


def _mostly_padding(plan: Plan) -> str | None:
    """Return a warning if the tiles are far larger than the raster, so that they show little but padding."""
    size, profile = plan.sharding.grid.size, plan.profile
    if size < _PADDED * max(profile.width, profile.height):
        return None
    share = profile.width * profile.height / size**2
    return (
        f"the raster has {profile.width}x{profile.height} px, and a tile has {size}x{size} px: {1 - share:.1%} of a "
        "tile is padding: use a smaller `size`"
    )


def _much_enlarged(plan: Plan) -> str | None:
    """Return a warning if the pixels of a warped grid are far smaller than those of the raster."""
    grid, raster = plan.profile, plan.profile.original
    times = math.sqrt(grid.width * grid.height / (raster.width * raster.height))
    if times < _ENLARGED:
        return None
    return (
        f"the raster has {raster.width}x{raster.height} px, and the grid {grid.width}x{grid.height} px: a pixel of the "
        f"raster becomes about {times:.0f} x {times:.0f} px, so a tile shows little: use a larger `resolution`"
    )


def _complete(store: ObjectStore, plan: Plan, options: EmbedOptions) -> EmbedResult | None:
    """Return the result if the dataset in the store is complete, else None."""
    states: tuple[State, ...] = ("ready",) if options.quality_checks else ("ready", "embedded")
    manifest = find_complete(store, plan, replace=options.replace, states=states)
    return None if manifest is None else EmbedResult(plan, manifest, None)


def _is_index_due(store: ObjectStore, plan: Plan, manifest: Manifest, options: EmbedOptions) -> bool:
    """Return whether a run must look at the vector index of a complete dataset.

    With `auto`, a small dataset keeps the index that an earlier run with `always` has built. It may be damaged.
    """
    if manifest.state != "ready":
        return False
    wanted = options.search.index != "auto" or manifest.rows >= options.search.index_min_rows
    return wanted or store.read(plan.layout.vector_index_info, 1) is not None


def _carry_out(
    store: ObjectStore, plan: Plan, options: EmbedOptions, steps: Steps, lease: Lease, hub_token: str | None
) -> EmbedResult:
    """Run the steps that follow the plan. The caller holds the lease."""
    warnings = [_mostly_padding(plan), _much_enlarged(plan), costly_input(plan.model, plan.sharding.grid.size)]
    if options.radiometry.is_given:
        doubt = doubtful_stretch(store, plan.source.uri, plan.profile.original, plan.radiometry)
        warnings.append(None if doubt is None else doubt.text)
    for warning in filter(None, warnings):
        steps.on_warning(warning)
    for warning in filter(None, (_forget_damaged_dataset(store, plan), _unfinished_with_other_settings(store, plan))):
        steps.on_warning(warning)
    steps.prepare(store, plan)
    written = count_written_shards(store, plan)
    if written:
        steps.on_continue(f"continuing: {written_text(written, plan)} already")
    progress = Progress(plan.sharding.tile_count)
    lease.on_lost = progress.stop.set
    job = EmbeddingJob(options.execution, resolve_device(options.model.device), hub_token, lease.run_id)
    started = time.monotonic()
    try:
        with steps.show_progress(plan, progress):
            shards = steps.embed(store, plan, job, progress)
    except (Cancelled, ObjectMissingError):
        # Another run may have taken the dataset over, and caused this error. `check` then raises LeaseLostError.
        lease.check()
        raise
    seconds = time.monotonic() - started
    manifest = steps.commit(store, plan, shards, lease)
    if not options.quality_checks:
        return EmbedResult(plan, manifest, None, seconds, progress.computed)
    report = steps.check_quality(store, manifest, options.qa)
    if report.passed:
        steps.index_vectors(store, manifest, options.search)
    state: State = "ready" if report.passed else "failed_qa"
    manifest = set_state(store, manifest, state, report.reason)
    return EmbedResult(plan, manifest, report, seconds, progress.computed)


@known_parameters
def check_dataset(
    store: ObjectStore,
    dataset_id: str,
    thresholds: QaThresholds = QaThresholds(),
    *,
    dry_run: bool = False,
    steps: Steps | None = None,
    run_id: str | None = None,
) -> QaReport:
    """Check the quality of an existing dataset, write the report, and set the dataset's state.

    With `dry_run`, nothing is written: the dataset keeps its state and its report. Use it to try thresholds.

    If the dataset is a scene of collections, their catalogues and tables are brought up to date. The catalogues of all
    collections are read, to find those that a dataset joined.

    Args:
        store: store of the dataset. The store's credentials are also used to read the source raster.
        dataset_id: name of the dataset.
        thresholds: bounds that the dataset must keep.
        dry_run: only return the report.
        steps: how the step runs. By default, it is a plain call in this process.
        run_id: name of the run in the lease. The default name is random.

    Returns:
        The report. Without `dry_run`, the new state is `ready` if the dataset passed, else `failed_qa`.

    Raises:
        UsageError: if there is no such dataset.
        LeaseHeldError: if another run is still writing the dataset or its collection.
    """
    steps = steps or Steps()
    dataset = Dataset.open(store, dataset_id, states=ALL_STATES)
    if dry_run:
        return steps.judge_quality(store, dataset.manifest, thresholds)
    collection, name = collection_of_member(store, dataset_id), run_id or uuid.uuid4().hex
    layout = collection or dataset.layout
    with (
        told_when_interrupted(lambda: _state_of(store, dataset_id)),
        hold_lease(store, layout, name, wait_s=DEAD_RUN_S, on_wait=steps.on_wait) as lease,
    ):
        manifest = Dataset.open(store, dataset_id, states=ALL_STATES).manifest
        report = steps.check_quality(store, manifest, thresholds)
        lease.check()
        state: State = "ready" if report.passed else "failed_qa"
        manifest = set_state(store, manifest, state, report.reason)
        if collection is not None:
            record_check(store, collection, lease, manifest)
    if collection is None:
        _record_where_it_joined(store, dataset_id, name, steps)
    return report


def _record_where_it_joined(store: ObjectStore, dataset_id: str, run: str, steps: Steps) -> None:
    """Write the state of a dataset into the collections that it joined."""
    for joined in collections_with(store, dataset_id):
        with hold_lease(store, joined.layout, run, wait_s=DEAD_RUN_S, on_wait=steps.on_wait) as lease:
            manifest = Dataset.open(store, dataset_id, states=ALL_STATES).manifest
            record_check(store, joined.layout, lease, manifest)


def _state_of(store: ObjectStore, dataset_id: str) -> str:
    """Return the state of a dataset whose quality checks were interrupted, for people."""
    manifest = Dataset.open(store, dataset_id, states=ALL_STATES).manifest
    return f"dataset {dataset_id!r} is in state {manifest.state}"


def prepare(store: ObjectStore, plan: Plan) -> None:
    """Write the plan and, for a new dataset, the tile index. Delete the unfinished files of a killed run.

    A dataset that is being replaced keeps its old tile index until `commit` writes the new tile index.
    """
    for key in (plan.layout.shard(plan.fingerprint, 0), plan.layout.tile_index, plan.layout.manifest):
        store.clear_scratch(folder_of(key))
    plan.write(store)
    if store.read(plan.layout.manifest) is None:
        write_tile_index(store, plan)


def _forget_damaged_dataset(store: ObjectStore, plan: Plan) -> str | None:
    """If shards are missing or differ from the manifest, make the dataset unfinished. The run then computes them.

    A new manifest with the digest of a damaged shard would hide the damage from everybody. The damaged shards
    are deleted before the manifest: if the run is killed in between, the next one does the same.

    Returns:
        A warning, or None if all shards are right, or if the store has no manifest of this plan that can be read.

    Raises:
        StoreError: if the store refuses or does not answer.
    """
    try:
        manifest = read_manifest(store, plan.dataset_id)
    except StoreError:
        raise
    except DataError:  # The run replaces it.
        return None
    if manifest is None or manifest.fingerprint != plan.fingerprint:
        return None

    def is_right(listed: Shard) -> bool:
        found = find_shard(store, plan, listed.number)
        return found is not None and found.sha256 == listed.sha256

    right = list(map_threaded(is_right, manifest.shards))
    wrong = [listed.path for listed, is_same in zip(manifest.shards, right, strict=True) if not is_same]
    if not wrong:
        return None
    for path in wrong:
        store.delete(path)
    store.delete(plan.layout.manifest)
    return (
        f"{part_of(len(wrong), len(right), 'shard')} missing, or not as the manifest says, and "
        f"{agreeing(len(wrong), 'is', 'are')} computed again: the first one is {name_of(wrong[0])}"
    )


def _unfinished_with_other_settings(store: ObjectStore, plan: Plan) -> str | None:
    """Return a warning if an unfinished run wrote shards of this dataset with other settings, else None."""
    found = find_unfinished(store, plan.dataset_id)
    if found is None or found.plan is None or found.plan.fingerprint == plan.fingerprint or not found.written:
        return None
    wrote = f"{found.written:,} of {counted(found.plan.sharding.count, 'shard')}"
    differences = without_consequences(entry_differences(found.plan.configuration(), plan.configuration()))
    changes = differences_text(differences, "in that run", "in this one")
    # A plan of version 0.1 does not have the options of its run, so the command does not have them either.
    run = f"`{found.continue_with}`" + ("" if found.plan.requested is not None else " with the options of that run")
    return (
        f"an earlier run of dataset {plan.dataset_id!r} with other settings ({changes}) wrote {wrote}, and this "
        f"run deletes them when it is complete: to keep them, stop it and run {run}"
    )


def _embed_in_threads(store: ObjectStore, plan: Plan, job: EmbeddingJob, progress: Progress) -> list[Shard]:
    """Compute all shards in this process, several at a time. The first failure stops all other shards."""
    return in_threads(
        lambda number: embed_shard(store, plan, number, job, progress),
        plan,
        job.shard_threads,
        progress.stop,
    )
