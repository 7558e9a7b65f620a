"""Find out which datasets a store has, without reading them. This module imports only packages that load fast."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rasterembed.errors import UsageError
from rasterembed.name_pattern import fits_pattern
from rasterembed.store.layout import DatasetLayout, dataset_id_of_plan, key_in, name_of
from rasterembed.store.object_store import ObjectStore
from rasterembed.store.unknown_id import unknown_id, what_it_has
from rasterembed.store.uploads import dataset_dates


def check_known(store: ObjectStore, dataset_ids: Iterable[str]) -> None:
    """Refuse names of datasets that the store does not have.

    A command calls this function before it imports the packages that read a dataset. Their import takes nearly a
    second, and a wrong name is then reported without it.

    Raises:
        UsageError: if the store has no dataset of one of these names.
    """
    for dataset_id in dataset_ids:
        layout = DatasetLayout(dataset_id)
        if name_of(layout.manifest) not in store.sizes(layout.dataset_folder):
            raise unknown_dataset(store, dataset_id)


def unknown_dataset(store: ObjectStore, dataset_id: str) -> UsageError:
    """Return the error for a dataset without a manifest.

    If the dataset has a plan, the text says that the dataset is unfinished. Otherwise it names near ids, or says how to
    list all ids.
    """
    folder = DatasetLayout(dataset_id).dataset_folder
    if any(dataset_id_of_plan(key_in(folder, name)) is not None for name in store.sizes(folder)):
        return UsageError(
            f"dataset {dataset_id!r} in {store.root} is unfinished: wait for its run to end, or embed its raster again "
            "to finish it"
        )
    return unknown_id(store, "dataset", dataset_id, sorted(dataset_dates(store)), first="embed a raster")


def matching_datasets(store: ObjectStore, patterns: Sequence[str]) -> list[str]:
    """Return the ids of all datasets that match a pattern, in alphabetical order.

    Args:
        store: the store.
        patterns: patterns such as `incoming-*`. Without patterns, the store is not listed.

    Raises:
        UsageError: if no dataset matches a pattern.
    """
    if not patterns:
        return []
    ids = sorted(dataset_dates(store))
    for pattern in patterns:
        if not any(fits_pattern(name, pattern) for name in ids):
            has = what_it_has(store, "dataset", pattern, ids) if ids else f"the store has no dataset{store.why_empty}"
            raise UsageError(f"no dataset in {store.root} matches {pattern!r}: {has}")
    return [name for name in ids if any(fits_pattern(name, pattern) for pattern in patterns)]
