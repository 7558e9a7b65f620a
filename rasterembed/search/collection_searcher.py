"""Search the table of a collection: the vectors of all its scenes at once."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from types import TracebackType
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import shapely
from numpy.typing import NDArray
from pydantic import ValidationError

from rasterembed.collection.catalogue import CLOUD_COVER, DATED, Catalogue
from rasterembed.collection.collection import Collection
from rasterembed.collection.scene_row import SceneState
from rasterembed.collection.stac_collection import NOT_ENDED, CollectionState
from rasterembed.dataset.dataset import Dataset
from rasterembed.dataset.wkb import FootprintError, read_footprints
from rasterembed.errors import DataError, UsageError
from rasterembed.escape import escape_terminal
from rasterembed.known_parameters import known_parameters
from rasterembed.model.choice import Device
from rasterembed.number_text import agreeing
from rasterembed.search.answer import Answer, Hit, UsedEngine, hits_of, pixel_footprint
from rasterembed.search.areas import AreaFiles, Areas, hint_for_areas, notes_on_areas
from rasterembed.search.class_tiles import ClassFiles
from rasterembed.search.engines.scan import connect, nearest_exactly
from rasterembed.search.engines.workers import turn
from rasterembed.search.examples import ResolvedExamples, resolve_examples, vector_example
from rasterembed.search.filter_columns import FilterColumns
from rasterembed.search.indexed_search import IndexedSearch, check_engine
from rasterembed.search.newest import open_newest
from rasterembed.search.query import DEFAULT_K, EngineChoice, Pick, Query, Where
from rasterembed.search.searched_collection import LeftOut, SearchedCollection
from rasterembed.search.searcher import check_k
from rasterembed.search.table_filters import TableFilters, TileName, open_table
from rasterembed.search.table_tiles import TableTiles
from rasterembed.search.vector_files import VectorFiles
from rasterembed.search.why_no_scene import SceneFacts, why_no_scene
from rasterembed.search.why_no_tile import (
    TileFilter,
    not_in_the_area,
    not_in_the_classes,
    too_few_valid_pixels,
    why_no_tile,
)
from rasterembed.store import duck
from rasterembed.store.connection_pool import ConnectionPool
from rasterembed.store.layout import name_of
from rasterembed.store.object_store import ObjectStore
from rasterembed.store.store_command import store_command

_STATES = {
    SceneState.EMBEDDED: "quality checks have not passed yet",
    SceneState.FAILED_QA: "failed their quality checks",
    SceneState.FAILED: "failed to embed",
}
"""Reasons why scenes in a state are not searched, for people."""


class CollectionSearcher:
    """Searches a collection any number of times. The table's vector index stays open.

    The catalogue and the description of the table are read once, and no manifest of a scene. Use a searcher as a
    context manager, or call `close` at the end. Several threads may ask one searcher at the same time. Close it when no
    thread uses it any more.

    Args:
        store: the store that holds the collection.
        collection_id: name of the collection.
        engine: `auto` uses the table's vector index if there is one. `scan` compares the query with every vector.
            `flat`, `ivf` and `vss` use the vector index only if it was built for this engine. Otherwise, the exact scan
            answers.
        ef_search: number of candidates in a search of the engine `vss`. None means the default of the index.
        device: device that runs the model for images.
        hub_token: access token of the Hugging Face Hub. It is needed for images if the weights are gated.

    Raises:
        UsageError: if the store has no collection of this name, or if `ef_search` is given and `engine` is not `vss`.
        DataError: if the collection has no table or no vector, or if a file of it cannot be read.

    Example:
        >>> with CollectionSearcher(store, "survey-2026") as searcher:  # doctest: +SKIP
        ...     answer = searcher.ask(Query(lonlat=(24.94, 60.17)), Where(pick="latest"), k=20)
    """

    @known_parameters
    def __init__(
        self,
        store: ObjectStore,
        collection_id: str,
        *,
        engine: EngineChoice = "auto",
        ef_search: int | None = None,
        device: Device = "auto",
        hub_token: str | None = None,
    ) -> None:
        check_engine(engine, ef_search)
        self._device, self._hub_token = device, hub_token
        self.collection, self._files = open_table_files(Collection.open(store, collection_id))
        ready = self.collection.catalogue.filter(states=[SceneState.READY]).table
        self._ready = Catalogue(ready.filter(pc.greater(ready["rows"], 0)))
        if not self._ready.count:
            raise DataError(
                f"{self._files.name} has no scene that is ready: its catalogue and its table disagree: run "
                f"{store_command(store, f'collection rebuild {collection_id}')}"
            )
        self._connections = ConnectionPool(self._connect)
        with self._connections.borrow():
            pass  # A file that cannot be read is an error now, and not of the first question.
        self._class_files = ClassFiles(store)
        self._area_files = AreaFiles()
        self._index = IndexedSearch(self._files, engine, ef_search)

    def _connect(self) -> duckdb.DuckDBPyConnection:
        """Open a connection with the view of the table."""
        con = connect()
        try:
            open_table(con, self._files)
        except BaseException:
            con.close()
            raise
        return con

    def __repr__(self) -> str:
        """Return one short line."""
        return f"CollectionSearcher of {self.collection!r}"

    def __enter__(self) -> CollectionSearcher:
        """Return the searcher. It is closed at the end of the block."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the searcher."""
        self.close()

    def close(self) -> None:
        """Release the memory of the index and of the data that was read."""
        self._index.close()
        self._connections.close()

    @property
    def nbytes(self) -> int:
        """Memory of the searcher in bytes, without mapped files and the caches of DuckDB."""
        return self._index.nbytes + int(self.collection.catalogue.table.nbytes) + int(self._ready.table.nbytes)

    def datasets_of(self, answer: Answer) -> Sequence[Dataset]:
        """Open the datasets of the tiles that pictures of an answer show."""
        from rasterembed.search.contact_sheet import shown_datasets  # PIL takes long to import.

        return shown_datasets(self.collection.store, answer)

    def dataset_of_image(self) -> Dataset:
        """Return the dataset whose radiometry and tile size an image of a query is read with: the first ready scene."""
        return self.collection.dataset(self._ready.table["id"][0].as_py())

    @known_parameters
    def ask(self, query: Query, where: Where = Where(), k: int = DEFAULT_K) -> Answer:
        """Return the k tiles that are nearest to the query's examples and pass the filters.

        Tiles with the same distance are in the order of their tile ids, and then of their dataset ids. If the example
        is a place, the tile of each scene at this place is an example.

        Args:
            query: the examples.
            where: filters for the tiles of the answer, and the choice between scenes of the same ground.
            k: number of tiles. If fewer tiles pass the filters, the answer has fewer tiles.

        Raises:
            UsageError: if the query has a tile that is not in the collection; if k is not from 1 to
                `MAX_K`; or if `where.pick` does not fit the grid.
            DataError: if a tile of the query has no vector, or if a file cannot be read.
        """
        check_k(k)
        started = time.monotonic()
        self._check_pick(where)
        scenes, areas = self._scenes(where), self._area_files.read(where)
        with self._connections.borrow() as con:
            examples = self._resolve(con, query, scenes, where.pick)
            return self._answer(con, query, examples, where, scenes, areas, k, started)

    def resolve(self, query: Query, where: Where = Where()) -> ResolvedExamples:
        """Return the examples of a query, and the vector that `ask` compares with all vectors.

        Args:
            query: the examples.
            where: the filters for whole scenes and `pick` choose the example if several scenes cover it. The other
                filters have no effect.

        Raises:
            UsageError: if the query has a tile that is not in the collection; or if `where.pick` does
                not fit the grid.
            DataError: if a tile of the query has no vector, or if a file cannot be read.
        """
        self._check_pick(where)
        with self._connections.borrow() as con:
            return self._resolve(con, query, self._scenes(where), where.pick)

    def passing(self, rows: FilterColumns, where: Where) -> NDArray[np.bool_]:
        """Return which tiles of the collection pass the filters of `ask`.

        Args:
            rows: the tiles, n of them, such as the rows of `rasterembed.search.batch.all_tiles.AllTiles`. A filter for
                an area needs the column `bbox`.
            where: the filters, and the choice between scenes of the same ground.

        Returns:
            Booleans, shape (n,).

        Raises:
            UsageError: if `where.pick` does not fit the grid.
            DataError: if a file of the filters or a footprint cannot be read.
        """
        self._check_pick(where)
        scenes, areas = self._scenes(where), self._area_files.read(where)
        with self._connections.borrow() as con:
            (selection,) = self._filters(con, scenes, where, areas).select([rows])
        return rows.live_rows() if selection is None else selection.mask

    def _resolve(self, con: duckdb.DuckDBPyConnection, query: Query, scenes: Catalogue, pick: Pick) -> ResolvedExamples:
        """Return the examples of a query. A scene that may answer gives them, if one has them.

        Args:
            con: a connection with the view of the table.
            query: the examples.
            scenes: the scenes that may answer.
            pick: choice between scenes of the same ground.
        """
        ready, preferred = (
            TableFilters(con, self._files, _columns(some), every_scene=False, pick=pick)
            for some in (self._ready, scenes)
        )
        tiles = TableTiles(con, self.collection, self._files, ready, preferred)
        return resolve_examples(tiles, query, device=self._device, hub_token=self._hub_token)

    def _filters(
        self,
        con: duckdb.DuckDBPyConnection,
        scenes: Catalogue,
        where: Where,
        areas: Areas,
        excluded: frozenset[TileName] = frozenset(),
    ) -> TableFilters:
        """Return the filters for the tiles of some scenes, without those for whole scenes."""
        return TableFilters(
            con,
            self._files,
            _columns(scenes),
            every_scene=scenes.count == self._ready.count and self.collection.table_is_current,
            min_valid_fraction=where.min_valid_fraction or 0.0,
            areas=areas,
            excluded=excluded,
            pick=where.pick,
            classes=self._class_files.read(where, needs_datasets=True),
        )

    @known_parameters
    def ask_vector(self, vector: NDArray[np.generic], where: Where = Where(), k: int = DEFAULT_K) -> Answer:
        """Return the k tiles whose vectors are nearest to a given vector and pass the filters.

        Args:
            vector: a vector of the collection's model, shape (dimensions,). It need not be normalised.
            where: filters for the tiles of the answer.
            k: number of tiles.

        Raises:
            UsageError: if the vector has another shape, is zero, or is not made of finite real numbers; or see `ask`.
            DataError: see `ask`.
        """
        check_k(k)
        started = time.monotonic()
        self._check_pick(where)
        examples, areas = vector_example(vector, self._files.dimensions), self._area_files.read(where)
        with self._connections.borrow() as con:
            return self._answer(con, None, examples, where, self._scenes(where), areas, k, started)

    def _turn(self) -> AbstractContextManager[object]:
        """Return the block in which the tiles of an answer are found.

        A search that reads the table may wait for a store, so it takes no turn.
        """
        return nullcontext() if self._index.segments is None else turn()

    def _check_pick(self, where: Where) -> None:
        """Refuse `pick` if tile ids do not name the same ground in all scenes."""
        grid = self.collection.configuration.grid
        if where.pick != "all" and grid.anchor != "crs":
            raise UsageError(
                f"`pick={where.pick}` needs scenes that give the same ground the same tile id, but the grid of "
                f"{self._files.name} begins at the corner of each raster: embed a collection with `anchor=crs`, or "
                "give `pick=all`"
            )

    def _answer(
        self,
        con: duckdb.DuckDBPyConnection,
        query: Query | None,
        examples: ResolvedExamples,
        where: Where,
        scenes: Catalogue,
        areas: Areas,
        k: int,
        started: float,
    ) -> Answer:
        """Return the tiles that are nearest to the examples' vector.

        `query` is None if the caller gave a vector. `scenes` are the scenes that pass the filters for whole scenes.
        """
        include_query = query is None or query.include_query
        tiles = [example.tile for example in examples.examples if example.tile is not None]
        excluded = frozenset() if include_query else frozenset((tile.dataset_id, tile.tile_id) for tile in tiles)
        filters = self._filters(con, scenes, where, areas, excluded)
        with self._turn():
            rows, engine = self._nearest(examples.vector, k, filters)
            hits = self._hits(rows)
        hints = notes_on_areas(where, areas)
        if not hits:
            with suppress(DataError):  # The answer is right without its reason, whose files may be missing.
                hints += self._why_empty(con, scenes, where, examples.vector, bool(excluded))
        answer = Answer(
            query="a vector" if query is None else query.text(),
            examples=examples.examples,
            model=self.collection.configuration.model.name,
            k=k,
            hits=hits,
            engines=(engine,),
            seconds=round(time.monotonic() - started, 4),
            collection=self._searched(scenes),
            hint="\n".join(map(escape_terminal, hints)),
        )
        return answer.with_store(self.collection.store)

    def _why_empty(
        self,
        con: duckdb.DuckDBPyConnection,
        scenes: Catalogue,
        where: Where,
        vector: NDArray[np.float32],
        own_tiles_left_out: bool,
    ) -> list[str]:
        """Return the lines that say which filters left no tile.

        Args:
            con: a connection with the view of the table.
            scenes: the scenes that pass the filters for whole scenes.
            where: the filters.
            vector: the vector of the query.
            own_tiles_left_out: whether the query has tiles that may not be in the answer.
        """

        def finds(some: Where) -> bool:
            every = some.model_copy(update={"pick": "all"})  # To pick a scene leaves no tile without a scene.
            filters = self._filters(con, scenes, every, self._area_files.read(every))
            with self._turn():
                return bool(self._nearest(vector, 1, filters)[0])

        instead = {
            TileFilter.AREA: lambda: self._area_hint(where) or not_in_the_area(where),
            TileFilter.VALID_PIXELS: lambda: too_few_valid_pixels(self._most_valid(con, scenes)),
            TileFilter.CLASSES: lambda: self._class_hint(where) or not_in_the_classes(where),
        }
        return why_no_scene(where, _facts(self._ready)) or why_no_tile(where, finds, own_tiles_left_out, instead)

    def _area_hint(self, where: Where) -> str:
        """Return a hint if the scenes are outside the areas, else an empty text."""
        outlines = self.collection.catalogue.geometry()
        return hint_for_areas(where, self._area_files.read(where), list(outlines[~shapely.is_missing(outlines)]))

    def _class_hint(self, where: Where) -> str:
        """Return a hint if the file with classes is of other datasets, else an empty text."""
        classes = self._class_files.read(where, needs_datasets=True)
        return "" if classes is None else classes.hint(self._ready.table["id"].to_pylist())

    def _most_valid(self, con: duckdb.DuckDBPyConnection, scenes: Catalogue) -> float:
        """Return the largest share of valid pixels of a tile of some scenes."""
        con.register("scenes", _columns(scenes))
        with duck.readable_errors(con, self._files.name, self._files.advice):
            (most,) = con.execute(
                "SELECT max(valid_fraction) FROM tiles SEMI JOIN scenes USING (dataset_id)"
            ).fetchone()  # type: ignore[misc]
        return float(most or 0.0)

    def _scenes(self, where: Where) -> Catalogue:
        """Return the scenes that pass the filters for whole scenes."""
        start, end = where.interval()
        scenes = self._ready.filter(since=start, until=end, max_cloud_cover=where.max_cloud_cover)
        if where.scenes:
            names = zip(*(scenes.table[name].to_pylist() for name in ("id", "source")), strict=True)
            scenes = Catalogue(scenes.table.filter(pa.array([where.names_scene(*pair) for pair in names], pa.bool_())))
        return scenes

    def _searched(self, scenes: Catalogue) -> SearchedCollection:
        catalogue = self.collection.catalogue
        counts = catalogue.counts()
        left_out = [(self._ready.count - scenes.count, "left out by the filters")]
        left_out.append((counts.get(SceneState.READY, 0) - self._ready.count, "all tiles were skipped"))
        left_out += [(counts.get(state, 0), reason) for state, reason in _STATES.items()]
        return SearchedCollection(
            id=self.collection.id,
            scenes=catalogue.count,
            searched=scenes.count,
            left_out=tuple(LeftOut(scenes=count, reason=reason) for count, reason in left_out if count),
            is_current=self.collection.table_is_current,
        )

    def _nearest(
        self, vector: NDArray[np.float32], k: int, filters: TableFilters
    ) -> tuple[list[dict[str, Any]], UsedEngine]:
        """Return the rows of the k nearest tiles, and the engine that found them."""

        def scan() -> pa.Table:
            condition, parameters = filters.sql_condition()
            return nearest_exactly(filters.con, self._files, self._files.keys, vector, k, condition, parameters)

        return self._index.nearest(vector, k, filters, scan)

    def _hits(self, rows: Sequence[dict[str, Any]]) -> tuple[Hit, ...]:
        """Return the rows of an engine as hits, with the scenes' addresses, dates and clouds from the catalogue."""
        scenes = scene_fields(self._ready, {str(row["dataset_id"]) for row in rows})
        try:
            places = zip(rows, _places(rows), strict=True)
            return hits_of(
                row | place | {"rank": rank} | scenes[row["dataset_id"]]
                for rank, (row, place) in enumerate(places, start=1)
            )
        except (ValidationError, FootprintError, TypeError, LookupError) as error:
            raise self._files.impossible_row(error) from error


