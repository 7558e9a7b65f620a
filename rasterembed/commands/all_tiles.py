"""Ask about all tiles of a dataset or a collection."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from rasterembed.command_line.command_store import open_command_store
from rasterembed.errors import UsageError, told_when_interrupted
from rasterembed.store.known_collections import check_known_collection
from rasterembed.store.known_datasets import check_known

if TYPE_CHECKING:
    from rasterembed.collection.collection import Collection
    from rasterembed.dataset.dataset import Dataset


def ask(
    dataset: str | None,
    collection: str | None,
    root: str | None,
    question: Callable[[Dataset | Collection], object],
) -> str:
    """Ask a question about all tiles of the dataset or the collection that a person named, and return the answer.

    Args:
        dataset: see `_open_owner`.
        collection: see `_open_owner`.
        root: see `_open_owner`.
        question: function that asks the dataset or the collection, writes the files, and returns what `str` makes a
            text for people.
    """
    with told_when_interrupted(lambda: "no file was written"):
        return str(question(_open_owner(dataset, collection, root)))


def _open_owner(dataset: str | None, collection: str | None, root: str | None) -> Dataset | Collection:
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
