"""One dataset: its manifest, and what follows from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from rasterembed.dataset.manifest import Manifest, State, read_manifest
from rasterembed.dataset.plan import Plan
from rasterembed.errors import DataError, UsageError
from rasterembed.raster.georeference import Georeference
from rasterembed.store.layout import DatasetLayout
from rasterembed.store.object_store import ObjectStore


@dataclass(frozen=True)
class Dataset:
    """A committed dataset in a store.

    Example:
        >>> dataset = Dataset.open(ObjectStore(root="rasterembed-store"), "my-dataset")  # doctest: +SKIP
        >>> dataset.manifest.rows  # doctest: +SKIP
        729
    """

    store: ObjectStore
    """The store that holds the dataset's files."""
    manifest: Manifest

    @classmethod
    def open(cls, store: ObjectStore, dataset_id: str, states: Sequence[State] = ("ready",)) -> Dataset:
        """Read a dataset's manifest and return the dataset.

        Args:
            store: the store that holds the dataset.
            dataset_id: name of the dataset.
            states: states that the caller accepts.

        Raises:
            UsageError: if the store has no dataset of this name.
            DataError: if the dataset is in another state, or its manifest cannot be read.
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
            raise DataError(f"dataset {dataset_id!r} cannot be used: {why}")
        return cls(store, manifest)

    @property
    def id(self) -> str:
        """Name of the dataset."""
        return self.manifest.dataset_id

    @cached_property
    def layout(self) -> DatasetLayout:
        """Paths of the dataset's files in the store."""
        return DatasetLayout(self.id)

    @cached_property
    def plan(self) -> Plan:
        """The plan that the dataset was made by.

        Raises:
            DataError: if the plan's file is missing.
        """
        return Plan.read(self.store, self.id, self.manifest.fingerprint)

    @cached_property
    def _georeference(self) -> Georeference:
        return Georeference(self.plan.profile)

    def check_on_earth(self) -> None:
        """Refuse a dataset whose raster has no place on Earth.

        Raises:
            DataError: if the raster has no CRS, so longitude and latitude mean nothing for it.
        """
        if not self.plan.profile.on_earth:
            raise DataError(f"dataset {self.id!r} has no place on Earth: search it by tile or image, and not by area")

    def lonlat(self, col: float, row: float) -> tuple[float, float] | None:
        """Return the longitude and latitude of a pixel position.

        Args:
            col: pixels from the raster's left edge.
            row: pixels from the raster's upper edge.

        Returns:
            Degrees in OGC:CRS84, longitude from -180 up to 180; None if the raster has no place on Earth.
        """
        if not self.plan.profile.on_earth:
            return None
        lon, lat = self._georeference.lonlat(np.array([col]), np.array([row]))
        return (float(lon[0]) + 180.0) % 360.0 - 180.0, float(lat[0])
