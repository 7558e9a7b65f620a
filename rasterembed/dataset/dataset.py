"""A dataset in a store. Search, quality checks, tasks and users read datasets through this module."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from numpy.typing import ArrayLike, NDArray
from pydantic import ValidationError

from rasterembed.dataset.all_tiles_questions import AllTilesQuestions
from rasterembed.dataset.column_names import check_columns
from rasterembed.dataset.geoparquet import PARQUET_ERRORS
from rasterembed.dataset.manifest import Manifest, State, read_manifest
from rasterembed.dataset.plan import Plan
from rasterembed.dataset.shards import Shard, shard_schema
from rasterembed.dataset.vector_column import decode_vectors, vector_columns
from rasterembed.errors import DataError, ObjectMissingError, check_type, name_list, one_line, validation_reason
from rasterembed.known_parameters import known_parameters
from rasterembed.number_text import counted
from rasterembed.raster.georeference import Georeference
from rasterembed.raster.radiometry import ResolvedRadiometry
from rasterembed.raster.skip_reason import reasons_text
from rasterembed.store.known_datasets import layout_of_known, unknown_dataset
from rasterembed.store.layout import DatasetLayout, name_of
from rasterembed.store.object_store import ObjectStore
from rasterembed.store.store_command import store_command

if TYPE_CHECKING:
    from geopandas import GeoDataFrame

    from rasterembed.dataset.verify import Damage
    from rasterembed.explorer.notebook import NotebookExplorer
    from rasterembed.qa.report import QaReport
    from rasterembed.qa.thresholds import QaThresholds
    from rasterembed.search.answer import Answer
    from rasterembed.search.query import Query, Where

_BATCH_ROWS = 8192
"""Largest number of table rows in a batch of `Dataset.batches`."""

_INDEX_BYTES, _INDEX_ROW_BYTES = 2**26, 2**13
"""Largest size of a tile index in memory, in bytes, and for each of its rows. A footprint has up to 4 KiB, and only a
few footprints at the edge of a map have more."""


@dataclass(frozen=True)
class Dataset(AllTilesQuestions):
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
    @known_parameters
    def open(cls, store: ObjectStore, dataset_id: str, states: Sequence[State] = ("ready",)) -> Dataset:
        """Read a dataset's manifest and return the dataset.

        Args:
            store: the store that holds the dataset.
            dataset_id: name of the dataset.
            states: states that the caller accepts.

        Raises:
            UsageError: if the store has no dataset of this name, or if the states are one text.
            DataError: if the dataset is in another state, or if the manifest cannot be read.
        """
        check_type(store, ObjectStore, "store", 'an ObjectStore, such as ObjectStore(root="embeddings")')
        check_type(dataset_id, str, "dataset_id", "the dataset's id as text")
        accepted = name_list(states, "states")
        layout = layout_of_known(store, dataset_id)
        manifest = read_manifest(store, dataset_id)
        if manifest is None:
            raise unknown_dataset(store, dataset_id)
        if manifest.state not in accepted:
            report = store.uri(layout.qa_report_markdown)
            check = store_command(store, f"qa {dataset_id}")
            why = {
                "failed_qa": f"it did not pass its quality checks; see {report}, or accept its vectors with other "
                f"bounds of {check}",
                "embedded": f"its quality checks have not passed yet: run {check}, or wait for the run to end",
                "ready": "it is ready",
            }[manifest.state]
            raise DataError(f"dataset {dataset_id!r} cannot be used: {why}")
        return cls(store, manifest)

    def __repr__(self) -> str:
        """Return one short line for people."""
        return f"Dataset {self.id!r}: {self.manifest.state}, {counted(self.manifest.rows, 'row')}"

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

    def check_shard_sizes(self) -> None:
        """Compare the size of every shard with the manifest. The folder of the shards is listed once.

        Raises:
            DataError: if a shard is missing or has another size.
            StoreError: if the store refuses or does not answer.
        """
        sizes = self.store.sizes(self.layout.shards_folder)
        for shard in self.shards:
            size = sizes.get(name_of(shard.path))
            if size != shard.bytes:
                found = "is missing" if size is None else f"has {size} bytes, and the manifest says {shard.bytes}"
                raise DataError(
                    f"dataset {self.id!r}: {self.store.uri(shard.path)} {found}: "
                    f"run {store_command(self.store, f'datasets verify {self.id}')}"
                )

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
            DataError: if the manifest does not hold a radiometry, or if a number in it is impossible.
        """
        place = f"{self.store.uri(self.layout.manifest)}: configuration.radiometry"
        try:
            radiometry = ResolvedRadiometry.model_validate(self.manifest.configuration.get("radiometry"))
        except ValidationError as error:
            raise DataError(f"{place}: {validation_reason(error)}: embed the raster again") from error
        if not radiometry.is_possible:
            raise DataError(f"{place}: black or white is not finite, or both are equal: embed the raster again")
        return radiometry

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

    @known_parameters
    def lonlat(self, col: float, row: float) -> tuple[float, float] | None:
        """Return the longitude and latitude of a pixel position.

        Args:
            col: distance from the raster's left edge, px.
            row: distance from the raster's upper edge, px.

        Returns:
            Degrees in OGC:CRS84, with the longitude from -180 to below 180. None if the raster has no place on Earth,
            or if the position lies beyond the edge of its map.
        """
        lon, lat = self.lonlats(np.array([col], np.float64), np.array([row], np.float64))
        return None if np.isnan(lon[0]) else (float(lon[0]), float(lat[0]))

    @known_parameters
    def lonlats(
        self, cols: NDArray[np.float64], rows: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the longitudes and latitudes of pixel positions. See `lonlat`.

        Args:
            cols: distances from the raster's left edge, px, shape (n,).
            rows: distances from the raster's upper edge, px, shape (n,).

        Returns:
            Longitudes and latitudes in degrees, shape (n,). NaN where `lonlat` would return None.
        """
        profile = self.plan.profile
        lon, lat = np.full(len(cols), np.nan), np.full(len(cols), np.nan)
        if not profile.on_earth:
            return lon, lat
        # The centre of a tile of an anchored grid may lie outside the raster.
        exist = (cols >= 0) & (cols <= profile.width) & (rows >= 0) & (rows <= profile.height)
        if not (exist.any() and self._georeference.wholly_on_earth):
            exist[:] = False
        if not exist.all():
            exist[~exist] = self._georeference.exist(cols[~exist], rows[~exist])
        if exist.all():
            lon, lat = self._georeference.lonlat(cols, rows)
        elif exist.any():
            lon[exist], lat[exist] = self._georeference.lonlat(cols[exist], rows[exist])
        return (lon + 180.0) % 360.0 - 180.0, lat

    def tiles(self) -> pa.Table:
        """Read the tile index. It has one row for each planned tile, both embedded and skipped tiles.

        Returns:
            The columns of `rasterembed.dataset.tile_index.SCHEMA`.

        Raises:
            ObjectMissingError: if the tile index is missing.
        """
        from rasterembed.dataset.whole_table import TableLimits, read_whole_table  # It imports all of Arrow.

        with self._readable(self.manifest.index), self.store.open(self.manifest.index) as file:
            tiles = self.manifest.tiles
            return read_whole_table(file, TableLimits(tiles, _INDEX_BYTES + _INDEX_ROW_BYTES * tiles))

    def skipped_text(self) -> str:
        """Return the number of skipped tiles with their reasons, as text for people.

        If the tile index, which has the reasons, cannot be read, the text says so.

        Example:
            >>> dataset.skipped_text()  # doctest: +SKIP
            '3 (2 x no valid pixel, 1 x valid fraction below 0.05)'
        """
        if not self.manifest.skipped:
            return "0"
        import pyarrow.parquet as pq  # A search with an index does not need it.

        counts = Counter[str]()
        try:
            with self._readable(self.manifest.index), self.store.open(self.manifest.index) as file:
                for batch in pq.ParquetFile(file).iter_batches(_BATCH_ROWS, columns=["reason"]):
                    counts.update(reason for reason in batch.column(0).to_pylist() if reason is not None)
        except DataError as error:
            return f"{self.manifest.skipped}; their reasons are not known: {error}"
        minimum = float(self.manifest.configuration["selection"]["min_valid_fraction"])
        return f"{self.manifest.skipped} ({reasons_text(counts, minimum)})"

    @property
    def columns(self) -> list[str]:
        """Names of the columns of the shards. docs/datasets.md describes them."""
        return list(shard_schema(self.plan).names)

    @property
    def vector_columns(self) -> tuple[str, ...]:
        """Names of the columns that hold a vector: `embedding`, and `scale` if the vectors are stored as int8."""
        return vector_columns(self.manifest.vector_dtype)

    @known_parameters
    def batches(self, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
        """Yield the rows of all shards in batches. Within a shard, the rows are in tile order.

        Only one batch is in memory at a time. `vectors_of` gives the vectors of a batch with the columns
        `vector_columns`.

        Args:
            columns: names of the columns to read. The default is all columns. docs/datasets.md lists them.

        Raises:
            UsageError: if a column does not exist.
            ObjectMissingError: if a shard is missing.
        """
        import pyarrow.parquet as pq  # A search with an index does not need it.

        names = None if columns is None else name_list(columns, "columns")
        for shard in self.shards:
            with self._readable(shard.path), self.store.open(shard.path) as file:
                shard_file = pq.ParquetFile(file)
                check_columns(f"dataset {self.id!r}", names or (), shard_file.schema_arrow.names)
                yield from shard_file.iter_batches(_BATCH_ROWS, columns=names)

    def vectors(self) -> NDArray[np.float32]:
        """Read all vectors into memory, in the order of `batches`.

        Returns:
            Shape (rows, dimensions), dtype float32, not normalised.

        Raises:
            ObjectMissingError: if a shard is missing.
            DataError: if the shards do not hold the vectors that the manifest lists.
        """
        vectors = np.empty((self.manifest.rows, self.manifest.dimensions), np.float32)
        start = 0
        for batch in self.batches(self.vector_columns):
            stop = start + len(batch)
            if stop > len(vectors):
                raise self._other_vectors()
            vectors[start:stop] = self.vectors_of(batch)
            start = stop
        if start != len(vectors):
            raise self._other_vectors()
        return vectors

    @known_parameters
    def vectors_of(self, batch: pa.RecordBatch) -> NDArray[np.float32]:
        """Return the vectors of a batch from `batches` with the columns `vector_columns`.

        Returns:
            Shape (rows, dimensions), dtype float32, not normalised.

        Raises:
            DataError: if the batch does not hold vectors of the length that the manifest says.
        """
        try:
            vectors = decode_vectors(batch)
        except ValueError as error:
            raise self._other_vectors() from error
        if vectors.shape[1] != self.manifest.dimensions:
            raise self._other_vectors()
        return vectors

    def _other_vectors(self) -> DataError:
        return DataError(
            f"dataset {self.id!r}: its shards do not hold {self.manifest.rows} vectors of {self.manifest.dimensions} "
            f"numbers, as its manifest says: run {store_command(self.store, f'datasets verify {self.id}')}"
        )

    @contextmanager
    def _readable(self, key: str) -> Iterator[None]:
        """Turn pyarrow's error about a damaged Parquet file into a DataError that names the file.

        If the file is missing because the dataset was deleted, the error says so.
        """
        try:
            yield
        except ObjectMissingError as error:
            if self.store.read(self.layout.manifest) is None:
                raise ObjectMissingError(f"dataset {self.id!r} was deleted from {self.store.root}") from error
            raise
        except PARQUET_ERRORS as error:
            raise DataError(
                f"{self.store.uri(key)}: it cannot be read ({one_line(error)}): "
                f"run {store_command(self.store, f'datasets verify {self.id}')}"
            ) from error

    @known_parameters
    def to_geodataframe(self, columns: Sequence[str] | None = None, *, vectors: bool = True) -> GeoDataFrame:
        """Read all rows into a GeoDataFrame, in the order of `batches`. The package geopandas must be installed.

        Args:
            columns: names of the columns to read. The default is all columns except `bbox`. `geometry` is always read.
            vectors: whether the column `embedding` is read. Without this column, a large dataset needs far less memory.

        Returns:
            One row for each embedded tile. The geometry is the outline of the tile's window in OGC:CRS84. If the raster
            has no place on Earth, the geometry is in pixels, and the frame has no CRS. `embedding` holds arrays of
            float32.

        Raises:
            UsageError: if geopandas is not installed, or if a column does not exist.
            ObjectMissingError: if a shard is missing.

        Example:
            >>> dataset.to_geodataframe(["tile_id"], vectors=False).explore()  # doctest: +SKIP
        """
        from rasterembed.dataset.frames import read_geodataframe  # geopandas is optional.

        return read_geodataframe(self, columns, vectors=vectors)

    def verify(self) -> tuple[Damage, ...]:
        """Read every file that the manifest lists and the vector index, and return the files that are damaged.

        Sizes and SHA-256 digests of the shards and the tile index are compared with the manifest, those of the vector
        index with its description, and the manifest with the plan. A file that is missing counts as damaged. A search
        compares only the sizes of the shards. It therefore does not find every damage.

        Raises:
            StoreUnavailableError: if the store does not answer.
        """
        from rasterembed.dataset.verify import verify_dataset
        from rasterembed.search.index.verifying import verify_index

        results = (*verify_dataset(self.store, self.manifest), *verify_index(self))
        return tuple(damage for damage in results if damage is not None)

    def delete(self) -> int:
        """Delete the dataset with its report and its vector index, and return the number of deleted objects.

        The manifest is deleted first, so no reader sees a part of the dataset. `Collection.remove_scene` deletes the
        dataset of a scene in a collection. Remove a dataset that joined a collection from the collection first: this
        method does not look for it there, because it would read the catalogues of all collections.

        Raises:
            UsageError: if a collection made the dataset.
            LeaseHeldError: if another run is writing the dataset.
            StoreError: if the store refuses or does not answer.
        """
        from rasterembed.dataset.deletion import delete_dataset

        return delete_dataset(self.store, self.id)

    @known_parameters
    def search(
        self,
        query: Query | None = None,
        where: Where | None = None,
        k: int | None = None,
        *,
        vector: ArrayLike | None = None,
    ) -> Answer:
        """Find the tiles whose vectors are nearest to the query's.

        Args:
            query: an example, such as a tile or an image. Give either `query` or `vector`.
            vector: a vector of the dataset's model, shape (dimensions,). It need not be normalised.
            where: filters for the tiles of the answer. Without filters, every tile may be in the answer.
            k: number of tiles. The default is 12.

        Raises:
            UsageError: if the query or the vector does not fit the dataset.
            DataError: if the dataset has no vectors, or if it cannot be read.

        Example:
            >>> print(dataset.search(Query(tile="r000008_c000008"), k=5))  # doctest: +SKIP
            >>> print(dataset.search(vector=dataset.vectors()[:10].mean(axis=0)))  # doctest: +SKIP
        """
        from rasterembed.search.ask_once import ask_once
        from rasterembed.search.searcher import Searcher

        return ask_once(lambda: Searcher(self.store, [self.id]), query, where, k, vector)

    @known_parameters
    def explore(
        self, *, height: int = 640, port: int = 0, frame_origins: Sequence[str] | None = None
    ) -> NotebookExplorer:
        """Show the dataset on a map in a notebook: click a tile, and see the most similar ones.

        A service in a thread of this process answers the page. It listens on this machine only, until `close` is called
        on the result, or the process ends. docs/explorer.md describes the page.

        Args:
            height: height of the frame, px.
            port: port to listen on. 0 takes any free port.
            frame_origins: origins of the pages that may show the frame, such as https://hub.example. By default, those
                of notebook servers on this machine.

        Raises:
            UsageError: if the port is taken, or if a parameter is wrong.

        Example:
            >>> explorer = dataset.explore()  # doctest: +SKIP
        """
        from rasterembed.explorer.notebook import explore_in_notebook  # It imports a web server.

        return explore_in_notebook(self.store, "datasets", self.id, height, port, frame_origins)

    @known_parameters
    def check_quality(self, thresholds: QaThresholds | None = None) -> QaReport:
        """Measure the dataset, and write the quality report. The dataset's state does not change.

        `rasterembed.check_dataset` also writes the report, and then sets the state.

        Args:
            thresholds: bounds that the dataset must keep.
        """
        from rasterembed.qa.run import run_qa
        from rasterembed.qa.thresholds import QaThresholds

        return run_qa(self.store, self.manifest, thresholds or QaThresholds())
