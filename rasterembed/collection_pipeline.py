"""The pipeline of a collection: the one sequence of steps that turns a listing of scenes into a collection.

Each scene becomes a dataset, by the sequence of `rasterembed.scene_pipeline`. A notebook, the command and the Prefect
flow all run `embed_collection`. They differ in the `CollectionSteps` that they pass.
"""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from pydantic import Field

from rasterembed.antimeridian import crossing_note
from rasterembed.collection.catalogue import Catalogue, read_catalogue
from rasterembed.collection.collection import Collection, check_configuration, find_collection
from rasterembed.collection.comparison import Comparison, compare
from rasterembed.collection.configuration import CollectionConfiguration, resolve_configuration
from rasterembed.collection.discovery import discover, file_exists
from rasterembed.collection.failures import group_texts
from rasterembed.collection.fixed_settings import in_a_new_collection, settings_are_fixed
from rasterembed.collection.found_scene import FoundScene, Listing
from rasterembed.collection.lattice import collection_lattice
from rasterembed.collection.members import find_members, member_id
from rasterembed.collection.scene_row import SceneRow, SceneState, failure_text
from rasterembed.collection.shared_texts import datasets_are_lost
from rasterembed.collection.stac_api import MOST_EMPTY_PAGES
from rasterembed.collection.stac_collection import CollectionState
from rasterembed.collection.stac_search import StacSearch
from rasterembed.collection.table_writing import is_table_due, write_table
from rasterembed.collection.verifying import find_lost
from rasterembed.collection_writer import CollectionWriter
from rasterembed.dataset.deletion import delete_dataset, has_objects
from rasterembed.dataset.embedding import Execution
from rasterembed.dataset.plan import PlanSettings
from rasterembed.errors import DataError, check_type, told_when_interrupted
from rasterembed.escape import escape_terminal
from rasterembed.known_parameters import known_parameters
from rasterembed.model.choice import Device
from rasterembed.model.cost import costly_input
from rasterembed.model.normalisation import doubtful_normalisation
from rasterembed.number_text import counted, number_text, part_of
from rasterembed.options_model import OptionsModel
from rasterembed.pipeline import EmbedOptions
from rasterembed.qa.collection_report import CollectionReport, warning_of_run
from rasterembed.qa.collection_thresholds import CollectionThresholds
from rasterembed.qa.other_verdicts import find_other_verdicts
from rasterembed.qa.thresholds import QaThresholds
from rasterembed.scene_pipeline import SceneJob, SceneMessages, embed_scenes, estimated_tiles
from rasterembed.search.index.table_index import build_table_index
from rasterembed.search.index_options import TableIndexOptions, VectorIndexOptions
from rasterembed.store.layout import CollectionLayout
from rasterembed.store.lease import Lease, hold_lease
from rasterembed.store.object_store import ObjectStore
from rasterembed.store.store_command import store_command

if TYPE_CHECKING:
    from rasterembed.search.index.building import BuildResult


class TooManyFailedError(DataError):
    """More scenes failed than `max_failed_fraction` allows. The text has the reasons.

    Args:
        counted: the text without the reasons, for people who are shown the reasons in another way.
        reasons: one line for each reason.
    """

    def __init__(self, counted: str, reasons: Sequence[str]) -> None:
        super().__init__(counted, reasons)
        self.counted, self._reasons = counted, reasons

    def __str__(self) -> str:
        """Return the text in one line, with the reasons."""
        return escape_terminal(f"{self.counted}; failed: {'; '.join(self._reasons)}")


class CollectionOptions(OptionsModel):
    """All options for embedding a collection."""

    settings: PlanSettings | None = None
    """Settings of all scenes. By default those of the collection, or the defaults for a new collection."""
    assets: tuple[str, ...] = Field(
        default=(),
        description="Keys or common names of the assets to use, if the scenes are STAC Items. By default those of the "
        "run that made the collection, or else the asset visual, else red, green and blue, else the only data asset.",
    )
    search: StacSearch | None = None
    """Which Items of a STAC API are the scenes. Only if the address of the scenes is that of a STAC API."""
    execution: Execution = Execution()
    """Settings for speed and memory. They change the vectors only by rounding."""
    qa: QaThresholds = QaThresholds()
    """Bounds that each scene must keep to become `ready`."""
    collection_qa: CollectionThresholds = CollectionThresholds()
    """Bounds that the collection as a whole must keep to pass its quality checks."""
    quality_checks: bool = Field(
        default=True,
        description="Check the quality of each scene, and of the collection as a whole. Without these checks the "
        "state of the scenes stays `embedded`, and they are not searched.",
    )
    max_failed_fraction: float = Field(
        default=0.1,
        ge=0.0,
        le=1.0,
        description="Largest share of failed scenes with which the run succeeds. The other scenes are embedded in any "
        "case.",
    )
    table: bool = Field(
        default=True,
        description="Write the table: the vectors of all ready scenes in the order of a Hilbert curve. Searches of the "
        "collection need it. Only files with scenes that are new, changed or gone are written again.",
    )
    vector_index: TableIndexOptions = TableIndexOptions()
    """Whether a vector index of the table is built."""
    prune: bool = Field(
        default=False,
        description="Leave scenes out that are gone, and delete their datasets. A dataset that was not made for the "
        "collection is not deleted.",
    )


