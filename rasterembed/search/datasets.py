"""Choose the datasets of a search by name or pattern, and check that their vectors can be compared."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from rasterembed.dataset.dataset import Dataset
from rasterembed.dataset.manifest import ALL_STATES, Manifest, State, read_manifest
from rasterembed.errors import DataError, RasterEmbedError, StoreUnavailableError, UsageError
from rasterembed.number_text import agreeing
from rasterembed.search.newest import open_newest
from rasterembed.search.not_searched import NotSearched, NotSearchedReason, describe_all
from rasterembed.store.known_datasets import matching_datasets
from rasterembed.store.layout import is_pattern
from rasterembed.store.object_store import ObjectStore

_COMPARED = {
    "model.id": "model",
    "model.weights_sha256": "weights",
    "model.input_size": "input size",
    "model.mean": "mean of the normalisation",
    "model.std": "deviation of the normalisation",
    "pooling": "pooling",
    "dtype.compute": "dtype of the model",
    "dtype.vector": "dtype of the vectors",
}
"""Entries of a manifest's configuration that must be equal in all datasets of a search. Each entry is mapped to its
name in error texts."""

_THREADS = 8
"""Number of manifests that are read at the same time. Each read is a request to S3."""


@dataclass(frozen=True)
class ChosenDatasets:
    """The datasets of a search."""

    datasets: tuple[Dataset, ...]
    """Datasets that can be searched together."""
    not_searched: tuple[NotSearched, ...] = ()
    """Datasets that a pattern named, but that cannot be searched, with the reasons."""
    by_pattern: frozenset[str] = frozenset()
    """Ids of the datasets that only a pattern named. If such a dataset is damaged, the search leaves it out."""


def choose_datasets(
    store: ObjectStore, names: Sequence[str], like: str | None = None, states: Sequence[State] = ("ready",)
) -> ChosenDatasets:
    """Open the datasets that names and patterns stand for. A repeated name gives only one dataset.

    A dataset is usable if it is ready, has a vector, can be read, and has vectors of the search's model. Its shards
    have the sizes in the manifest. One request for each dataset lists the sizes of all its shards. A named dataset must
    be usable. A dataset that only a pattern names is left out if it is not usable.

    The search's model is the model of the dataset `like`. If `like` is None or is not among the datasets, it is the
    model of the first named dataset. If no dataset is named, it is the model of most datasets. If two models have
    equally many datasets, it is the model with more embedded tiles.

    Args:
        store: the store that holds all datasets.
        names: names of datasets, and patterns such as `incoming-*`. In a pattern, `*` stands for any text, `?` for one
            character, and `[...]` for one of several characters.
        like: name of the dataset that decides about the model, for example the dataset of the query's tile.
        states: states in which a named dataset is usable. The explorer shows a dataset in any state.

    Raises:
        UsageError: if no name is given, or if the store has no dataset with one of the names.
        DataError: if a named dataset is not ready or has no vector, if a shard of it is missing or has another size, if
            a named dataset was embedded with another model than the search's, or if no dataset is usable.
    """
    if not names:
        raise UsageError("give at least one dataset to search")
    named = list(dict.fromkeys(name for name in names if not is_pattern(name)))
    datasets = [_open_usable(store, name, states) for name in named]
    matching = [
        name for name in matching_datasets(store, [name for name in names if is_pattern(name)]) if name not in named
    ]
    opened, not_searched = _open_matching(store, matching)
    if not datasets and not opened:
        raise DataError(f"no dataset can be searched: {describe_all(not_searched)}")
    model = _model(datasets, opened, like)
    for other in datasets:
        if differences := _differences(model.manifest, other.manifest):
            raise DataError(
                f"datasets {model.id!r} and {other.id!r} cannot be searched together, because their vectors cannot be "
                f"compared: {differences}"
            )
    for dataset in opened:
        if differences := _differences(model.manifest, dataset.manifest):
            detail = f"{differences}; first value: {model.id}"
            not_searched.append(NotSearched(dataset_id=dataset.id, reason=NotSearchedReason.OTHER_MODEL, detail=detail))
        else:
            datasets.append(dataset)
    not_searched.sort(key=lambda one: one.dataset_id)
    return ChosenDatasets(tuple(datasets), tuple(not_searched), frozenset(matching))


def _open_usable(store: ObjectStore, dataset_id: str, states: Sequence[State]) -> Dataset:
    def newer(dataset: Dataset) -> Dataset | None:
        return Dataset.open(store, dataset_id, states) if _was_replaced(dataset) else None

    return open_newest(Dataset.open(store, dataset_id, states), _check_usable, newer)


def _check_usable(dataset: Dataset) -> Dataset:
    """Return the dataset if it has a vector, and if its shards have the sizes in the manifest."""
    rows, tiles = dataset.manifest.rows, dataset.manifest.tiles
    if rows == 0:
        skipped = agreeing(tiles, "its only tile was", f"all {tiles:,} tiles were")
        raise DataError(f"dataset {dataset.id!r} has no embedded tile: {skipped} skipped")
    dataset.check_shard_sizes()
    return dataset


def _was_replaced(dataset: Dataset) -> bool:
    """Return whether the store has another manifest now, or none."""
    return read_manifest(dataset.store, dataset.id) != dataset.manifest


def _open_matching(store: ObjectStore, names: Sequence[str]) -> tuple[list[Dataset], list[NotSearched]]:
    """Open the datasets with these names. Return the usable datasets, and the unusable ones with the reasons."""
    with ThreadPoolExecutor(_THREADS) as pool:
        results = list(pool.map(lambda name: _open_or_say_why(store, name), names))
    return (
        [result for result in results if isinstance(result, Dataset)],
        [result for result in results if isinstance(result, NotSearched)],
    )


def _open_or_say_why(store: ObjectStore, dataset_id: str) -> Dataset | NotSearched:
    """Open a dataset that a pattern named, or return why it cannot be searched."""

    def opened() -> Dataset:
        return Dataset.open(store, dataset_id, ALL_STATES)

    def newer(dataset: Dataset) -> Dataset | None:
        return opened() if _was_replaced(dataset) else None

    try:
        return open_newest(opened(), lambda dataset: _check_or_say_why(dataset, dataset_id), newer)
    except StoreUnavailableError:
        raise
    except RasterEmbedError as error:
        return NotSearched(dataset_id=dataset_id, reason=NotSearchedReason.UNREADABLE, detail=str(error))


def _check_or_say_why(dataset: Dataset, dataset_id: str) -> Dataset | NotSearched:
    """Return the dataset if it is usable, or why it cannot be searched.

    Args:
        dataset: the dataset. It was opened by its id.
        dataset_id: the id. The manifest may say another one.

    Raises:
        DataError: if a file of the dataset cannot be read.
    """

    def because(reason: NotSearchedReason, detail: str = "") -> NotSearched:
        return NotSearched(dataset_id=dataset_id, reason=reason, detail=detail)

    if dataset.id != dataset_id:
        return because(NotSearchedReason.UNREADABLE, f"its manifest is of dataset {dataset.id!r}")
    match dataset.manifest.state:
        case "embedded":
            return because(NotSearchedReason.NOT_CHECKED)
        case "failed_qa":
            return because(NotSearchedReason.FAILED_QA)
    if dataset.manifest.rows == 0:
        return because(NotSearchedReason.EMPTY)
    _ = dataset.plan, dataset.radiometry  # Every search reads both. Reading them here finds errors early.
    _entries(dataset.manifest)
    dataset.check_shard_sizes()
    return dataset


def _model(named: Sequence[Dataset], opened: Sequence[Dataset], like: str | None) -> Dataset:
    """Return the dataset whose model a search uses. See `choose_datasets`."""
    for dataset in (*named, *opened):
        if dataset.id == like:
            return dataset
    if named:
        return named[0]
    key: Callable[[Dataset], str] = lambda dataset: repr(_entries(dataset.manifest))  # noqa: E731
    groups = [list(group) for _, group in groupby(sorted(opened, key=key), key=key)]
    largest = max(groups, key=lambda group: (len(group), sum(dataset.manifest.rows for dataset in group)))
    return min(largest, key=lambda dataset: dataset.id)


def _differences(one: Manifest, other: Manifest) -> str:
    """Return the differences that keep two datasets from being compared, as text for people. Empty if there is none."""
    pairs = zip(_COMPARED.values(), _entries(one), _entries(other), strict=True)
    return "; ".join(f"{name}: {first} and {second}" for name, first, second in pairs if first != second)


def _entries(manifest: Manifest) -> list[Any]:
    """Return the entries of a manifest's configuration that are compared, in the order of `_COMPARED`.

    Raises:
        DataError: if the configuration lacks an entry.
    """
    entries = []
    for path in _COMPARED:
        value: Any = manifest.configuration
        for name in path.split("."):
            if not isinstance(value, dict) or name not in value:
                raise DataError(f"the manifest of dataset {manifest.dataset_id!r} has no entry {path!r}")
            value = value[name]
        entries.append(value)
    return entries
