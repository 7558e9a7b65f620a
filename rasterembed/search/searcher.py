"""Search datasets for the tiles that are most similar to an example."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import ValidationError

from rasterembed.dataset.dataset import Dataset
from rasterembed.dataset.extent import outline
from rasterembed.dataset.manifest import State
from rasterembed.dataset.wkb import FootprintError, read_footprints
from rasterembed.errors import DataError, StoreUnavailableError, UsageError, name_list
from rasterembed.escape import escape_terminal
from rasterembed.known_parameters import known_parameters
from rasterembed.model.choice import Device
from rasterembed.number_text import counted
from rasterembed.search.answer import Answer, Hit, UsedEngine, hits_of
from rasterembed.search.areas import AreaFiles, Areas, hint_for_areas, notes_on_areas
from rasterembed.search.class_tiles import ClassFiles, ClassTiles
from rasterembed.search.datasets import choose_datasets
from rasterembed.search.engines.workers import turn
from rasterembed.search.examples import DatasetTiles, ResolvedExamples, resolve_examples, vector_example
from rasterembed.search.filter_columns import FilterColumns
from rasterembed.search.filters import Filters
from rasterembed.search.indexed_search import IndexedSearch, SegmentSearch, check_engine
from rasterembed.search.not_searched import NotSearched, NotSearchedReason
from rasterembed.search.query import DEFAULT_K, MAX_K, EngineChoice, Query, Where
from rasterembed.search.radiometry_groups import group_by_radiometry
from rasterembed.search.tile_lookup import check_tile_index
from rasterembed.search.vector_files import VectorFiles
from rasterembed.search.why_no_scene import SceneFacts, why_no_scene
from rasterembed.search.why_no_tile import (
    TileFilter,
    not_in_the_area,
    not_in_the_classes,
    too_few_valid_pixels,
    why_no_tile,
)
from rasterembed.store.connection_pool import ConnectionPool
from rasterembed.store.object_store import ObjectStore

if TYPE_CHECKING:
    import duckdb

_SHOWN_DATASETS = 3
"""Largest number of datasets that the `repr` of a searcher names."""


@dataclass(frozen=True)
class _ReadFilters:
    """The filters of a search, with the content of their files."""

    where: Where
    areas: Areas
    classes: ClassTiles | None


@dataclass(frozen=True)
class _Found:
    """What a search of several datasets found."""

    rows: list[tuple[Dataset, dict[str, Any]]]
    """The nearest rows of each dataset, nearest first, with the columns that `SearchEngine.nearest` describes."""
    engines: list[UsedEngine]
    """The engines that were used."""
    searched: list[Dataset]
    """The datasets that were searched."""
    not_searched: list[NotSearched]
    """The datasets that were left out, with the reason."""


class Searcher:
    """Searches the same datasets any number of times. The vector indexes of the datasets stay open.

    Use a searcher as a context manager, or call `close` at the end. Several threads may ask one searcher at the same
    time. Close it when no thread uses it any more.

    Args:
        store: the store that holds the datasets.
        dataset_ids: names of the datasets, and patterns such as `incoming-*`. `*` stands for all datasets of the store.
            Named datasets must have been embedded with the same model and settings. A dataset that only a pattern names
            is left out if it is not usable, and the answer says so. See
            `rasterembed.search.datasets.choose_datasets`.
        engine: `auto` uses a dataset's vector index if it has one. `scan` compares the query with every vector. `flat`,
            `ivf` and `vss` use the vector index only if it was built for this engine. The exact scan answers for each
            dataset without such an index.
        ef_search: number of candidates in a search of the engine `vss`. None means the default of the index.
        device: device that runs the model for images.
        hub_token: access token of the Hugging Face Hub. It is needed for images if the weights are gated.
        model_of: name of the dataset whose model the search uses, if a pattern names datasets of several models. By
            default, it is the model of the first named dataset. If only patterns are given, it is the model of most
            datasets.
        states: states in which a named dataset is accepted. The explorer accepts all states for the tiles on its map.

    Raises:
        UsageError: if the store has no dataset with one of the names, or if `ef_search` is given and `engine` is not
            `vss`.
        DataError: if a dataset is not ready, or if the datasets were embedded with different models.

    Example:
        >>> from rasterembed.search.query import Query, Where
        >>> from rasterembed.store.object_store import ObjectStore
        >>> with Searcher(ObjectStore(root="embeddings"), ["scene"]) as searcher:
        ...     answer = searcher.ask(Query(tile="r000012_c000034"), Where(min_valid_fraction=0.9), k=5)
        >>> print(*(hit.rank for hit in answer.hits))
        1 2 3 4 5
    """

    @known_parameters
    def __init__(
        self,
        store: ObjectStore,
        dataset_ids: Sequence[str],
        *,
        engine: EngineChoice = "auto",
        ef_search: int | None = None,
        device: Device = "auto",
        hub_token: str | None = None,
        model_of: str | None = None,
        states: Sequence[State] = ("ready",),
    ) -> None:
        check_engine(engine, ef_search)
        chosen = choose_datasets(store, name_list(dataset_ids, "dataset ids"), like=model_of, states=states)
        self.datasets = chosen.datasets
        self._not_searched, self._by_pattern = chosen.not_searched, chosen.by_pattern
        self._device = device
        self._hub_token = hub_token
        self._connections = ConnectionPool(_connect)
        self._class_files = ClassFiles(store)
        self._area_files = AreaFiles()
        self._indexes = {
            dataset.id: IndexedSearch(VectorFiles.of_dataset(dataset), engine, ef_search) for dataset in self.datasets
        }

    def __repr__(self) -> str:
        """Return one short line."""
        names = ", ".join(dataset.id for dataset in self.datasets[:_SHOWN_DATASETS])
        more = ", ..." if len(self.datasets) > _SHOWN_DATASETS else ""
        return f"Searcher of {counted(len(self.datasets), 'dataset')}: {names}{more}"

    def __enter__(self) -> Searcher:
        """Return the searcher. It is closed at the end of the block."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the searcher."""
        self.close()

    def close(self) -> None:
        """Release the memory of the indexes and of the data that was read."""
        for index in self._indexes.values():
            index.close()
        self._connections.close()

    @property
    def nbytes(self) -> int:
        """Memory of the searcher in bytes, without mapped files and the caches of DuckDB."""
        return sum(index.nbytes for index in self._indexes.values())

    def datasets_of(self, answer: Answer) -> Sequence[Dataset]:
        """Return the datasets whose rasters have the tiles of an answer."""
        return self.datasets

    def dataset_of_image(self) -> Dataset:
        """Return the dataset whose model, radiometry and tile size an image of a query is read with: the first one."""
        return self.datasets[0]

    @known_parameters
    def ask(self, query: Query, where: Where = Where(), k: int = DEFAULT_K) -> Answer:
        """Return the k tiles that are nearest to the query's examples and pass the filters.

        Tiles with the same distance are in the order of their ids.

        Args:
            query: the examples.
            where: filters for the tiles of the answer.
            k: number of tiles. If fewer tiles pass the filters, the answer has fewer tiles.

        Raises:
            UsageError: if the query has a tile that is not in the datasets; or if k is not from 1 to
                `MAX_K`.
            DataError: if a tile of the query has no vector; if the image, the GeoJSON file or a shard cannot be read;
                or if an area is given, but a dataset has no place on Earth.
        """
        check_k(k)
        _check_pick(where)
        started = time.monotonic()
        chosen = self._read_filters(where)
        examples, unreadable = self._resolve(query)
        return self._answer(query, examples, chosen, k, started, unreadable)

    def resolve(self, query: Query) -> ResolvedExamples:
        """Return the examples of a query, and the vector that `ask` compares with all vectors.

        Raises:
            UsageError: if the query has a tile that is not in the datasets.
            DataError: if a tile of the query has no vector, or if the image or a shard cannot be read.
        """
        return self._resolve(query)[0]

    def passing(self, rows: FilterColumns, where: Where) -> NDArray[np.bool_]:
        """Return which tiles of the only dataset of this searcher pass the filters of `ask`.

        Args:
            rows: the tiles, n of them, such as the rows of `rasterembed.search.batch.all_tiles.AllTiles`. A filter for
                an area needs the column `bbox`.
            where: the filters.

        Returns:
            Booleans, shape (n,).

        Raises:
            UsageError: if `where.pick` is not `all`.
            DataError: if a file of the filters or a footprint cannot be read.
        """
        (dataset,) = self.datasets
        _check_pick(where)
        chosen = self._read_filters(where)
        if _why_left_out(dataset, where) is not None:
            return np.zeros(rows.rows, bool)
        if chosen.areas:
            dataset.check_on_earth()
        (selection,) = _filters(chosen, dataset, frozenset()).select([rows])
        return rows.live_rows() if selection is None else selection.mask

    @known_parameters
    def ask_vector(self, vector: NDArray[np.generic], where: Where = Where(), k: int = DEFAULT_K) -> Answer:
        """Return the k tiles whose vectors are nearest to a given vector and pass the filters.

        Args:
            vector: a vector of the datasets' model, shape (dimensions,). It need not be normalised.
            where: filters for the tiles of the answer.
            k: number of tiles. If fewer tiles pass the filters, the answer has fewer tiles.

        Raises:
            UsageError: if the vector has another shape, is zero, or is not made of finite real numbers; or if k is not
                from 1 to `MAX_K`.
            DataError: see `ask`.
        """
        check_k(k)
        _check_pick(where)
        started = time.monotonic()
        chosen = self._read_filters(where)
        examples = vector_example(vector, self.datasets[0].manifest.dimensions)
        return self._answer(None, examples, chosen, k, started)

    def _turn(self) -> AbstractContextManager[object]:
        """Return the block in which the tiles of an answer are found.

        A search that reads shards may wait for a store, so it takes no turn.
        """
        mapped = all(index.segments is not None for index in self._indexes.values())
        return turn() if mapped else nullcontext()

    def _resolve(self, query: Query) -> tuple[ResolvedExamples, list[NotSearched]]:
        """Return the examples of a query, and the datasets that could not be looked up."""
        placed, unreadable = self._for_lookup(query)
        tiles = DatasetTiles(self._connections, placed, self._open_indexes(), [*self._not_searched, *unreadable])
        return resolve_examples(tiles, query, device=self._device, hub_token=self._hub_token), unreadable

    def _open_indexes(self) -> dict[str, SegmentSearch]:
        """Return the open indexes with segments, by dataset id."""
        return {name: index.segments for name, index in self._indexes.items() if index.segments is not None}

    def _read_filters(self, where: Where) -> _ReadFilters:
        """Read the files that the filters name."""
        classes = self._class_files.read(where, needs_datasets=len(self.datasets) > 1)
        return _ReadFilters(where, self._area_files.read(where), classes)

    def _answer(
        self,
        query: Query | None,
        examples: ResolvedExamples,
        chosen: _ReadFilters,
        k: int,
        started: float,
        unreadable: Sequence[NotSearched] = (),
    ) -> Answer:
        """Return the tiles that are nearest to the examples' vector, from all datasets except the unreadable ones.

        `query` is None if the caller gave a vector and no query.
        """
        include_query = query is None or query.include_query
        left_out = {one.dataset_id for one in unreadable}
        asked = [dataset for dataset in self.datasets if dataset.id not in left_out]
        with self._turn():
            found = self._search_each(asked, examples, chosen, k, include_query)
            hits = dataset_hits(found.rows[:k])
        hints = notes_on_areas(chosen.where, chosen.areas)
        if not hits:
            left_out_tiles = not include_query and any(example.tile is not None for example in examples.examples)
            with suppress(DataError):  # The answer is right without its reason, whose files may be missing.
                hints += self._why_empty(chosen, examples.vector, asked, found.searched, left_out_tiles)
        not_searched = [*self._not_searched, *unreadable, *found.not_searched]
        answer = Answer(
            query="a vector" if query is None else query.text(),
            examples=examples.examples,
            model=self.datasets[0].manifest.model,
            k=k,
            hits=hits,
            engines=tuple(found.engines),
            not_searched=tuple(sorted(not_searched, key=lambda one: one.dataset_id)),
            seconds=round(time.monotonic() - started, 4),
            radiometries=group_by_radiometry(found.searched),
            hint="\n".join(map(escape_terminal, hints)),
        )
        return answer.with_datasets(self.datasets)

    def _search_each(
        self,
        datasets: Sequence[Dataset],
        examples: ResolvedExamples,
        chosen: _ReadFilters,
        k: int,
        include_query: bool,
    ) -> _Found:
        """Search datasets one after the other for the tiles that are nearest to the examples' vector.

        A dataset that a pattern or `all` chose, and that cannot be searched, is left out.

        Raises:
            DataError: if a dataset that was chosen by its id cannot be searched.
        """
        found = _Found([], [], [], [])
        for dataset in datasets:
            reason = _why_left_out(dataset, chosen.where)
            if reason is not None:
                found.not_searched.append(NotSearched(dataset_id=dataset.id, reason=reason))
                continue
            if chosen.areas and dataset.id in self._by_pattern and not dataset.plan.profile.on_earth:
                found.not_searched.append(NotSearched(dataset_id=dataset.id, reason=NotSearchedReason.NO_PLACE))
                continue
            if chosen.areas:
                dataset.check_on_earth()
            filters = _filters(chosen, dataset, frozenset() if include_query else examples.tile_ids(dataset.id))
            try:
                rows, engine = self._nearest(dataset, examples.vector, k, filters)
            except DataError as error:
                if dataset.id not in self._by_pattern:
                    raise
                found.not_searched.append(_unreadable(dataset, error))
                continue
            found.engines.append(engine)
            found.searched.append(dataset)
            found.rows.extend((dataset, row) for row in rows)
        found.rows.sort(key=lambda pair: (pair[1]["distance"], pair[1]["tile_id"], pair[0].id))
        return found

    def _why_empty(
        self,
        chosen: _ReadFilters,
        vector: NDArray[np.float32],
        asked: Sequence[Dataset],
        searched: Sequence[Dataset],
        own_tiles_left_out: bool,
    ) -> list[str]:
        """Return the lines that say which filters left no tile.

        Args:
            chosen: the filters.
            vector: the vector of the query.
            asked: the datasets that the filters for whole scenes were applied to.
            searched: the datasets that were searched.
            own_tiles_left_out: whether the query has tiles that may not be in the answer.
        """

        def finds(where: Where) -> bool:
            some = self._read_filters(where)
            with self._turn():
                return any(
                    self._nearest(dataset, vector, 1, _filters(some, dataset, frozenset()))[0] for dataset in searched
                )

        where = chosen.where
        why = why_no_scene(where, list(map(_facts, asked))) if asked else []
        if not why and searched:
            instead = {
                TileFilter.AREA: lambda: _area_hint(chosen, searched) or not_in_the_area(where),
                TileFilter.VALID_PIXELS: lambda: too_few_valid_pixels(self._most_valid(searched)),
                TileFilter.CLASSES: lambda: _class_hint(chosen, searched) or not_in_the_classes(where),
            }
            why = why_no_tile(where, finds, own_tiles_left_out, instead)
        return why

    def _for_lookup(self, query: Query) -> tuple[list[Dataset], list[NotSearched]]:
        """Return the datasets in which the examples are looked up, and those whose tile index cannot be read.

        If the example is a place, a dataset that only a pattern names is left out in two cases: it has no place on
        Earth, or its tile index cannot be read.
        """
        if query.lonlat is None:
            return list(self.datasets), []
        placed, unreadable = [], []
        for dataset in self.datasets:
            if dataset.id in self._by_pattern:
                if not dataset.plan.profile.on_earth:
                    continue
                try:
                    with self._connections.borrow() as con:
                        check_tile_index(con, dataset)
                except DataError as error:
                    unreadable.append(_unreadable(dataset, error))
                    continue
            placed.append(dataset)
        if not placed:
            raise DataError("no dataset of this search has a place on Earth: search them by tile or image")
        return placed, unreadable

    def _most_valid(self, datasets: Sequence[Dataset]) -> float:
        """Return the largest share of valid pixels of a tile with a vector."""
        from rasterembed.store import duck

        most = 0.0
        for dataset in datasets:
            keys = [shard.path for shard in dataset.shards if shard.rows]
            with self._connections.borrow() as con, duck.dataset_errors(con, dataset.id):
                (largest,) = duck.scan(con, dataset.store, keys).aggregate("max(valid_fraction)").fetchone() or (None,)
            most = max(most, largest or 0.0)
        return most

    def _nearest(
        self, dataset: Dataset, vector: NDArray[np.float32], k: int, filters: Filters
    ) -> tuple[list[dict[str, Any]], UsedEngine]:
        """Return the rows of the k nearest tiles of one dataset, and the engine that found them."""

        def scan() -> pa.Table:
            from rasterembed.search.engines.scan import ScanEngine

            with self._connections.borrow() as con:
                return ScanEngine(dataset, con).nearest(vector, k, filters)

        return self._indexes[dataset.id].nearest(vector, k, filters, scan)