@dataclass(frozen=True)
class CollectionResult:
    """The result of `embed_collection`."""

    collection: Collection
    """The collection after the run."""
    listing: Listing
    """The scenes that the run was given."""
    comparison: Comparison
    """The difference between the listing and the catalogue before the run."""
    failed: tuple[SceneRow, ...]
    """Scenes of the listing that could not be embedded, with their reasons."""
    pruned: tuple[str, ...]
    """Ids of the datasets that were deleted, because their scenes are gone."""
    lost: tuple[str, ...]
    """Ids of datasets that the catalogue has and the store has not. Only a run without a scene to embed looks for them,
    and only for datasets that were made for the collection."""
    report: CollectionReport | None
    """Quality report of the collection as a whole. None if the quality checks were turned off."""
    settings_fixed: bool
    """Whether the collection refuses other settings from now on."""
    most_failed: float
    """The option `max_failed_fraction` of the run."""

    @property
    def too_many_failed(self) -> bool:
        """Whether more scenes failed than `max_failed_fraction` allows."""
        return len(self.failed) > self.most_failed * len(self.listing.scenes)

    def failures(self) -> list[str]:
        """Return one line for each reason for which scenes failed, with the number of scenes and an example."""
        return group_texts(self.failed, self.why_failed)

    def __repr__(self) -> str:
        """Return one short line."""
        return (
            f"CollectionResult: {self.collection!r}; {counted(len(self.listing.scenes), 'scene')} listed, "
            f"{self.comparison.to_embed_count} to embed, {len(self.failed)} failed, {len(self.pruned)} pruned"
        )

    def why_failed(self, row: SceneRow) -> str:
        """Return address and reason of a failed scene in one line. It says which advice needs a new collection."""
        return in_a_new_collection(failure_text(row), fixed=self.settings_fixed)


@dataclass
class _Work:
    """The scenes that a run has worked on so far."""

    layout: CollectionLayout
    scenes: int | None = None
    """Number of scenes to embed. None if it is not known yet."""
    states: Counter[SceneState] = field(default_factory=Counter)
    """Number of scenes that are done, by their state."""

    def what_stands(self) -> str:
        """Return in one line how much of the run is done, for a person who interrupted it."""
        if self.scenes is None:
            return "nothing was written yet"
        failed = self.states[SceneState.FAILED]
        of_them = f", and {failed:,} of them failed" if failed else ""
        ended = self.states.total()
        done = f"{part_of(ended, self.scenes, 'scene', 'of this run is', 'of this run are')} done"
        return f"{self.layout.owner} is unfinished: {done}{of_them}"


class CollectionSteps(SceneMessages):
    """The steps of a collection as plain function calls, with hooks for progress and messages.

    A subclass can run the steps in another way, and never changes their results.
    """

    def discover(
        self, store: ObjectStore, scenes: str, assets: tuple[str, ...], search: StacSearch | None = None
    ) -> Listing:
        """Find the scenes. See `rasterembed.collection.discovery.discover`."""
        return discover(store, scenes, assets, search)

    def embed_scenes(
        self, store: ObjectStore, job: SceneJob, scenes: Sequence[FoundScene], lease: Lease, hub_token: str | None
    ) -> Iterator[SceneRow]:
        """Embed scenes, and yield the row of each scene when it is complete, in any order.

        A subclass may let other processes do a part of the work. See `rasterembed.scene_pipeline.embed_scenes`.

        Args:
            store: store of the collection.
            job: what the scenes have in common.
            scenes: the scenes that are new or changed, or that failed before.
            lease: the lease on the collection. It is checked before each dataset is committed.
            hub_token: access token for gated weights.
        """
        return embed_scenes(store, job, scenes, lease, hub_token=hub_token, messages=self)

    def check_quality(
        self,
        store: ObjectStore,
        layout: CollectionLayout,
        configuration: CollectionConfiguration,
        catalogue: Catalogue,
        thresholds: CollectionThresholds,
        *,
        dry_run: bool = False,
    ) -> CollectionReport:
        """Measure the collection as a whole, and write the quality report. With `dry_run`, write nothing."""
        # pyproj takes long to import.
        from rasterembed.qa.collection_run import check_collection_quality, judge_collection

        check = judge_collection if dry_run else check_collection_quality
        return check(store, layout, configuration, catalogue, thresholds)

    def on_compared(self, comparison: Comparison, listing: Listing) -> None:
        """Report what the run will do. This class reports nothing."""

    def on_scene(self, row: SceneRow) -> None:
        """Report that a scene was embedded or failed. This class reports nothing."""

    def on_indexed(self, result: BuildResult) -> None:
        """Report the outcome for the vector index of the table. This class reports nothing."""

    def on_end(self, result: CollectionResult) -> None:
        """Report the end of a run. This method is also called if too many scenes failed. This class reports nothing."""


