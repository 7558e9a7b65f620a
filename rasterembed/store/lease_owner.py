"""Find out whose lease a run needs to write a dataset: that of the dataset, or that of its collection."""

from __future__ import annotations

from rasterembed.errors import UsageError
from rasterembed.store.known_collections import has_collection
from rasterembed.store.layout import MEMBER_MARK, CollectionLayout, DatasetLayout, Layout
from rasterembed.store.object_store import ObjectStore


def collection_of_member(store: ObjectStore, dataset_id: str) -> CollectionLayout | None:
    """Return the collection that writes a dataset, or None if the dataset belongs to no collection of the store.

    A run over a collection holds the lease of the collection only. Everybody else who writes a dataset of the
    collection therefore takes this lease too.

    Args:
        store: store of the dataset.
        dataset_id: name of the dataset.
    """
    collection_id, mark, _ = dataset_id.partition(MEMBER_MARK)
    if not mark:
        return None
    try:
        layout = CollectionLayout(collection_id)
    except UsageError:  # A person may have given a dataset any allowed id.
        return None
    return layout if has_collection(store, layout) else None


def lease_owner(store: ObjectStore, dataset_id: str) -> Layout:
    """Return the layout whose lease a run needs to write a dataset. See `collection_of_member`."""
    return collection_of_member(store, dataset_id) or DatasetLayout(dataset_id)
