"""Delete a collection with the datasets of its scenes."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import dataclass

from rasterembed.collection.catalogue import Catalogue
from rasterembed.collection.collection import find_collection, write_collection
from rasterembed.collection.members import is_member_id
from rasterembed.collection.stac_collection import CollectionState
from rasterembed.dataset.deletion import delete_dataset
from rasterembed.errors import DataError, StoreError, told_when_interrupted
from rasterembed.store.known_collections import unknown_collection
from rasterembed.store.layout import DATASETS_FOLDER, CollectionLayout, dataset_id_of_object, folder_of
from rasterembed.store.lease import DEAD_RUN_S, Lease, hold_lease
from rasterembed.store.object_store import ObjectStore


@dataclass(frozen=True)
class DeletedCollection:
    """A collection that was deleted."""

    datasets: tuple[str, ...]
    """Ids of the datasets that were deleted with it."""
    objects: int
    """Number of deleted objects of the collection and of its datasets."""


def own_datasets(store: ObjectStore, collection_id: str) -> tuple[str, ...]:
    """Return the ids of the datasets that a collection made, complete or not. They are deleted with the collection.

    Datasets that were embedded before they joined the collection are not among them.

    Raises:
        UsageError: if the id is not allowed.
        StoreError: if the store refuses or does not answer.
    """
    keys = store.find(DATASETS_FOLDER, CollectionLayout(collection_id).member_prefix)
    found = {dataset_id_of_object(key) for key, _ in keys}
    return tuple(sorted(name for name in found if name is not None and is_member_id(collection_id, name)))


def delete_collection(
    store: ObjectStore,
    collection_id: str,
    *,
    run_id: str | None = None,
    on_wait: Callable[[str], None] = print,
) -> DeletedCollection:
    """Delete a collection: its catalogue, table, vector index and reports, and the datasets of its scenes.

    The files of the scenes are not touched. A dataset that was embedded before it joined the collection stays.

    The catalogue is deleted first, then the other files of the collection, then the datasets. The STAC Collection,
    which makes the collection exist, is deleted last. If the process is killed in between, the collection is listed
    without scenes. Call this function again, or embed the scenes again.

    In a folder store, a link is removed and never followed.

    Args:
        store: store of the collection.
        collection_id: name of the collection. The collection may be unfinished or unreadable.
        run_id: name of the caller in the lease. The default name is random.
        on_wait: function that is called with a sentence for people if another run holds the collection. The lease of a
            dead run expires during the wait.

    Returns:
        What was deleted.

    Raises:
        UsageError: if the store has no such collection.
        LeaseHeldError: if another run is writing the collection.
        LeaseLostError: if another run took the collection over, because this process stood still for too long.
        StoreError: if the store refuses or does not answer, or if the folder of the collection is a link.
    """
    layout = CollectionLayout(collection_id)
    if not _keys(store, layout):
        raise unknown_collection(store, collection_id)
    with (
        hold_lease(store, layout, run_id or uuid.uuid4().hex, wait_s=DEAD_RUN_S, on_wait=on_wait) as lease,
        told_when_interrupted(lambda: f"{layout.owner} may be deleted in part"),
    ):
        objects = len(_keys(store, layout))
        _empty(store, layout, lease)
        datasets = own_datasets(store, collection_id)
        for key in _keys(store, layout):
            if key != layout.stac_collection:
                lease.check_often()
                store.delete(key)
        for dataset_id in datasets:
            objects += delete_dataset(store, dataset_id, lease=lease)
        lease.check()
        store.delete(layout.stac_collection)
        for folder in (*layout.written_folders, layout.vector_index_folder):
            store.clear_scratch(folder)
    # Another run may already hold a lease with a higher number. That lease stays.
    store.delete(layout.lease(lease.number))
    return DeletedCollection(datasets, objects)


def _empty(store: ObjectStore, layout: CollectionLayout, lease: Lease) -> None:
    """Let the collection say that it has no scene and is not complete, and delete its catalogue.

    After a kill, the next run of `embed_collection` then looks for the dataset of every scene.
    """
    try:
        collection = find_collection(store, layout.collection_id)
    except StoreError:
        raise
    except DataError:  # It cannot be read, and will be deleted.
        collection = None
    lease.check()
    if collection is not None:
        write_collection(store, layout, collection.configuration, Catalogue.of([]), CollectionState.EMBEDDING)
        lease.check()
    store.delete(layout.catalogue)
    store.delete(layout.table)  # A reader of the table begins with its description.


def _keys(store: ObjectStore, layout: CollectionLayout) -> list[str]:
    """Return the keys of everything in the folder of a collection, except its lease. Links are not followed.

    Raises:
        StoreError: if the folder of the collection or of its lease is a link. A lease behind it may be another one's.
    """
    keys = list(store.find_deletable(layout.collection_folder))
    for key in keys:
        if key in (layout.collection_folder, layout.lease_folder):
            raise StoreError(
                f"{store.uri(key)}: it is a link to a folder outside the store, so nothing was deleted: remove the "
                "link, then delete the collection again"
            )
    return [key for key in keys if folder_of(key) != layout.lease_folder]
