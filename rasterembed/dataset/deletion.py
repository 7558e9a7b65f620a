"""Delete a dataset."""

from __future__ import annotations

import uuid
from collections.abc import Callable

from rasterembed.errors import StoreError, UsageError, told_when_interrupted
from rasterembed.store.dataset_owner import collection_of_member
from rasterembed.store.known_datasets import layout_of_known, unknown_dataset
from rasterembed.store.layout import DatasetLayout, dataset_id_of_plan, folder_of
from rasterembed.store.lease import DEAD_RUN_S, Lease, hold_lease
from rasterembed.store.object_store import ObjectStore
from rasterembed.store.store_command import store_command


def delete_dataset(
    store: ObjectStore,
    dataset_id: str,
    *,
    lease: Lease | None = None,
    run_id: str | None = None,
    on_wait: Callable[[str], None] = print,
) -> int:
    """Delete a dataset, complete or not, with its report and its vector index. The raster is not touched.

    The manifest is deleted first. From then on, the dataset does not exist for any reader. The plan is deleted last. If
    the process is killed in between, the list of datasets therefore shows the dataset as unfinished. Call this function
    again, or embed the raster again.

    In a folder store, a link is removed and never followed. What it leads to stays.

    Args:
        store: store of the dataset.
        dataset_id: name of the dataset.
        lease: lease on the dataset's collection. Only code that brings the catalogue of the collection up to date has
            it. Otherwise this function takes the lease of the dataset, and refuses datasets of collections.
        run_id: name of the caller in the lease. The default name is random.
        on_wait: function that is called with a sentence for people if another run holds the dataset. The lease of a
            dead run expires during the wait.

    Returns:
        Number of deleted objects.

    Raises:
        UsageError: if the store has no object of this dataset, or if it belongs to a collection and `lease` is None.
        LeaseHeldError: if another run is writing the dataset.
        LeaseLostError: if another run took the dataset over, because this process stood still for too long.
        StoreError: if the store refuses or does not answer, or if the folder of the manifest is a link and a lease is
            behind it.
    """
    layout = layout_of_known(store, dataset_id)
    found = _keys(store, layout)
    if not found:
        raise unknown_dataset(store, dataset_id)
    if lease is None:
        refuse_member(store, dataset_id)
    linked = [_unlink(store, layout, key) for key in found if key in (layout.dataset_folder, layout.lease_folder)]
    if lease is None:
        name = run_id or uuid.uuid4().hex
        with (
            hold_lease(store, layout, name, wait_s=DEAD_RUN_S, on_wait=on_wait) as held,
            told_when_interrupted(lambda: f"dataset {dataset_id!r} may be deleted in part"),
        ):
            count = _delete_all(store, layout, held)
        # Another run may already hold a lease with a higher number. That lease stays.
        store.delete(layout.lease(held.number))
    else:
        count = _delete_all(store, layout, lease)
    return len(linked) + count


def has_objects(store: ObjectStore, dataset_id: str) -> bool:
    """Return whether the store has any object of a dataset, which may be unfinished. A lease does not count."""
    return bool(_keys(store, layout_of_known(store, dataset_id)))


def refuse_member(store: ObjectStore, dataset_id: str) -> None:
    """Refuse the dataset of a scene in a collection. The catalogue of the collection would still have the scene.

    Raises:
        UsageError: if the store has the collection that the id belongs to. The text has the command that removes the
            scene from the collection.
    """
    collection = collection_of_member(store, dataset_id)
    if collection is not None:
        raise UsageError(
            f"dataset {dataset_id!r} belongs to {collection.owner}: remove its scene from the collection "
            f"({store_command(store, f'collection remove-scene {collection.collection_id} {dataset_id}')})"
        )


def _delete_all(store: ObjectStore, layout: DatasetLayout, lease: Lease) -> int:
    """Delete all objects of a dataset, and return their number. The caller holds the lease."""
    keys = sorted(_keys(store, layout), key=lambda key: _turn(layout, key))
    for key in keys:
        lease.check_often()
        store.delete(key)
    lease.check()
    for folder in layout.folders:
        if folder != layout.lease_folder:
            store.clear_scratch(folder)
    return len(keys)


def _unlink(store: ObjectStore, layout: DatasetLayout, key: str) -> str:
    """Remove a link that stands in place of the folder with the lease. Return the key of the link.

    The link is removed only if the folder behind it has no lease. A run may hold such a lease.

    Raises:
        StoreError: if a lease is behind the link.
    """
    if store.sizes(layout.lease_folder):
        raise StoreError(
            f"{store.uri(key)}: it is a link to a folder outside the store, so nothing was deleted: check that no run "
            "writes this dataset, remove the link, then delete the dataset again"
        )
    store.delete(key)
    return key


def _turn(layout: DatasetLayout, key: str) -> int:
    """Return 0 for the manifest, which is deleted first, 2 for a plan, which is deleted last, and 1 for the others."""
    if key == layout.manifest:
        return 0
    return 2 if dataset_id_of_plan(key) is not None else 1


def _keys(store: ObjectStore, layout: DatasetLayout) -> list[str]:
    """Return the keys of everything in the folders of a dataset, except its lease. Links are not followed."""
    keys = (key for folder in layout.folders for key in store.find_deletable(folder))
    return [key for key in keys if folder_of(key) != layout.lease_folder]