@known_parameters
def embed_collection(
    store: ObjectStore,
    collection_id: str,
    scenes: str,
    options: CollectionOptions = CollectionOptions(),
    *,
    steps: CollectionSteps | None = None,
    hub_token: str | None = None,
    run_id: str | None = None,
) -> CollectionResult:
    """Embed the new, changed and failed scenes at an address, and bring the catalogue up to date.

    A scene that fails is recorded with its reason, and does not stop the others. Unchanged scenes are not read. If the
    process is killed at any point, call the function again: the result is the same as without the interruption.

    Args:
        store: store of the collection. The store's credentials are also used to read scenes on S3.
        collection_id: name of the collection. A collection that does not exist is made.
        scenes: address of the scenes. See `rasterembed.collection.discovery.discover`.
        options: all options.
        steps: how the steps run. By default, they are plain calls in this process.
        hub_token: access token for gated weights.
        run_id: name of the run in receipts and leases. The default name is random.

    Returns:
        The collection, and what the run found and did.

    Raises:
        ConfigurationChangedError: if the collection exists with another configuration, and has vectors.
        LeaseHeldError: if another run is writing the collection.
        TooManyFailedError: if more scenes failed than `max_failed_fraction` allows. The catalogue is then up to date.
        DataError: if nothing was found.
        StoreUnavailableError: if the store does not answer.

    Example:
        >>> result = embed_collection(store, "survey-2026", "s3://rasters/2026/")  # doctest: +SKIP
        >>> result.collection.catalogue.count  # doctest: +SKIP
        1000
    """
    check_type(store, ObjectStore, "store", 'an ObjectStore, such as ObjectStore(root="embeddings")')
    check_type(scenes, str, "scenes", "a folder, a pattern, a list or a STAC document, as text")
    check_type(options, CollectionOptions, "options", "CollectionOptions, such as CollectionOptions(prune=True)")
    layout = CollectionLayout(collection_id)
    steps = steps or CollectionSteps()
    for warning in _doubts_of_search(options.search):
        steps.on_warning(warning)
    options = _with_assets(store, collection_id, options)
    listing = steps.discover(store, scenes, options.assets, options.search)
    for warning in _doubts_of_listing(listing):
        steps.on_warning(warning)
    name, wait_s = run_id or uuid.uuid4().hex, options.execution.lease_wait
    work = _Work(layout)
    with (
        told_when_interrupted(work.what_stands),
        hold_lease(store, layout, name, wait_s=wait_s, on_wait=steps.on_wait) as lease,
    ):
        result = _Run(store, layout, listing, options, steps, lease, hub_token, work).result()
    steps.on_end(result)
    _check_failed(result)
    return result


