"""A dataset in a store. People, search, quality checks and tasks read datasets through this module."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pydantic import ValidationError

from rasterembed.dataset.manifest import Manifest, State, read_manifest
from rasterembed.dataset.plan import Plan
from rasterembed.dataset.shards import Shard
from rasterembed.errors import DataError, validation_reason
from rasterembed.raster.georeference import Georeference
from rasterembed.raster.radiometry import ResolvedRadiometry
from rasterembed.store.known_datasets import unknown_dataset
from rasterembed.store.layout import DatasetLayout
from rasterembed.store.object_store import ObjectStore

if TYPE_CHECKING:
    from rasterembed.qa.report import QaReport
    from rasterembed.qa.thresholds import QaThresholds
    from rasterembed.search.answer import Answer
    from rasterembed.search.query import Query, Where

_BATCH_ROWS = 8192
"""Largest number of table rows in a batch of `Dataset.batches`."""


@dataclass(frozen=True)
class Dataset:
    """A committed dataset in a store.

    Example:
        >>> dataset = Dataset.open(ObjectStore(root="rasterembed-store"), "my-dataset")  # doctest: +SKIP
        >>> dataset.manifest.rows  # doctest: +SKIP
        729
    """

    store: ObjectStore
    """The store that holds the dataset's objects."""
    manifest: Manifest
    """The manifest, which describes the dataset and lists its shards."""

    @classmethod
    def open(cls, store: ObjectStore, dataset_id: str, states: Sequence[State] = ("ready",)) -> Dataset:
        """Read a dataset's manifest and return the dataset.

        Args:
            store: the store that holds the dataset.
            dataset_id: name of the dataset.
            states: states that the caller accepts.

        Raises:
            UsageError: if the store has no dataset of this name.
            DataError: if the dataset is in another state, or if the manifest cannot be read.
        """
        manifest = read_manifest(store, dataset_id)
        if manifest is None:
            raise unknown_dataset(store, dataset_id)
        if manifest.state not in states:
            report = store.uri(DatasetLayout(dataset_id).qa_report_markdown)
            why = {
                "failed_qa": f"it did not pass its quality checks; see {report}",
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
        """Keys of the dataset's objects in the store."""
        return DatasetLayout(self.id)

    @property
    def shards(self) -> tuple[Shard, ...]:
        """All shards of the dataset, in the order of their numbers."""
        return self.manifest.shards

    @cached_property
    def plan(self) -> Plan:
        """The plan of the dataset.

        Raises:
            DataError: if the plan's object is missing.
        """
        return Plan.read(self.store, self.id, self.manifest.fingerprint)

    @cached_property
    def radiometry(self) -> ResolvedRadiometry:
        """How pixel values became colours.

        Raises:
            DataError: if the manifest does not hold a radiometry.
        """
        try:
            return ResolvedRadiometry.model_validate(self.manifest.configuration.get("radiometry"))
        except ValidationError as error:
            place = self.store.uri(self.layout.manifest)
            raise DataError(f"{place}: radiometry: {validation_reason(error)}: embed the raster again") from error

    @cached_property
    def _georeference(self) -> Georeference:
        return Georeference(self.plan.profile)

    def check_on_earth(self) -> None:
        """Refuse a dataset whose raster has no place on Earth.

        Raises:
            DataError: if the raster has no CRS. Its pixels then have no longitude and latitude.
        """
        if not self.plan.profile.on_earth:
            raise DataError(f"dataset {self.id!r} has no place on Earth: search it by tile or image, and not by area")

    def lonlat(self, col: float, row: float) -> tuple[float, float] | None:
        """Return the longitude and latitude of a pixel position.

        Args:
            col: distance from the raster's left edge, px.
            row: distance from the raster's upper edge, px.

        Returns:
            Degrees in OGC:CRS84, with the longitude from -180 to below 180. None if the raster has no place on Earth,
            or if the position lies beyond the edge of its map.
        """
        cols, rows = np.array([col]), np.array([row])
        if not self.plan.profile.on_earth:
            return None
        if not self._georeference.wholly_on_earth and not self._georeference.exist(cols, rows).all():
            return None
        lon, lat = self._georeference.lonlat(cols, rows)
        return (float(lon[0]) + 180.0) % 360.0 - 180.0, float(lat[0])

    def tiles(self) -> pa.Table:
        """Read the tile index. It has one row for each planned tile, both embedded and skipped tiles.

        Returns:
            The columns of `rasterembed.dataset.tile_index.SCHEMA`.

        Raises:
            ObjectMissingError: if the tile index is missing.
        """
        with self.store.open(self.manifest.index) as file:
            return pq.read_table(file)

    def batches(self, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
        """Yield the rows of all shards in batches. Within a shard, the rows are in tile order.

        Only one batch is in memory at a time.

        Args:
            columns: names of the columns to read. The default is all columns. docs/datasets.md lists them.

        Raises:
            ObjectMissingError: if a shard is missing.
        """
        for shard in self.shards:
            with self.store.open(shard.path) as file:
                names = None if columns is None else list(columns)
                yield from pq.ParquetFile(file).iter_batches(_BATCH_ROWS, columns=names)

    def vectors(self) -> NDArray[np.float32]:
        """Read all vectors into memory, in the order of `batches`.

        Returns:
            Shape (rows, dimensions), not normalised.
        """
        vectors = np.empty((self.manifest.rows, self.manifest.dimensions), np.float32)
        start = 0
        for batch in self.batches(["embedding"]):
            rows = slice(start, start + len(batch))
            vectors[rows] = batch.column(0).flatten().to_numpy(zero_copy_only=False).reshape(len(batch), -1)
            start += len(batch)
        return vectors

    def search(self, query: Query, where: Where | None = None, k: int | None = None) -> Answer:
        """Find the tiles whose vectors are nearest to the query's.

        Args:
            query: an example, such as a tile or an image.
            where: filters for the tiles of the answer. By default, every tile may be in the answer.
            k: number of tiles. The default is 12.

        Raises:
            UsageError: if the query does not fit the dataset.
            DataError: if the dataset has no vectors, or if it cannot be read.

        Example:
            >>> print(dataset.search(Query(tile="r000008_c000008"), k=5))  # doctest: +SKIP
        """
        from rasterembed.search.query import DEFAULT_K, Where
        from rasterembed.search.searcher import search

        return search(self.store, [self.id], query, where or Where(), DEFAULT_K if k is None else k)

    def check_quality(self, thresholds: QaThresholds | None = None) -> QaReport:
        """Measure the dataset, and write the quality report. The dataset's state does not change.

        `rasterembed.check_dataset` also writes the report, and then sets the state.

        Args:
            thresholds: bounds that the dataset must keep.
        """
        from rasterembed.qa.run import run_qa
        from rasterembed.qa.thresholds import QaThresholds

        return run_qa(self.store, self.manifest, thresholds or QaThresholds())