def _connect() -> duckdb.DuckDBPyConnection:
    """Open a DuckDB connection for scans."""
    from rasterembed.search.engines.scan import connect  # It imports DuckDB, which takes long.

    return connect()


def check_k(k: int) -> None:
    """Refuse a number of tiles that is not from 1 to `MAX_K`."""
    if isinstance(k, bool) or not isinstance(k, int | np.integer) or not 1 <= k <= MAX_K:
        raise UsageError(f"k is {k!r}: give a whole number from 1 to {MAX_K}, the number of tiles")


def _check_pick(where: Where) -> None:
    """Refuse to pick scenes of single datasets: their catalogue, which has dates and clouds, does not exist."""
    if where.pick != "all":
        raise UsageError(f"`pick={where.pick}` chooses between the scenes of a collection: search one, or leave it out")


def _why_left_out(dataset: Dataset, where: Where) -> NotSearchedReason | None:
    """Return the reason why filters leave out a whole dataset, or None."""
    scene = _facts(dataset)
    if not where.acquired_within(scene.acquired):
        return NotSearchedReason.UNKNOWN_DATE if scene.acquired is None else NotSearchedReason.OUTSIDE_DATES
    if not where.allows_clouds(scene.cloud_cover):
        return NotSearchedReason.TOO_CLOUDY
    if not where.names_scene(scene.dataset_id, scene.source):
        return NotSearchedReason.OTHER_SCENE
    return None