@dataclass(frozen=True)
class _Run:
    """A run of `embed_collection` that holds the lease on its collection. Its attributes are those of the function."""

    store: ObjectStore
    layout: CollectionLayout
    listing: Listing
    options: CollectionOptions
    steps: CollectionSteps
    lease: Lease
    hub_token: str | None = field(repr=False)
    work: _Work

    def result(self) -> CollectionResult:
        """Bring the collection up to date, and return what the run found and did."""
        store, layout, steps, options = self.store, self.layout, self.steps, self.options
        existing = find_collection(store, layout.collection_id)
        writer = self._open_writer(existing)
        comparison = compare(
            writer.catalogue, self.listing, partial(file_exists, store), self._judged_otherwise(writer.catalogue)
        )
        if existing is not None and existing.state is CollectionState.EMBEDDING:
            complete = _count_complete(store, layout.collection_id, comparison)
            if complete:
                scenes = len(self.listing.scenes)
                steps.on_continue(f"continuing: {part_of(complete, scenes, 'scene')} complete already")
        steps.on_compared(comparison, self.listing)
        self._embed(writer, comparison)
        pruned = comparison.gone if options.prune else ()
        _delete_members(store, layout, pruned, self.lease)
        writer.finish(comparison, self.listing, pruned)
        lost = () if comparison.to_embed_count else find_lost(store, layout.collection_id, writer.catalogue)
        if lost:
            steps.on_warning(datasets_are_lost(layout.collection_id, lost))
        report = self._check_quality(writer) if options.quality_checks else None
        if options.table:
            self._write_table(writer)
        writer.ready()
        return CollectionResult(
            collection=Collection(store, layout.collection_id, writer.configuration, CollectionState.READY),
            listing=self.listing,
            comparison=comparison,
            failed=_failed(writer.catalogue, self.listing),
            pruned=pruned,
            lost=lost,
            report=report,
            settings_fixed=settings_are_fixed(store, layout, writer.catalogue),
            most_failed=options.max_failed_fraction,
        )

    def _open_writer(self, existing: Collection | None) -> CollectionWriter:
        """Return the writer of the collection, with the configuration of this run."""
        stored = read_catalogue(self.store, self.layout)
        configuration, replaced = _configuration(
            self.store, self.layout, existing, stored, self.options, self.hub_token
        )
        writer = CollectionWriter(self.store, self.layout, configuration, self.lease, stored)
        writer.clear_unfinished()
        if replaced:
            writer.rewrite()
            self.steps.on_warning(
                f"{self.layout.owner} has no vectors yet, so the settings of this run replace its settings"
            )
        return writer

    def _judged_otherwise(self, catalogue: Catalogue) -> set[str]:
        """Return the addresses of the scenes that get another verdict with the bounds of this run."""
        if not self.options.quality_checks:
            return set()
        return set(find_other_verdicts(self.store, self.layout.collection_id, catalogue, self.options.qa))

    def _embed(self, writer: CollectionWriter, comparison: Comparison) -> None:
        """Embed the scenes that need it, and give their rows to the writer."""
        store, options, configuration = self.store, self.options, writer.configuration
        if comparison.to_embed_count:
            writer.begin(self.listing.address)
        self.work.scenes = comparison.to_embed_count
        job = SceneJob(
            collection_id=self.layout.collection_id,
            listing=self.listing.address,
            options=_scene_options(configuration, options),
            lattice=collection_lattice(store, configuration, writer.catalogue, comparison.to_embed, options.assets),
            model=configuration.model,
            tiles=estimated_tiles(self.listing.scenes, configuration.grid.step),
        )
        for warning in _doubts_of_settings(options.settings, configuration, comparison):
            self.steps.on_warning(warning)
        with writer.kept_on_error():
            for row in self.steps.embed_scenes(store, job, tuple(comparison.to_embed), self.lease, self.hub_token):
                writer.add(row)
                self.work.states[row.state] += 1
                self.steps.on_scene(row)

    def _check_quality(self, writer: CollectionWriter) -> CollectionReport:
        """Check the quality of the collection as a whole. A breach is a warning."""
        self.lease.check()
        report = self.steps.check_quality(
            self.store, self.layout, writer.configuration, writer.catalogue, self.options.collection_qa
        )
        breaches = warning_of_run(report, self.store)
        if breaches is not None:  # Each scene has a state of its own, so this is no reason to fail.
            self.steps.on_warning(breaches)
        return report

    def _write_table(self, writer: CollectionWriter) -> None:
        """Write the table and its vector index, if the collection has ready scenes or a table."""
        store, layout, configuration = self.store, self.layout, writer.configuration
        if not is_table_due(store, layout, writer.catalogue):
            return
        table = write_table(store, layout, configuration, writer.catalogue, self.lease.check)
        self.lease.check()
        written = Collection(store, layout.collection_id, configuration, CollectionState.EMBEDDING)
        self.steps.on_indexed(build_table_index(written, table, self.options.vector_index))


def _count_complete(store: ObjectStore, collection_id: str, comparison: Comparison) -> int:
    """Return the number of scenes that an interrupted run of a collection completed.

    A killed run may have completed scenes that the catalogue does not have yet. The store has their datasets.
    """
    complete = len(comparison.unchanged)
    if comparison.new:
        committed = set(find_members(store, collection_id))
        complete += sum(member_id(collection_id, scene.uri) in committed for scene in comparison.new)
    return complete


