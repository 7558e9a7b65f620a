"""The datasets that a search goes through, and whether their vectors may be compared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from rasterembed.dataset.manifest import Manifest, State, read_manifest
from rasterembed.dataset.plan import Plan
from rasterembed.errors import DataError, UsageError
from rasterembed.raster.footprints import Footprinter
from rasterembed.store.object_store import ObjectStore

_COMPARED = {
    "model.id": "model",
    "model.weights_sha256": "weights",
    "model.input_size": "input size",
    "pooling": "pooling",
    "dtype.compute": "dtype of the model",
    "dtype.vector": "dtype of the vectors",
}
"""Entries of a manifest's configuration that two datasets must share, and what errors call them."""


@dataclass(frozen=True)
class Dataset:
    """A dataset that may be searched."""

    store: ObjectStore
    manifest: Manifest

    @property
    def id(self) -> str:
        """Name of the dataset."""
        return self.manifest.dataset_id

    @cached_property
    def plan(self) -> Plan:
        """What the dataset was made by.

        Raises:
            DataError: if the plan is gone.
        """
        return Plan.read(self.store, self.id, self.manifest.fingerprint)

    @cached_property
    def _footprinter(self) -> Footprinter:
        return Footprinter(self.plan.profile)

    def check_on_earth(self) -> None:
        """Refuse a dataset that no place can be looked up in.

        Raises:
            DataError: if the raster has no place on Earth.
        """
        if not self.plan.profile.on_earth:
            raise DataError(f"dataset {self.id!r} has no place on Earth: search it by tile or image, and not by area")

    def lonlat(self, col: float, row: float) -> tuple[float, float] | None:
        """Longitude and latitude in degrees of a pixel position; None if the raster has no place on Earth."""
        if not self.plan.profile.on_earth:
            return None
        lon, lat = self._footprinter.lonlat(np.array([col]), np.array([row]))
        return (float(lon[0]) + 180.0) % 360.0 - 180.0, float(lat[0])


def open_dataset(store: ObjectStore, dataset_id: str, states: Sequence[State] = ("ready",)) -> Dataset:
    """A dataset by its name, in one of the given states.

    Raises:
        UsageError: if there is none of that name.
        DataError: if it is not in such a state, or it has no vector.
    """
    manifest = read_manifest(store, dataset_id)
    if manifest is None:
        raise UsageError(f"there is no dataset {dataset_id!r} in {store.root}: check its name and the root")
    if manifest.state not in states:
        why = {
            "failed_qa": f"it did not pass its quality checks; see {store.uri(f'qa/{dataset_id}/report.md')}",
            "embedded": "its quality checks have not passed yet; run them, or wait for the run to end",
            "ready": "it is ready",
        }[manifest.state]
        raise DataError(f"dataset {dataset_id!r} cannot be searched: {why}")
    if manifest.rows == 0:
        raise DataError(f"dataset {dataset_id!r} has no embedded tile: all {manifest.tiles} were skipped")
    return Dataset(store, manifest)


def open_datasets(store: ObjectStore, dataset_ids: Sequence[str]) -> tuple[Dataset, ...]:
    """Datasets whose vectors may be compared, each once, in the order given.

    Raises:
        UsageError: if no name is given, or there is no dataset of one.
        DataError: if one cannot be searched, or they were made by different models; see `open_dataset`.
    """
    if not dataset_ids:
        raise UsageError("give at least one dataset to search")
    datasets = tuple(open_dataset(store, dataset_id) for dataset_id in dict.fromkeys(dataset_ids))
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
            f"datasets {one.dataset_id!r} and {other.dataset_id!r} cannot be searched together, "
            f"their vectors do not compare: {'; '.join(differences)}"
        )


def _entry(manifest: Manifest, path: str) -> Any:
    value: Any = manifest.configuration
    for name in path.split("."):
        value = value[name]
    return value