def _facts(scenes: Catalogue) -> list[SceneFacts]:
    """Return what the filters for whole scenes look at."""
    columns = (scenes.table[name].to_pylist() for name in ("id", "source", "datetime", CLOUD_COVER))
    return [SceneFacts(*values) for values in zip(*columns, strict=True)]


def scene_fields(catalogue: Catalogue, dataset_ids: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Return the fields of a hit that the catalogue knows: `scene`, `acquired` and `cloud_cover`, by dataset id.

    The catalogue has the time of the file for a scene without a time of acquisition. `acquired` is then None.

    Args:
        catalogue: the catalogue of the collection.
        dataset_ids: ids of the datasets of the tiles.
    """
    chosen = catalogue.table.filter(pc.is_in(catalogue.table["id"], pa.array(sorted(dataset_ids), pa.string())))
    return {
        row["id"]: {
            "scene": row["source"],
            "acquired": row["datetime"] if row[DATED] else None,
            "cloud_cover": row[CLOUD_COVER],
        }
        for row in chosen.select(["id", "source", "datetime", DATED, CLOUD_COVER]).to_pylist()
    }


def open_table_files(collection: Collection) -> tuple[Collection, VectorFiles]:
    """Return a collection and the files of its table, after a check of their sizes. The folder is listed once.

    If a run writes a new table at the same time, the collection is opened again, and the new one is returned.

    Raises:
        UsageError: if the collection was deleted at the same time.
        DataError: if there is no table, if it has no vector, or if a file is missing or has another size.
    """

    def newer(old: Collection) -> Collection | None:
        found = Collection.open(old.store, old.id)
        return None if found.table == old.table else found

    return open_newest(collection, lambda version: (version, _checked_files(version)), newer)


def _checked_files(collection: Collection) -> VectorFiles:
    """Return the files of a table. See `open_table_files`."""
    table, layout = collection.table, collection.layout
    remedy = f"run {store_command(collection.store, f'collection rebuild {collection.id}')}"
    if table is None or not table.rows:
        raise DataError(_why_no_vector(collection, remedy))
    sizes = collection.store.sizes(layout.table_folder)
    for part in table.parts:
        size = sizes.get(name_of(part.path))
        if size != part.bytes:
            found = "is missing" if size is None else f"has {size} bytes, and table.json says {part.bytes}"
            raise DataError(f"{layout.owner}: {collection.store.uri(part.path)} {found}: {remedy}")
    return VectorFiles.of_table(collection, table)


def _why_no_vector(collection: Collection, remedy: str) -> str:
    """Return why a collection has no table, or a table without vectors, and what to do."""
    owner, table = collection.layout.owner, collection.table
    ready = collection.catalogue.counts().get(SceneState.READY, 0)
    if table is not None and ready:
        return f"{owner} has no vector: all tiles of its ready scenes were skipped"
    if collection.state is CollectionState.EMBEDDING:
        advice = NOT_ENDED
    elif ready:
        advice = remedy
    else:
        show = store_command(collection.store, f"collection show {collection.id}")
        advice = f"a scene is ready after its quality checks passed; see {show}"
    what = "table" if table is None else "vector"
    return f"{owner} has no {what}, and {ready:,} of its scenes {agreeing(ready, 'is', 'are')} ready: {advice}"


def _columns(scenes: Catalogue) -> pa.Table:
    """Return scenes as `TableFilters` needs them."""
    table = scenes.table
    return pa.table(
        {
            "dataset_id": table["id"],
            "time": pc.cast(table["datetime"], pa.int64()),
            "cloud_cover": table[CLOUD_COVER],
        }
    )


def _places(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return for each row the fields `lon`, `lat` and `geometry` of a hit.

    They are longitude and latitude of the middle of the tile's footprint, and the footprint as WKB. A tile without a
    place on Earth has no longitude and latitude, and its footprint is in pixels.

    Raises:
        FootprintError: if a footprint cannot be read.
    """
    footprints = read_footprints([row["geometry"] for row in rows])
    west, _, east, _ = shapely.bounds(footprints).T
    across = np.flatnonzero(east - west > 180.0)  # These tiles cross the antimeridian.
    if len(across):
        footprints[across] = shapely.transform(
            footprints[across], lambda places: places + (places[:, :1] < 0) * [360.0, 0.0]
        )
    centres = shapely.centroid(footprints)
    lons, lats = ((shapely.get_x(centres) + 180.0) % 360.0 - 180.0).tolist(), shapely.get_y(centres).tolist()
    return [
        {"lon": None, "lat": None, "geometry": pixel_footprint(row)}
        if row["geometry"] is None
        else {"lon": lon, "lat": lat, "geometry": row["geometry"]}
        for row, lon, lat in zip(rows, lons, lats, strict=True)
    ]
