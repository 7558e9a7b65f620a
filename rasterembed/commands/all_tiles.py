"""The dataset or the collection of a command that asks about all tiles."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rasterembed.command_line.command_store import open_command_store
from rasterembed.errors import UsageError
from rasterembed.store.known_collections import check_known_collection
from rasterembed.store.known_datasets import check_known

if TYPE_CHECKING:
    from rasterembed.collection.collection import Collection
    from rasterembed.dataset.dataset import Dataset


def open_owner(dataset: str | None, collection: str | None, root: str | None) -> Dataset | Collection:
    """Open the dataset or the collection that a person named.

    Args:
        dataset: name of the dataset, or None.
        collection: name of the collection, or None.
        root: folder or s3://bucket/prefix. None stands for the default.

    Raises:
        UsageError: if not exactly one name is given, or if the store has no dataset or collection of this name.
        DataError: if it is not ready.
    """
    if (dataset is None) == (collection is None):
        raise UsageError("give either the name of a dataset, or --collection with the name of a collection")
    store = open_command_store(root)
    # These imports take too long for a command that only prints its help.
    from rasterembed.collection.collection import Collection
    from rasterembed.dataset.dataset import Dataset

    if collection is not None:
        check_known_collection(store, collection)
        return Collection.open(store, collection)
    assert dataset is not None
    check_known(store, [dataset])
    return Dataset.open(store, dataset)