def _unreadable(dataset: Dataset, error: DataError) -> NotSearched:
    """Return an entry for a dataset that cannot be read. If the store does not answer, raise the error instead."""
    if isinstance(error, StoreUnavailableError):
        raise error
    return NotSearched(dataset_id=dataset.id, reason=NotSearchedReason.UNREADABLE, detail=str(error))


def _filters(chosen: _ReadFilters, dataset: Dataset, excluded: frozenset[str]) -> Filters:
    """Return the filters for the tiles of one dataset.

    Args:
        chosen: the filters of the search.
        dataset: the dataset.
        excluded: ids of the query's tiles.
    """
    return Filters(chosen.where.min_valid_fraction or 0.0, chosen.areas, excluded, chosen.classes, dataset.id)


def _facts(dataset: Dataset) -> SceneFacts:
    """Return what the filters for whole scenes look at."""
    source, profile = dataset.plan.source, dataset.plan.profile
    cloud_cover = None if source.scene is None else source.scene.cloud_cover
    return SceneFacts(dataset.id, source.uri, profile.acquired, cloud_cover)


def _area_hint(chosen: _ReadFilters, datasets: Sequence[Dataset]) -> str:
    """Return a hint if the searched rasters are outside the areas, else an empty text."""
    outlines = [outline(dataset.plan) for dataset in datasets]
    return hint_for_areas(chosen.where, chosen.areas, [geometry for geometry in outlines if geometry is not None])