def _configuration(
    store: ObjectStore,
    layout: CollectionLayout,
    existing: Collection | None,
    stored: Catalogue | None,
    options: CollectionOptions,
    hub_token: str | None,
) -> tuple[CollectionConfiguration, bool]:
    """Return the configuration of the collection, and whether it replaces that of an earlier run.

    For a new collection, the configuration is made from the options. The settings of a collection whose scenes have all
    failed may be the reason why they failed, so other settings replace them.
    """
    if existing is not None and options.settings is None:
        wanted = existing.configuration
    else:
        wanted = resolve_configuration(options.settings or PlanSettings(), hub_token)
    wanted = wanted.model_copy(update={"assets": options.assets})
    if existing is None:
        return wanted, False
    kept = existing.configuration
    differs = (wanted.fingerprint, wanted.assets) != (kept.fingerprint, kept.assets)
    if differs and not settings_are_fixed(store, layout, stored):
        return wanted, True
    check_configuration(existing, wanted)
    return kept, False


def _with_assets(store: ObjectStore, collection_id: str, options: CollectionOptions) -> CollectionOptions:
    """Return the options. If they name no assets, they get the assets of the collection."""
    existing = None if options.assets else find_collection(store, collection_id)
    return options if existing is None else options.model_copy(update={"assets": existing.configuration.assets})


def _scene_options(configuration: CollectionConfiguration, options: CollectionOptions) -> EmbedOptions:
    """Return the options for each scene. The dataset id is still missing."""
    device: Device = "auto" if options.settings is None else options.settings.model.device
    settings = configuration.settings(device)
    return EmbedOptions(
        **{name: getattr(settings, name) for name in PlanSettings.model_fields},
        assets=options.assets,
        execution=options.execution,
        qa=options.qa,
        search=VectorIndexOptions(index="never"),  # A collection is searched as a whole.
        # The dataset belongs to this collection and this scene. Another configuration is an older state of the file.
        replace=True,
        quality_checks=options.quality_checks,
    )


def _doubts_of_search(search: StacSearch | None) -> Iterator[str]:
    """Yield the warnings about a search of a STAC API. They come before the search, which may find a lot."""
    note = "" if search is None or search.box is None else crossing_note(search.box)
    if note:
        yield f"`search`: {note}"


def _doubts_of_listing(listing: Listing) -> Iterator[str]:
    """Yield the warnings about a listing."""
    if listing.ended_early:
        yield (
            f"{listing.address}: the server sent {MOST_EMPTY_PAGES} empty pages in a row and named a next one, so the "
            "search was ended there: scenes may be missing, so no scene is called gone; divide the search by place or "
            "dates to find them"
        )


def _doubts_of_settings(
    settings: PlanSettings | None, configuration: CollectionConfiguration, comparison: Comparison
) -> Iterator[str]:
    """Yield the warnings about the settings that a person gave. If `settings` is None, the collection keeps its own."""
    if settings is None:
        return
    doubt = doubtful_normalisation(settings.model, configuration.model)
    costly = costly_input(configuration.model, configuration.grid.size) if comparison.to_embed_count else None
    yield from filter(None, (doubt, costly))


def _delete_members(store: ObjectStore, layout: CollectionLayout, gone: Sequence[str], lease: Lease) -> None:
    """Delete the datasets of scenes that are gone. Those that were embedded before the collection was made stay."""
    for dataset_id in gone:
        lease.check_often()
        # The scene may have failed before its dataset began, or a killed run may have deleted the dataset.
        if dataset_id.startswith(layout.member_prefix) and has_objects(store, dataset_id):
            delete_dataset(store, dataset_id, lease=lease)


def _failed(catalogue: Catalogue, listing: Listing) -> tuple[SceneRow, ...]:
    """Return the rows of the scenes of a listing that failed."""
    listed = {scene.uri for scene in listing.scenes}
    return tuple(row for row in catalogue.filter(states=[SceneState.FAILED]).rows() if row.source in listed)


def _check_failed(result: CollectionResult) -> None:
    """Refuse a run in which too many scenes failed.

    Raises:
        TooManyFailedError: if the share of failed scenes is larger than `max_failed_fraction`.
    """
    if result.too_many_failed:
        failed, listed, collection = len(result.failed), len(result.listing.scenes), result.collection
        known = collection.catalogue.count
        others = "" if known == listed else f" (the collection has {counted(known, 'scene')})"
        raise TooManyFailedError(
            f"{collection.layout.owner}: {failed:,} of {counted(listed, 'scene')} failed{others}, more than "
            f"`max_failed_fraction` {number_text(result.most_failed)} allows: the reasons say what to change, "
            f"in the files or in the options; then run again, which tries only these scenes again; "
            f"{store_command(collection.store, f'collection show {collection.id}')} lists them",
            result.failures(),
        )
