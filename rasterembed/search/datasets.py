"""Open the datasets of a search, and check that their vectors can be compared."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rasterembed.dataset.dataset import Dataset
from rasterembed.dataset.manifest import Manifest
from rasterembed.errors import DataError, UsageError
from rasterembed.store.object_store import ObjectStore

_COMPARED = {
    "model.id": "model",
    "model.weights_sha256": "weights",
    "model.input_size": "input size",
    "pooling": "pooling",
    "dtype.compute": "dtype of the model",
    "dtype.vector": "dtype of the vectors",
}
"""Entries of a manifest's configuration, with their names in error texts. In one search, all datasets must have equal
entries."""


def open_datasets(store: ObjectStore, dataset_ids: Sequence[str]) -> tuple[Dataset, ...]:
    """Return the datasets with these names, in the given order. A repeated name gives only one dataset.

    Args:
        store: the store that holds all datasets.
        dataset_ids: names of the datasets.

    Raises:
        UsageError: if no name is given, or if the store has no dataset with one of the names.
        DataError: if a dataset is not ready or has no vector, or if the datasets were embedded with different models.
    """
    if not dataset_ids:
        raise UsageError("give at least one dataset to search")
    datasets = tuple(Dataset.open(store, dataset_id) for dataset_id in dict.fromkeys(dataset_ids))
    for dataset in datasets:
        if dataset.manifest.rows == 0:
            raise DataError(
                f"dataset {dataset.id!r} has no embedded tile: all {dataset.manifest.tiles} tiles were skipped"
            )
    for other in datasets[1:]:
        _check_comparable(datasets[0].manifest, other.manifest)
    return datasets


def _check_comparable(one: Manifest, other: Manifest) -> None:
    differences = [
        f"{name}: {_entry(one, path)} and {_entry(other, path)}"
        for path, name in _COMPARED.items()
        if _entry(one, path) != _entry(other, path)
    ]
    if differences:
        raise DataError(
            f"datasets {one.dataset_id!r} and {other.dataset_id!r} cannot be searched together, because their vectors "
            f"cannot be compared: {'; '.join(differences)}"
        )


def _entry(manifest: Manifest, path: str) -> Any:
    """Return an entry of the manifest's configuration. The path of an entry is, for example, `model.id`."""
    value: Any = manifest.configuration
    for name in path.split("."):
        value = value[name]
    return value
