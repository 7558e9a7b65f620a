"""Remove a scene from a collection."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from rasterembed.collection.catalogue import Catalogue, read_catalogue, write_catalogue
from rasterembed.collection.collection import Collection, write_collection
from rasterembed.collection.members import member_id
from rasterembed.collection.stac_collection import CollectionState, stac_collection
from rasterembed.collection.table import TableDescription
from rasterembed.collection.table_writing import update_table
from rasterembed.dataset.deletion import delete_dataset
from rasterembed.errors import UsageError
from rasterembed.near_names import known_names
from rasterembed.store.layout import DatasetLayout
from rasterembed.store.lease import DEAD_RUN_S, Lease, hold_lease
from rasterembed.store.object_store import ObjectStore, locate


class DatasetOutcome(StrEnum):
    """What becomes of the dataset of a removed scene."""

    DELETED = "deleted"
    """The dataset is deleted with the scene."""
    MISSING = "missing"
    """The scene has no dataset: it failed, and no earlier run embedded it."""
    KEPT = "kept"
    """The dataset stays, because it was embedded before it joined the collection."""


@dataclass(frozen=True)
class RemovedScene:
    """A scene that was removed from a collection."""

    dataset_id: str
    """Id of the scene's dataset."""
    source: str | None
    """Address of the scene's file. None if the catalogue did not have the scene any more."""
    listing: str | None
    """Address of the listing that the scene was found in. None or empty if it is not known."""
    dataset: DatasetOutcome
    """What becomes of the dataset."""


def remove_scene(
    collection: Collection,
    scene: str,
    *,
    on_table: Callable[[Collection, TableDescription], None],
    run_id: str | None = None,
    on_wait: Callable[[str], None] = print,
) -> RemovedScene:
    """Remove a scene from the catalogue and the table, and delete its dataset. The scene's files are not touched.

    A dataset that was not made for the collection is not deleted. See `rebuild_collection`. This function does not know
    the vector index. `rasterembed.collection_upkeep.remove_from_collection` brings the index up to date too.

    If the process is killed, call the function again. The catalogue and the table are written first, so no reader looks
    for a dataset that is deleted. A scene that still lies at the address of a listing comes back with the next run of
    that listing.

    Args:
        collection: the collection.
        scene: id of the scene's dataset, or address of the scene's file.
        on_table: function that is called with the collection and its new table, while the lease is held. It brings up
            to date what is made from the table.
        run_id: name of the caller in the lease. The default name is random.
        on_wait: function that is called with a sentence for people if another run holds the collection or the dataset.
            The lease of a dead run expires during the wait.

    Raises:
        UsageError: if the collection has no such scene. The text names similar ones.
        LeaseHeldError: if another run is writing the collection or the dataset.
        DataError: if the catalogue or the vectors of another scene cannot be read.
        StoreError: if the store refuses or does not answer.
    """
    store, layout, name = collection.store, collection.layout, run_id or uuid.uuid4().hex
    with hold_lease(store, layout, name, wait_s=DEAD_RUN_S, on_wait=on_wait) as lease:
        for folder in layout.written_folders:
            store.clear_scratch(folder)  # A killed call leaves unfinished files.
        collection = Collection.open(store, collection.id)  # Another run may have changed it during the wait.
        try:
            removed = find_scene(collection, scene)
        except UsageError:
            # A killed call may have removed the scene from the catalogue and not yet from the table. A lost catalogue
            # says nothing about the table.
            if read_catalogue(store, layout) is not None:
                _write_table(collection, collection.catalogue, lease, on_table)
            raise
        rest = collection.catalogue.updated([], without=[removed.dataset_id])
        # The state stays: a killed call must not leave a collection that looks as if a run works on it.
        lease.check()
        write_collection(store, layout, collection.configuration, rest, collection.state, listing=collection.listing)
        footer = stac_collection(layout, collection.configuration, rest, CollectionState.READY)
        lease.check()
        write_catalogue(store, layout, rest, footer)
        _write_table(collection, rest, lease, on_table)
        # The dataset is deleted last. It tells the next call that a killed call did not finish.
        if removed.dataset is DatasetOutcome.DELETED:
            lease.check()
            delete_dataset(store, removed.dataset_id, lease=lease)
    return removed


def _write_table(
    collection: Collection, catalogue: Catalogue, lease: Lease, on_table: Callable[[Collection, TableDescription], None]
) -> None:
    """Write the table, if the collection has one, and what is made from it."""
    store = collection.store
    table = update_table(store, collection.layout, collection.configuration, catalogue, lease.check)
    if table is not None:
        lease.check()
        on_table(Collection.open(store, collection.id), table)  # It reads the catalogue that was just written.


def find_scene(collection: Collection, scene: str) -> RemovedScene:
    """Return the scene with this dataset id or address, before it is removed.

    A killed call may have removed the scene from the catalogue, and left its dataset.

    Args:
        collection: the collection.
        scene: id of the scene's dataset, or address of the scene's file.

    Raises:
        UsageError: if the collection has no such scene. The text names similar ones.
        DataError: if the catalogue cannot be read.
    """
    catalogue, prefix = collection.catalogue, collection.layout.member_prefix
    columns = [catalogue.table[name].to_pylist() for name in ("id", "source", "listing")]
    rows = {row[0]: row for row in zip(*columns, strict=True)}
    by_source = {str(row[1]): row for row in rows.values()}
    found = rows.get(scene) or by_source.get(scene)
    try:
        address: str | None = locate(scene, "scene")
    except UsageError:  # It is no path. It may still be the id of a dataset.
        address = None
    if found is None and address is not None:
        found = by_source.get(address)
    if found is not None:
        found_id, source, listing = found
        return RemovedScene(found_id, source, listing, _outcome(collection, found_id))
    dataset_id = scene
    if not scene.startswith(prefix) and address is not None:
        dataset_id = member_id(collection.id, address)
    if dataset_id.startswith(prefix) and _has_dataset(collection.store, dataset_id):
        return RemovedScene(dataset_id, None, None, DatasetOutcome.DELETED)
    known = [*rows, *by_source]
    advice = f"it has {known_names(address or scene, known)}" if rows else "it has no scene"
    raise UsageError(
        f"collection {collection.id!r} has no scene {scene!r}: give the id of its dataset or its address; {advice}"
    )


def _outcome(collection: Collection, dataset_id: str) -> DatasetOutcome:
    """Return what becomes of the dataset of a scene that is removed."""
    if not dataset_id.startswith(collection.layout.member_prefix):
        return DatasetOutcome.KEPT
    has_dataset = _has_dataset(collection.store, dataset_id)
    return DatasetOutcome.DELETED if has_dataset else DatasetOutcome.MISSING


def _has_dataset(store: ObjectStore, dataset_id: str) -> bool:
    """Return whether the store has a dataset, complete or not. A dataset is deleted together with its plan."""
    return bool(store.sizes(DatasetLayout(dataset_id).dataset_folder))
