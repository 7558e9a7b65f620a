"""Find out which collection writes a dataset, if one does, and advise about such a dataset."""

from __future__ import annotations

from rasterembed.errors import UsageError
from rasterembed.store.known_collections import has_collection
from rasterembed.store.layout import MEMBER_MARK, CollectionLayout
from rasterembed.store.object_store import ObjectStore


def collection_of(dataset_id: str) -> str | None:
    """Return the id of the collection that a dataset belongs to. Return None for a dataset of its own.

    Example:
        >>> collection_of("survey--bucket-a-input-1-vo2xc7huyiaxvppb")
        'survey'
        >>> collection_of("scene") is None
        True
    """
    collection_id, mark, _ = dataset_id.partition(MEMBER_MARK)
    return collection_id if mark else None


def collection_of_member(store: ObjectStore, dataset_id: str) -> CollectionLayout | None:
    """Return the collection that writes a dataset, or None if the dataset belongs to no collection of the store.

    A run over a collection holds the lease of the collection only. Everybody else who writes a dataset of the
    collection therefore takes this lease too, and nobody deletes such a dataset without its collection.

    Args:
        store: store of the dataset.
        dataset_id: name of the dataset.
    """
    collection_id = collection_of(dataset_id)
    if collection_id is None:
        return None
    try:
        layout = CollectionLayout(collection_id)
    except UsageError:  # A person may have given a dataset any allowed id.
        return None
    return layout if has_collection(store, layout) else None


def embed_without(collection_id: str, dataset_id: str) -> str:
    """Return advice for a scene of a collection whose dataset is of no use."""
    return (
        f"remove the scene (`rasterembed collection remove-scene {collection_id} {dataset_id}`), then embed the "
        "collection again"
    )