def _class_hint(chosen: _ReadFilters, datasets: Sequence[Dataset]) -> str:
    """Return a hint if the file with classes is of other datasets, else an empty text."""
    return "" if chosen.classes is None else chosen.classes.hint(dataset.id for dataset in datasets)


def dataset_hits(rows: Iterable[tuple[Dataset, dict[str, Any]]]) -> tuple[Hit, ...]:
    """Return tiles as hits. The ranks are in the order of the rows.

    Args:
        rows: for each tile, its dataset, and its row of an engine's result: the columns of the shards that
            `rasterembed.search.answer.Hit` needs, and `distance`.

    Raises:
        DataError: if a row has an impossible value.
    """
    by_dataset: dict[str, tuple[Dataset, list[int], list[dict[str, Any]]]] = {}
    for rank, (dataset, row) in enumerate(rows, start=1):
        _, ranks, own = by_dataset.setdefault(dataset.id, (dataset, [], []))
        ranks.append(rank)
        own.append(row)
    hits: list[Hit] = []
    for dataset, ranks, own in by_dataset.values():
        acquired = dataset.plan.profile.acquired
        with _possible_rows(dataset):
            footprints = read_footprints([row["geometry"] for row in own])
            places = _centres(dataset, own, footprints)
            hits += hits_of(
                {**row, "rank": rank, "dataset_id": dataset.id, "acquired": acquired, "lon": lon, "lat": lat}
                for rank, row, (lon, lat) in zip(ranks, own, places, strict=True)
            )
    return tuple(sorted(hits, key=lambda hit: hit.rank))


