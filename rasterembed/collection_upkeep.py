"""Work on a collection that embeds no scene: rebuild its catalogue, remove a scene, check its quality."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence

from rasterembed.collection.catalogue import Catalogue, read_catalogue
from rasterembed.collection.collection import Collection, find_collection
from rasterembed.collection.lattice import check_joining
from rasterembed.collection.rebuilding import adopt, catalogue_of_manifests
from rasterembed.collection.removing import RemovedScene, remove_scene
from rasterembed.collection.scene_row import SceneRow
from rasterembed.collection.shared_texts import listings_unknown
from rasterembed.collection.stac_collection import CollectionState
from rasterembed.collection.table_writing import is_table_due, write_table
from rasterembed.collection_pipeline import CollectionSteps
from rasterembed.collection_writer import CollectionWriter
from rasterembed.errors import DataError, StoreError, check_type, name_list
from rasterembed.known_parameters import known_parameters
from rasterembed.qa.collection_report import CollectionReport
from rasterembed.qa.collection_thresholds import CollectionThresholds
from rasterembed.search.index.table_index import update_table_index
from rasterembed.store.layout import CollectionLayout
from rasterembed.store.lease import DEAD_RUN_S, hold_lease
from rasterembed.store.object_store import ObjectStore


@known_parameters
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
        ConfigurationChangedError: if a dataset has another configuration than the collection, also if it joined
            earlier and was embedded again since.
        DataError: if the manifest or the plan of a scene cannot be read; if two datasets are of the same raster; or if
            the grid is anchored and a dataset has another CRS or pixel size than the collection.
        LeaseHeldError: if another run is writing the collection.
    """
    check_type(store, ObjectStore, "store", 'an ObjectStore, such as ObjectStore(root="embeddings")')
    layout = CollectionLayout(collection_id)
    if not datasets:
        Collection.open(store, collection_id)  # Refuse an unknown collection before a lease is written for it.
    datasets = name_list(datasets, "datasets")
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
        catalogue = catalogue_of_manifests(store, layout, configuration, adopted, old)
        check_joining(store, configuration, catalogue, [row.id for row in adopted if catalogue.row(row.id) is not None])
        writer.replace(catalogue)
        if is_table_due(store, layout, writer.catalogue):
            table = write_table(store, layout, configuration, writer.catalogue, lease.check)
            lease.check()
            update_table_index(Collection(store, collection_id, configuration, CollectionState.EMBEDDING), table)
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
    return remove_scene(collection, scene, on_table=update_table_index, run_id=run_id, on_wait=on_wait)


@known_parameters
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


def _readable_catalogue(store: ObjectStore, layout: CollectionLayout) -> Catalogue | None:
    """Return the stored catalogue. Return None if it is lost or damaged."""
    try:
        return read_catalogue(store, layout)
    except StoreError:
        raise
    except DataError:
        return None
