"""A collection in a store: its STAC Collection, its configuration, and its scenes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field

from rasterembed.collection.catalogue import Catalogue, read_catalogue
from rasterembed.collection.configuration import CollectionConfiguration, check_member
from rasterembed.collection.scene_row import SceneState
from rasterembed.collection.stac_collection import CollectionState, CollectionVerdict, stac_collection, stac_text
from rasterembed.collection.stac_model import stac_model
from rasterembed.collection.table import TableDescription, read_table, signature_of, table_batches
from rasterembed.dataset.all_tiles_questions import AllTilesQuestions
from rasterembed.dataset.dataset import Dataset
from rasterembed.dataset.manifest import State
from rasterembed.dataset.plan import PlanSettings
from rasterembed.dataset.plan_checks import why_model_is_unusable
from rasterembed.dataset.setting_differences import entry_differences, without_consequences
from rasterembed.dataset.setting_names import differences_text
from rasterembed.dataset.vector_column import vector_columns
from rasterembed.errors import ConfigurationChangedError, DataError, RasterEmbedError, UsageError, check_type, name_list
from rasterembed.known_parameters import known_parameters
from rasterembed.model.choice import Dinov3
from rasterembed.number_text import counted
from rasterembed.store.known_collections import made_again, unknown_collection
from rasterembed.store.layout import CollectionLayout
from rasterembed.store.object_store import ObjectStore
from rasterembed.store.store_command import store_command
from rasterembed.store.stored_model import read_model

if TYPE_CHECKING:
    from geopandas import GeoDataFrame
    from numpy.typing import ArrayLike

    from rasterembed.dataset.verify import Damage
    from rasterembed.explorer.notebook import NotebookExplorer
    from rasterembed.search.answer import Answer
    from rasterembed.search.query import Query, Where


class _StoredCollection(BaseModel):
    """The entries of a stored STAC Collection that this library reads."""

    model_config = ConfigDict(frozen=True)

    id: str
    configuration: CollectionConfiguration = Field(alias="rasterembed:configuration")
    state: CollectionState = Field(alias="rasterembed:state")
    listing: str | None = Field(default=None, alias="rasterembed:listing")


@dataclass(frozen=True)
class Collection(AllTilesQuestions):
    """A collection of scenes that were embedded with the same configuration.

    Example:
        >>> collection = Collection.open(ObjectStore(root="embeddings"), "survey-2026")  # doctest: +SKIP
        >>> collection.catalogue.count  # doctest: +SKIP
        1000
    """

    store: ObjectStore
    """The store that holds the collection's objects."""
    id: str
    """Name of the collection."""
    configuration: CollectionConfiguration
    """The settings that all scenes have in common."""
    state: CollectionState
    """Whether the last run completed the collection."""
    listing: str | None = None
    """Address of the scenes of a run that has not ended. None if the last run has ended."""

    @classmethod
    @known_parameters
    def open(cls, store: ObjectStore, collection_id: str) -> Collection:
        """Read the description of a collection, and return the collection. The catalogue is read when it is needed.

        Args:
            store: the store that holds the collection.
            collection_id: name of the collection.

        Raises:
            UsageError: if the store has no collection of this name.
            DataError: if this version cannot read the collection.
        """
        check_type(store, ObjectStore, "store", 'an ObjectStore, such as ObjectStore(root="embeddings")')
        check_type(collection_id, str, "collection_id", "the collection's id as text")
        found = find_collection(store, collection_id)
        if found is None:
            raise unknown_collection(store, collection_id)
        return found

    def __repr__(self) -> str:
        """Return one line that describes the collection. Its numbers come from the catalogue, which is read once."""
        try:
            numbers = f"{counted(self.catalogue.count, 'scene')}, {counted(self.catalogue.vectors, 'row')}"
        except RasterEmbedError:
            numbers = "its catalogue cannot be read"
        return f"Collection {self.id!r}: {self.state.value}, {numbers}"

    @cached_property
    def layout(self) -> CollectionLayout:
        """Keys of the collection's objects in the store."""
        return CollectionLayout(self.id)

    @cached_property
    def catalogue(self) -> Catalogue:
        """The catalogue, with one row for each scene. It is read once. A new collection has no scene.

        Raises:
            DataError: if the catalogue cannot be read, or if a run has completed the collection and the catalogue is
                missing.
        """
        found = read_catalogue(self.store, self.layout)
        # A deletion sets another state before it deletes the catalogue, so the state is read again.
        if found is None and self._is_complete():
            raise DataError(
                f"{self.store.uri(self.layout.catalogue)}: the catalogue is missing: run "
                f"{store_command(self.store, f'collection rebuild {self.id}')}, which makes it again"
            )
        return found or Catalogue.of([])

    def _is_complete(self) -> bool:
        """Return whether the collection is complete. If it was when it was opened, its state is read again."""
        if self.state is not CollectionState.READY:
            return False
        now = find_collection(self.store, self.id)
        return now is not None and now.state is CollectionState.READY

    def scenes(self) -> GeoDataFrame:
        """Return the catalogue as a GeoDataFrame. The package geopandas must be installed.

        Returns:
            One row for each scene, with the footprint in OGC:CRS84.

        Raises:
            UsageError: if geopandas is not installed.
            DataError: if the catalogue cannot be read.
        """
        try:
            from geopandas import GeoDataFrame
        except ImportError as error:
            raise UsageError(
                "a GeoDataFrame needs the package geopandas, which is not installed: pip install geopandas"
            ) from error
        frame = self.catalogue.table.drop_columns(["geometry"]).to_pandas()
        return GeoDataFrame(frame, geometry=self.catalogue.geometry(), crs="OGC:CRS84")

    def verify(self) -> tuple[Damage, ...]:
        """Read every file of the collection and of its scenes, and return the files that are missing or damaged.

        See `rasterembed.collection.verifying.verify_collection` and `rasterembed.search.index.verifying.verify_index`.

        Raises:
            StoreUnavailableError: if the store does not answer.
        """
        from rasterembed.collection.verifying import verify_collection
        from rasterembed.search.index.verifying import verify_index

        results = (*verify_collection(self), *verify_index(self))
        return tuple(damage for damage in results if damage is not None)

    @known_parameters
    def remove_scene(self, scene: str) -> Collection:
        """Remove a scene with its dataset from the collection. The files of the scene are not touched.

        The table and the vector index are brought up to date. A scene that still lies at the address of a listing comes
        back with the next run of that listing.

        Args:
            scene: id of the scene's dataset, or address of the scene's file.

        Returns:
            The collection without the scene.

        Raises:
            UsageError: if the collection has no such scene.
            LeaseHeldError: if another run is writing the collection.
        """
        from rasterembed.collection_upkeep import remove_from_collection

        remove_from_collection(self, scene)
        return Collection.open(self.store, self.id)

    def delete(self) -> None:
        """Delete the collection with the datasets of its scenes. The files of the scenes are not touched.

        A dataset that was embedded before it joined the collection stays.

        Raises:
            LeaseHeldError: if another run is writing the collection.
        """
        from rasterembed.collection.deletion import delete_collection

        delete_collection(self.store, self.id)

    @known_parameters
    def datasets(self, states: Sequence[SceneState] = (SceneState.READY,)) -> Iterator[Dataset]:
        """Yield the datasets of the scenes in these states, in the order of their ids.

        Args:
            states: states of scenes. A scene in state `failed` has no dataset.

        Raises:
            ConfigurationChangedError: if a dataset was embedded again with other settings than the collection has.
            DataError: if a dataset is in another state than the catalogue says.
        """
        wanted = [state for state in states if state is not SceneState.FAILED]
        table = self.catalogue.filter(states=wanted).table
        for dataset_id, state in zip(table["id"].to_pylist(), table["state"].to_pylist(), strict=True):
            yield self.dataset(dataset_id, state)

    @known_parameters
    def dataset(self, dataset_id: str, state: State = "ready") -> Dataset:
        """Return the dataset of a scene, after a check that it has the settings of the collection.

        Args:
            dataset_id: id of the dataset.
            state: state of the dataset in the catalogue.

        Raises:
            ConfigurationChangedError: if the dataset was embedded again with other settings than the collection has.
            UsageError: if there is no such dataset.
            DataError: if the dataset is in another state, or if it cannot be read.
        """
        opened = Dataset.open(self.store, dataset_id, (state,))
        check_member(self.configuration, opened.plan, self.id)
        return opened

    @cached_property
    def table(self) -> TableDescription | None:
        """The description of the table, or None if the collection has no table. It is read once.

        Raises:
            DataError: if the description cannot be read.
        """
        return read_table(self.store, self.layout)

    @cached_property
    def table_is_current(self) -> bool:
        """Whether the table has the scenes that the catalogue calls ready, and no others.

        Raises:
            DataError: if the description of the table or the catalogue cannot be read.
        """
        return self.table is not None and self.table.signature == signature_of(self.configuration, self.catalogue)

    @known_parameters
    def vectors(self, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
        """Yield the vectors of all scenes in state `ready`, in batches. Only one batch is in memory at a time.

        The rows come from the table if it is up to date, in the order of the Hilbert curve. Otherwise they come from
        the shards, one scene after the other.

        Args:
            columns: columns to read. docs/datasets.md and docs/collections.md list them. The default is `tile_id` and
                the columns of the vectors: `embedding`, and `scale` if the vectors are stored as int8.

        Yields:
            Batches with the column `dataset_id`, and then the chosen columns. `rasterembed.decode_vectors` makes
            float32 vectors of a batch with the columns of the vectors.

        Raises:
            UsageError: if a column does not exist.
            DataError: if a file cannot be read.
        """
        if columns is None:
            columns = ("tile_id", *vector_columns(self.configuration.selection.vector_dtype))
        names = [name for name in name_list(columns, "columns") if name != "dataset_id"]
        if self.table is not None and self.table_is_current:
            yield from table_batches(self.store, self.layout, self.table, ["dataset_id", *names])
            return
        for dataset in self.datasets():
            for batch in dataset.batches(names):
                ids = pa.repeat(pa.scalar(dataset.id), len(batch))
                yield pa.RecordBatch.from_arrays([ids, *map(batch.column, names)], names=["dataset_id", *names])

    @known_parameters
    def search(
        self,
        query: Query | None = None,
        where: Where | None = None,
        k: int | None = None,
        *,
        vector: ArrayLike | None = None,
    ) -> Answer:
        """Find the tiles of all ready scenes whose vectors are nearest to the query's.

        For several queries, a `CollectionSearcher` is faster.

        Args:
            query: an example, such as a place, a tile of a scene, or an image. Give either `query` or `vector`.
            vector: a vector of the collection's model, shape (dimensions,). It need not be normalised.
            where: filters for the tiles of the answer, and the choice between scenes of the same ground.
            k: number of tiles. The default is 12.

        Raises:
            UsageError: if the query or the vector does not fit the collection.
            DataError: if the collection has no table, or if it cannot be read.

        Example:
            >>> print(collection.search(Query(lonlat=(24.94, 60.17)), Where(pick="latest"), k=20))  # doctest: +SKIP
        """
        from rasterembed.search.ask_once import ask_once
        from rasterembed.search.collection_searcher import CollectionSearcher

        return ask_once(lambda: CollectionSearcher(self.store, self.id), query, where, k, vector)

    @known_parameters
    def explore(
        self, *, height: int = 640, port: int = 0, frame_origins: Sequence[str] | None = None
    ) -> NotebookExplorer:
        """Show the collection on a map in a notebook. See `rasterembed.dataset.dataset.Dataset.explore`.

        Args:
            height: height of the frame, px.
            port: port to listen on. 0 takes any free port.
            frame_origins: origins of the pages that may show the frame, such as https://hub.example. By default, those
                of notebook servers on this machine.

        Raises:
            UsageError: if the port is taken, or if a parameter is wrong.
        """
        from rasterembed.explorer.notebook import explore_in_notebook  # It imports a web server.

        return explore_in_notebook(self.store, "collections", self.id, height, port, frame_origins)


def find_collection(store: ObjectStore, collection_id: str) -> Collection | None:
    """Return a collection, or None if the store has no collection of this name.

    Raises:
        UsageError: if the id is not allowed.
        DataError: if this version cannot read the collection.
    """
    layout = CollectionLayout(collection_id)
    stored = read_model(
        store,
        layout.stac_collection,
        _StoredCollection,
        name="collection",
        remedy=made_again(collection_id),
        why_unusable=lambda stored: _why_unusable(stored, collection_id),
    )
    if stored is None:
        return None
    return Collection(store, collection_id, stored.configuration, stored.state, stored.listing)


def _why_unusable(stored: _StoredCollection, collection_id: str) -> str | None:
    """Return the reason why this library cannot have written a STAC Collection, or None if it can."""
    if stored.id != collection_id:
        return "id: it is another collection"
    reason = why_model_is_unusable(stored.configuration.model)
    return None if reason is None else f"rasterembed:configuration.{reason}"


def write_collection(
    store: ObjectStore,
    layout: CollectionLayout,
    configuration: CollectionConfiguration,
    catalogue: Catalogue,
    state: CollectionState,
    quality: CollectionVerdict | None = None,
    listing: str | None = None,
) -> None:
    """Write the STAC Collection and the Item of its model, unless the store has the same ones.

    The caller must hold the collection's lease.
    """
    content = stac_collection(layout, configuration, catalogue, state, quality, listing)
    for key, document in ((layout.stac_model, stac_model(layout, configuration)), (layout.stac_collection, content)):
        data = stac_text(document)
        if store.read(key) != data:
            store.write(key, data)


def settings_for(store: ObjectStore, collection_id: str, settings: PlanSettings) -> PlanSettings | None:
    """Return the settings for a run, if a form gave the default for everything that a person did not choose.

    A person who chose nothing wants the settings of an existing collection. The device is no setting of a collection,
    so it may be chosen for every run.

    Args:
        store: store of the collection.
        collection_id: name of the collection.
        settings: the settings of the form.

    Returns:
        Settings, or None for those of the collection, or for the defaults of a new collection.
    """
    device = settings.model.device
    if settings != PlanSettings(model=Dinov3(device=device)):
        return settings
    if device == "auto":
        return None
    existing = find_collection(store, collection_id)
    return settings if existing is None else existing.configuration.settings(device)


def check_configuration(collection: Collection, wanted: CollectionConfiguration) -> None:
    """Refuse settings that differ from those of the collection.

    Raises:
        ConfigurationChangedError: if they differ. The text names each difference.
    """
    differences = without_consequences(entry_differences(collection.configuration.values(), wanted.values()))
    if differences:
        changes = differences_text(differences, "in the collection", "requested")
        raise ConfigurationChangedError(
            f"collection {collection.id!r} exists with another configuration ({changes}): leave the settings out to "
            "use those of the collection, choose another collection id, or delete the collection with its datasets "
            f"({store_command(collection.store, f'collection delete {collection.id}')})"
        )
