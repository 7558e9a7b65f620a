"""Delete a dataset."""

from __future__ import annotations

import uuid
from collections.abc import Callable

from rasterembed.store.known_datasets import unknown_dataset
from rasterembed.store.layout import DatasetLayout, folder_of
from rasterembed.store.lease import DURATION_S, hold_lease
from rasterembed.store.object_store import ObjectStore


def delete_dataset(
    store: ObjectStore, dataset_id: str, *, run_id: str | None = None, on_wait: Callable[[str], None] = print
) -> int:
    """Delete a dataset, complete or not, with its report and its vector index. The raster is not touched.

    The manifest is deleted first. From then on, the dataset does not exist for any reader. If the process is killed
    afterwards, call this function again, or embed the raster again.

    Args:
        store: store of the dataset.
        dataset_id: name of the dataset.
        run_id: name of the caller in the lease. The default name is random.
        on_wait: function that is called with a sentence for people if another run holds the dataset. The lease of a
            dead run expires during the wait.

    Returns:
        Number of deleted objects.

    Raises:
        UsageError: if the store has no object of this dataset.
        LeaseHeldError: if another run is writing the dataset.
        StoreError: if the store refuses or does not answer.
    """
    layout = DatasetLayout(dataset_id)
    if not _keys(store, layout):
        raise unknown_dataset(store, dataset_id)
    name = run_id or uuid.uuid4().hex
    with hold_lease(store, layout, name, wait_s=1.5 * DURATION_S, on_wait=on_wait) as lease:
        keys = sorted(_keys(store, layout), key=lambda key: key != layout.manifest)
        for number, key in enumerate(keys):
            if number % 100 == 0:
                lease.check()
            store.delete(key)
        for folder in layout.folders:
            if folder != layout.lease_folder:
                store.clear_scratch(folder)
    # Another run may already hold a lease with a higher number. That lease stays.
    store.delete(layout.lease(lease.number))
    return len(keys)


def _keys(store: ObjectStore, layout: DatasetLayout) -> list[str]:
    """Return the keys of all objects of a dataset, except its lease."""
    return [key for folder in layout.folders for key, _ in store.find(folder) if folder_of(key) != layout.lease_folder]