@contextmanager
def _possible_rows(dataset: Dataset) -> Iterator[None]:
    """Turn the errors that an impossible value in a row causes into one error.

    Raises:
        DataError: if a row has an impossible value.
    """
    try:
        yield
    except (ValidationError, TypeError, FootprintError) as error:
        raise VectorFiles.of_dataset(dataset).impossible_row(error) from error


def _centres(
    dataset: Dataset, rows: Sequence[dict[str, Any]], footprints: NDArray[np.object_]
) -> list[tuple[float | None, float | None]]:
    """Return longitude and latitude of the middle of each tile. None if the raster has no place on Earth."""
    if not dataset.plan.profile.on_earth:
        return [(None, None)] * len(rows)
    # PROJ needs about as long for one position as for a hundred.
    cols = np.array([row["col_off"] + row["width"] / 2 for row in rows], np.float64)
    lines = np.array([row["row_off"] + row["height"] / 2 for row in rows], np.float64)
    places: list[tuple[float | None, float | None]] = []
    lons, lats = (values.tolist() for values in dataset.lonlats(cols, lines))
    for footprint, lon, lat in zip(footprints, lons, lats, strict=True):
        if math.isnan(lon) and footprint is not None:
            # The tile is on the edge of the map, and its centre is outside the map. Use a point of the footprint.
            point = footprint.representative_point()
            lon, lat = point.x, point.y
        places.append((lon, lat))
    return places


def search(
    store: ObjectStore, dataset_ids: Sequence[str], query: Query, where: Where = Where(), k: int = DEFAULT_K
) -> Answer:
    """Answer one query. For several queries, a `Searcher` is faster.

    Args:
        store: the store that holds the datasets.
        dataset_ids: names of the datasets, and patterns such as `incoming-*`. See `Searcher`.
        query: the examples.
        where: filters for the tiles of the answer.
        k: number of tiles. If fewer tiles pass the filters, the answer has fewer tiles.

    Raises:
        UsageError: see `Searcher` and `Searcher.ask`.
        DataError: see `Searcher` and `Searcher.ask`.

    Example:
        >>> from rasterembed.search.query import Query
        >>> from rasterembed.store.object_store import ObjectStore
        >>> answer = search(ObjectStore(root="embeddings"), ["scene"], Query(tile="r000012_c000034"), k=3)
        >>> len(answer.hits)
        3
    """
    with Searcher(store, dataset_ids, model_of=query.dataset_of_example) as searcher:
        return searcher.ask(query, where, k)
