"""Find out which datasets a store has, without reading them. This module imports only packages that load fast."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rasterembed.errors import UsageError
from rasterembed.name_pattern import fits_pattern
from rasterembed.store.layout import DatasetLayout, dataset_id_of_plan, key_in, name_of
from rasterembed.store.object_store import ObjectStore
from rasterembed.store.store_command import store_command
from rasterembed.store.unknown_id import near_ids, unknown_id, what_it_has
from rasterembed.store.uploads import dataset_dates


def check_known(store: ObjectStore, dataset_ids: Iterable[str], *, unfinished: bool = False) -> None:
    """Refuse names of datasets that the store does not have.

    A command calls this function before it imports the packages that read a dataset. Their import takes nearly a
    second, and a wrong name is then reported without it.

    Args:
        store: the store.
        dataset_ids: the names.
        unfinished: whether a dataset that a run has planned and not committed is enough.

    Raises:
        UsageError: if the store has no dataset of one of these names.
    """
    for dataset_id in dataset_ids:
        layout = layout_of_known(store, dataset_id)
        names = store.sizes(layout.dataset_folder)
        if name_of(layout.manifest) not in names and not (unfinished and _has_plan(layout, names)):
            raise unknown_dataset(store, dataset_id)


def layout_of_known(store: ObjectStore, dataset_id: str) -> DatasetLayout:
    """Return the keys of a dataset that the store should have.

    Raises:
        UsageError: if this is no dataset id. It may be the name of a raster, so the text names near ids.
    """
    try:
        return DatasetLayout(dataset_id)
    except UsageError as error:
        near = near_ids(dataset_id, sorted(dataset_dates(store)))
        if not near:
            raise
        raise UsageError(f"{error}; the store has {near}") from error


def _has_plan(layout: DatasetLayout, names: Iterable[str]) -> bool:
    """Return whether one of the names in the folder of a dataset is that of a plan."""
    return any(dataset_id_of_plan(key_in(layout.dataset_folder, name)) is not None for name in names)


def is_planned(store: ObjectStore, layout: DatasetLayout) -> bool:
    """Return whether a run has planned a dataset. Without a manifest, the dataset is then unfinished.

    Args:
        store: the store.
        layout: keys of the dataset.
    """
    return _has_plan(layout, store.sizes(layout.dataset_folder))


def unknown_dataset(store: ObjectStore, dataset_id: str) -> UsageError:
    """Return the error for a dataset without a manifest.

    If the dataset has a plan, the text says that the dataset is unfinished. Otherwise it names near ids, or says how to
    list all ids.
    """
    layout = DatasetLayout(dataset_id)
    if is_planned(store, layout):
        return UsageError(
            f"dataset {dataset_id!r} in {store.root} is unfinished: "
            f"{store_command(store, f'datasets show {dataset_id}')} says how many shards are written, and how to go on"
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
