"""The pipeline of a collection: the one sequence of steps that turns a listing of scenes into a collection.

Each scene becomes a dataset, by the sequence of `rasterembed.scene_pipeline`. A notebook, the command and the Prefect
flow all run `embed_collection`. They differ in the `CollectionSteps` that they pass.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pydantic import Field

from rasterembed.collection.catalogue import Catalogue, read_catalogue
from rasterembed.collection.collection import Collection, check_configuration, find_collection
from rasterembed.collection.comparison import Comparison, compare
from rasterembed.collection.configuration import CollectionConfiguration, resolve_configuration
from rasterembed.collection.discovery import discover
from rasterembed.collection.fixed_settings import in_a_new_collection, settings_are_fixed
from rasterembed.collection.found_scene import FoundScene, Listing
from rasterembed.collection.lattice import check_joining, collection_lattice
from rasterembed.collection.members import find_members, member_id
from rasterembed.collection.rebuilding import adopt, catalogue_of_manifests
from rasterembed.collection.removing import RemovedScene, remove_scene
from rasterembed.collection.scene_row import SceneRow, SceneState, failure_text
from rasterembed.collection.stac_api import MOST_EMPTY_PAGES
from rasterembed.collection.stac_collection import CollectionState
from rasterembed.collection.stac_search import StacSearch
from rasterembed.collection.table import TableDescription
from rasterembed.collection.table_writing import write_table
from rasterembed.collection.texts import listings_unknown
from rasterembed.collection_writer import CollectionWriter
from rasterembed.dataset.deletion import delete_dataset
from rasterembed.dataset.embedding import Execution
from rasterembed.dataset.manifest import read_manifest
from rasterembed.dataset.plan import PlanSettings
from rasterembed.errors import DataError, StoreError, check_type
from rasterembed.escape import escape_terminal
from rasterembed.model.choice import Device
from rasterembed.model.cost import costly_input
from rasterembed.model.normalisation import doubtful_normalisation
from rasterembed.number_text import number_text
from rasterembed.options_model import OptionsModel
from rasterembed.pipeline import EmbedOptions
from rasterembed.qa.collection_report import CollectionQaError, CollectionReport
from rasterembed.qa.collection_thresholds import CollectionThresholds
from rasterembed.qa.thresholds import QaThresholds
from rasterembed.scene_pipeline import SceneJob, SceneMessages, embed_scenes, estimated_tiles
from rasterembed.search.index_options import TableIndexOptions, VectorIndexOptions
from rasterembed.store.layout import CollectionLayout, name_of
from rasterembed.store.lease import DEAD_RUN_S, Lease, hold_lease
from rasterembed.store.object_store import ObjectStore

if TYPE_CHECKING:
    from rasterembed.search.index.building import BuildResult


class TooManyFailedError(DataError):
    """More scenes failed than `max_failed_fraction` allows. The text has the reason of the first one.

    Args:
        counted: the text without a reason, for people who were shown all reasons before.
        first: address and reason of the first failed scene.
    """

    def __init__(self, counted: str, first: str) -> None:
        super().__init__(counted, first)
        self.counted, self._first = counted, first

    def __str__(self) -> str:
        """Return the text in one line, with the reason of the first failed scene."""
        return escape_terminal(f"{self.counted}; the first is: {self._first}")


class CollectionOptions(OptionsModel):
    """All options for embedding a collection."""

    settings: PlanSettings | None = None
    """Settings of all scenes. By default those of the collection, or the defaults for a new collection."""
    assets: tuple[str, ...] = Field(
        default=(),
        description="Keys or common names of the assets to use, if the scenes are STAC Items. By default the asset "
        "visual, else red, green and blue, else the only data asset.",
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
    report: CollectionReport | None
    """Quality report of the collection as a whole. None if the quality checks were turned off."""
    settings_fixed: bool
    """Whether the collection refuses other settings from now on."""

    def why_failed(self, row: SceneRow) -> str:
        """Return address and reason of a failed scene in one line. It says which advice needs a new collection."""
        return in_a_new_collection(failure_text(row), fixed=self.settings_fixed)


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
    run_id = run_id or uuid.uuid4().hex
    listing = steps.discover(store, scenes, options.assets, options.search)
    for warning in _doubts_of_listing(listing):
        steps.on_warning(warning)
    wait_s = options.execution.lease_wait
    with hold_lease(store, layout, run_id, wait_s=wait_s, on_wait=steps.on_wait) as lease:
        stored, existing = read_catalogue(store, layout), find_collection(store, collection_id)
        configuration, replaced = _configuration(store, layout, existing, stored, options, hub_token)
        writer = CollectionWriter(store, layout, configuration, lease, stored)
        writer.clear_unfinished()
        if replaced:
            writer.rewrite()
            steps.on_warning(f"{layout.owner} has no vectors yet, so the settings of this run replace its settings")
        comparison = compare(writer.catalogue, listing)
        if existing is not None and existing.state is CollectionState.EMBEDDING:
            complete = _count_complete(store, collection_id, comparison)
            if complete:
                steps.on_continue(f"continuing: {complete:,} of {len(listing.scenes):,} scenes are complete already")
        steps.on_compared(comparison, listing)
        if comparison.to_embed_count:
            writer.begin()
        lattice = collection_lattice(store, configuration, writer.catalogue, comparison.to_embed, options.assets)
        job = SceneJob(
            collection_id=collection_id,
            listing=listing.address,
            options=_scene_options(configuration, options),
            lattice=lattice,
            model=configuration.model,
            tiles=estimated_tiles(listing.scenes, configuration.grid.step),
        )
        for warning in _doubts_of_settings(options.settings, configuration, comparison):
            steps.on_warning(warning)
        with writer.kept_on_error():
            for row in steps.embed_scenes(store, job, tuple(comparison.to_embed), lease, hub_token):
                writer.add(row)
                steps.on_scene(row)
        pruned = comparison.gone if options.prune else ()
        _delete_members(store, layout, pruned, lease)
        writer.finish(comparison, listing, pruned)
        report: CollectionReport | None = None
        if options.quality_checks:
            lease.check()
            report = steps.check_quality(store, layout, configuration, writer.catalogue, options.collection_qa)
            if not report.passed:  # Each scene has a state of its own, so this is no reason to fail.
                steps.on_warning(str(CollectionQaError(report)))
        if options.table and _has_table(store, layout, writer.catalogue):
            table = write_table(store, layout, configuration, writer.catalogue, lease.check)
            lease.check()
            written = Collection(store, collection_id, configuration, CollectionState.EMBEDDING)
            steps.on_indexed(_index_vectors(written, table, options.vector_index))
        writer.ready()
    failed = _failed(writer.catalogue, listing)
    collection = Collection(store, collection_id, configuration, CollectionState.READY)
    fixed = settings_are_fixed(store, layout, writer.catalogue)
    result = CollectionResult(collection, listing, comparison, failed, pruned, report, fixed)
    steps.on_end(result)
    _check_failed(result, options.max_failed_fraction)
    return result


def rebuild_collection(
    store: ObjectStore,
    collection_id: str,
    *,
    datasets: Sequence[str] = (),
    steps: CollectionSteps | None = None,
    run_id: str | None = None,
) -> Collection:
    """Make the catalogue of a collection again, from the manifests of its scenes.

    Use it if the catalogue is lost or damaged. The manifests do not know which scenes failed, and in which listings
    the scenes were found. As long as the old catalogue can be read, its failures and listings stay. Otherwise, a scene
    that failed after its file changed comes back with the vectors of the file's last good state. The next run of
    `embed_collection` tries it again, and finds the listings of all scenes that still exist.

    With `datasets`, datasets that were embedded one by one become scenes of the collection too, also those of version
    0.1. Their files do not change. If the collection does not exist, it is made with the configuration of the first of
    them.

    Args:
        store: store of the collection.
        collection_id: name of the collection.
        datasets: names of datasets, and patterns such as `scene-*`. They must have the configuration of the collection.
            Those of an earlier call stay in the collection as long as its catalogue can be read.
        steps: hooks for messages.
        run_id: name of the run in the lease. The default name is random.

    Raises:
        UsageError: if the store has no collection of this name and no dataset is given; or if it has no dataset of a
            given name.
        ConfigurationChangedError: if a dataset has another configuration than the collection.
        DataError: if the manifest or the plan of a scene cannot be read; if two datasets are of the same raster; or if
            the grid is anchored and a dataset has another CRS or pixel size than the collection.
        LeaseHeldError: if another run is writing the collection.
    """
    check_type(store, ObjectStore, "store", 'an ObjectStore, such as ObjectStore(root="embeddings")')
    layout = CollectionLayout(collection_id)
    if not datasets:
        Collection.open(store, collection_id)  # Refuse an unknown collection before a lease is written for it.
    steps = steps or CollectionSteps()
    name = run_id or uuid.uuid4().hex
    with hold_lease(store, layout, name, wait_s=DEAD_RUN_S, on_wait=steps.on_wait) as lease:
        adopted: tuple[SceneRow, ...] = ()
        existing, old = find_collection(store, collection_id), _readable_catalogue(store, layout)
        if datasets:
            wanted = None if existing is None else existing.configuration
            joining = adopt(store, layout, datasets, wanted, old)
            configuration, adopted = joining.configuration, joining.rows
            if joining.warning is not None:
                steps.on_warning(joining.warning)
        else:
            configuration = Collection.open(store, collection_id).configuration
        if existing is not None and old is None:
            steps.on_warning(listings_unknown(collection_id))
        writer = CollectionWriter(store, layout, configuration, lease, None)
        writer.clear_unfinished()
        catalogue = catalogue_of_manifests(store, layout, adopted, old)
        check_joining(store, configuration, catalogue, [row.id for row in adopted if catalogue.row(row.id) is not None])
        writer.replace(catalogue)
        if _has_table(store, layout, writer.catalogue):
            table = write_table(store, layout, configuration, writer.catalogue, lease.check)
            lease.check()
            _update_index(Collection(store, collection_id, configuration, CollectionState.EMBEDDING), table)
        writer.ready()
    return Collection.open(store, collection_id)


def remove_from_collection(
    collection: Collection, scene: str, *, run_id: str | None = None, on_wait: Callable[[str], None] = print
) -> RemovedScene:
    """Remove a scene from the catalogue, the table and the vector index, and delete its dataset.

    The files of the scene are not touched. An index of the engine `vss` stays stale until the next run, because it can
    only be built again as a whole.

    Args:
        collection: the collection.
        scene: id of the scene's dataset, or address of the scene's file.
        run_id: see `rasterembed.collection.removing.remove_scene`.
        on_wait: see `rasterembed.collection.removing.remove_scene`.

    Raises:
        UsageError: if the collection has no such scene. The text names similar ones.
        LeaseHeldError: if another run is writing the collection or the dataset.
        DataError: if the catalogue or the vectors of another scene cannot be read.
        StoreError: if the store refuses or does not answer.
    """
    return remove_scene(collection, scene, on_table=_update_index, run_id=run_id, on_wait=on_wait)


def check_collection(
    store: ObjectStore,
    collection_id: str,
    thresholds: CollectionThresholds = CollectionThresholds(),
    *,
    dry_run: bool = False,
    steps: CollectionSteps | None = None,
    run_id: str | None = None,
) -> CollectionReport:
    """Check the quality of a collection as a whole, and write the report and the verdict.

    The scenes keep their states: each has quality checks of its own. With `dry_run`, nothing is written.

    Args:
        store: store of the collection.
        collection_id: name of the collection.
        thresholds: bounds that the collection must keep.
        dry_run: only return the report.
        steps: how the step runs. By default, it is a plain call in this process.
        run_id: name of the run in the lease. The default name is random.

    Returns:
        The report. `CollectionReport.check` raises an error if a threshold is breached.

    Raises:
        UsageError: if the store has no collection of this name.
        DataError: if the catalogue cannot be read.
        LeaseHeldError: if another run is still writing the collection.
    """
    steps = steps or CollectionSteps()
    collection = Collection.open(store, collection_id)
    layout, configuration = collection.layout, collection.configuration
    if dry_run:
        return steps.check_quality(store, layout, configuration, collection.catalogue, thresholds, dry_run=True)
    name = run_id or uuid.uuid4().hex
    with hold_lease(store, layout, name, wait_s=DEAD_RUN_S, on_wait=steps.on_wait) as lease:
        collection = Collection.open(store, collection_id)
        writer = CollectionWriter(store, layout, configuration, lease, collection.catalogue)
        writer.clear_unfinished()
        lease.check()
        report = steps.check_quality(store, layout, configuration, writer.catalogue, thresholds)
        if collection.state is CollectionState.READY:  # Only a run of `embed_collection` completes a collection.
            writer.ready()
    return report


def _count_complete(store: ObjectStore, collection_id: str, comparison: Comparison) -> int:
    """Return the number of scenes that an interrupted run of a collection completed.

    A killed run may have completed scenes that the catalogue does not have yet. The store has their datasets.
    """
    complete = len(comparison.unchanged)
    if comparison.new:
        committed = set(find_members(store, collection_id))
        complete += sum(member_id(collection_id, scene.uri) in committed for scene in comparison.new)
    return complete


def _readable_catalogue(store: ObjectStore, layout: CollectionLayout) -> Catalogue | None:
    """Return the stored catalogue. Return None if it is lost or damaged."""
    try:
        return read_catalogue(store, layout)
    except StoreError:
        raise
    except DataError:
        return None


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
    if existing is None:
        return resolve_configuration(options.settings or PlanSettings(), hub_token), False
    if options.settings is None:
        return existing.configuration, False
    wanted = resolve_configuration(options.settings, hub_token)
    if wanted.fingerprint != existing.configuration.fingerprint and not settings_are_fixed(store, layout, stored):
        return wanted, True
    check_configuration(existing, wanted)
    return existing.configuration, False


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
        # The scene may have failed, or a killed run may have deleted its dataset.
        if dataset_id.startswith(layout.member_prefix) and read_manifest(store, dataset_id) is not None:
            delete_dataset(store, dataset_id, lease=lease)


def _has_table(store: ObjectStore, layout: CollectionLayout, catalogue: Catalogue) -> bool:
    """Return whether a collection has ready scenes, which belong into a table, or has a table already."""
    return SceneState.READY in catalogue.counts() or name_of(layout.table) in store.sizes(layout.table_folder)


def _index_vectors(collection: Collection, table: TableDescription, options: TableIndexOptions) -> BuildResult:
    """Build the vector index of the table or let it grow, if the options ask for one."""
    from rasterembed.search.index.building import build_vector_index  # DuckDB takes long to import.
    from rasterembed.search.vector_files import VectorFiles

    return build_vector_index(VectorFiles.of_table(collection, table), options)


def _update_index(collection: Collection, table: TableDescription) -> None:
    """Bring the vector index of the table up to date, if there is one."""
    from rasterembed.search.index.building import update_vector_index  # DuckDB takes long to import.
    from rasterembed.search.vector_files import VectorFiles

    if name_of(collection.layout.vector_index_info) in collection.store.sizes(collection.layout.vector_index_folder):
        update_vector_index(VectorFiles.of_table(collection, table))


def _failed(catalogue: Catalogue, listing: Listing) -> tuple[SceneRow, ...]:
    """Return the rows of the scenes of a listing that failed."""
    listed = {scene.uri for scene in listing.scenes}
    return tuple(row for row in catalogue.filter(states=[SceneState.FAILED]).rows() if row.source in listed)


def _check_failed(result: CollectionResult, most: float) -> None:
    """Refuse a run in which too many scenes failed.

    Raises:
        TooManyFailedError: if the share of failed scenes is larger than `most`.
    """
    failed, listed = result.failed, len(result.listing.scenes)
    if len(failed) > most * listed:
        known = result.collection.catalogue.count
        others = "" if known == listed else f" (the collection has {known} scenes)"
        raise TooManyFailedError(
            f"{result.collection.layout.owner}: {len(failed)} of {listed} scenes failed{others}, more than "
            f"`max_failed_fraction` {number_text(most)} allows: `rasterembed collection show {result.collection.id}` "
            "shows the reasons",
            result.why_failed(failed[0]),
        )
