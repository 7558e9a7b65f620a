"""Find the example tiles of a query in a collection's table, and read their vectors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import shapely
from numpy.typing import NDArray
from pydantic import ValidationError

from rasterembed.collection.collection import Collection
from rasterembed.collection.scene_row import SceneState
from rasterembed.dataset.dataset import Dataset
from rasterembed.dataset.geoparquet import PARQUET_ERRORS
from rasterembed.dataset.vector_column import decode_vectors, vector_columns
from rasterembed.errors import DataError, ObjectMissingError, UsageError, one_line
from rasterembed.near_names import known_names
from rasterembed.number_text import agreeing, counted, number_text
from rasterembed.search.areas import interval_text
from rasterembed.search.query import TileRef
from rasterembed.search.table_filters import TableFilters, tile_names
from rasterembed.search.tile_lookup import Place, Tile, find_tile
from rasterembed.search.vector_files import VectorFiles
from rasterembed.store import duck
from rasterembed.store.layout import name_of

_COLUMNS = "dataset_id, tile_id, col_off, row_off, width, height, filename, file_row_number"
"""Columns of the table that a lookup reads."""


class TableTiles:
    """The tiles of a collection's table. See `rasterembed.search.examples.TileSource`.

    Args:
        con: a connection with the view of `rasterembed.search.table_filters.open_table`.
        collection: the collection.
        files: files of the table.
        ready: filters without any filter but `pick`, with all ready scenes.
        preferred: the same, with the scenes that may answer. An example whose scene is not named comes from one of
            them. If none of them has it, it comes from any ready scene.
    """

    def __init__(
        self,
        con: duckdb.DuckDBPyConnection,
        collection: Collection,
        files: VectorFiles,
        ready: TableFilters,
        preferred: TableFilters,
    ) -> None:
        self._con, self._collection, self._files, self._ready = con, collection, files, ready
        some = 0 < preferred.scenes.num_rows < ready.scenes.num_rows
        self._in_order = (preferred, ready) if some else (ready,)
        vector_dtype = collection.configuration.selection.vector_dtype
        self._columns = ["dataset_id", "tile_id", *vector_columns(vector_dtype)]
        self._places: dict[Tile, tuple[str, int]] = {}
        self._keys = {name_of(key): key for key in files.keys}

    def named(self, text: str) -> Tile:
        """Return the tile with a name such as `r000012_c000034` or `dataset/r000012_c000034`.

        Without the id of a dataset, the tile must be in one scene only, or `pick` must choose the scene.

        Raises:
            UsageError: if the collection has no such scene, if the grid has no such tile, or if several scenes have it.
            DataError: if the tile has no vector.
        """
        reference = TileRef.parse(text)
        if reference.dataset_id is not None:
            return self._of_scene(text, reference.dataset_id, reference.tile_id)
        condition, parameters = "tile_id = $tile", {"tile": reference.tile_id}
        for filters in self._in_order:
            rows = _picked(filters, self._query(filters, condition, parameters))
            if rows:
                break
        else:
            raise UsageError(
                f"no scene of {self._files.name} has an embedded tile {text}: give another tile, or a place"
            )
        if len(rows) > 1:
            ids = [row["dataset_id"] for row in rows]
            advice = f"write the scene before the tile, such as {ids[0]}/{text}"
            if self._collection.configuration.grid.anchor == "crs":
                advice += ", or choose the scene with `pick=latest` or `pick=clearest`"
            scenes = f"{len(ids)} scenes of {self._files.name} ({known_names(text, ids)})"
            raise UsageError(f"tile {text} is in {scenes}: {advice}")
        return self._tile(rows[0])

    def _of_scene(self, text: str, dataset_id: str, tile_id: str) -> Tile:
        condition, parameters = "tile_id = $tile AND dataset_id = $dataset", {"tile": tile_id, "dataset": dataset_id}
        rows = self._query(self._ready, condition, parameters)
        if rows:
            return self._tile(rows[0])
        state = self._collection.catalogue.state_of(dataset_id)
        if state is None:
            has = known_names(dataset_id, self._collection.catalogue.table["id"].to_pylist())
            raise UsageError(f"tile {text}: {self._files.name} has no scene {dataset_id!r}: it has {has}")
        if state is not SceneState.READY:
            raise DataError(f"tile {text}: the scene is {state} in {self._files.name}, so it is not searched")
        find_tile(self._con, Dataset.open(self._collection.store, dataset_id), tile_id)
        raise DataError(
            f"tile {text} is not in the table of {self._files.name}, which is older than its catalogue: "
            f"{self._files.advice}"
        )

    def at(self, lon: float, lat: float) -> Sequence[Tile]:
        """Return the tiles at a place: one of each scene, or the picked one.

        If several tiles of a scene contain the point, it is the tile with the nearest centre.

        Raises:
            DataError: if no tile with a vector contains the point.
        """
        place = Place(lon, lat)
        for filters in self._in_order:
            nearest: dict[str, dict[str, Any]] = {}
            for row in place.covered_by(self._query(filters, *place.sql_condition(), columns=f"{_COLUMNS}, geometry")):
                nearest.setdefault(row["dataset_id"], row)
            rows = _picked(filters, [nearest[dataset_id] for dataset_id in sorted(nearest)])
            if rows:
                return [self._tile(row) for row in rows]
        raise DataError(self._nothing_at(place))

    def _nothing_at(self, place: Place) -> str:
        """Return the error for a place without a tile. It says whether a scene covers the place."""
        catalogue = self._collection.catalogue
        outlines = catalogue.geometry()
        covering = int(np.count_nonzero(shapely.intersects_xy(outlines, place.east, place.lat)))
        lon, lat = number_text(place.east), number_text(place.lat)
        text = f"no embedded tile of {self._files.name} contains longitude {lon}, latitude {lat}"
        if covering:
            not_ready = agreeing(covering, "the scene is", "the scenes are")
            does = agreeing(covering, "does", "do")
            return f"{text}: {covering:,} of its scenes {does}, but the tile was skipped, or {not_ready} not ready"
        if shapely.intersects_xy(outlines, place.lat, place.east).any():
            return f"{text}. The longitude comes first: did you mean {lat} {lon}?"
        text += f": its {counted(catalogue.count, 'scene')} {agreeing(catalogue.count, 'lies', 'lie')} elsewhere"
        bounds, _ = catalogue.extent()
        if bounds is None:
            return text
        west, south, east, north = bounds
        return f"{text}, in longitudes {interval_text(west, east)} and latitudes {interval_text(south, north)}"

    def _query(
        self, filters: TableFilters, condition: str, parameters: dict[str, Any], columns: str = _COLUMNS
    ) -> list[dict[str, Any]]:
        """Return the rows of some scenes for which a condition is true, in the order of the dataset ids."""
        self._con.register("scenes", filters.scenes)
        query = f"SELECT {columns} FROM tiles SEMI JOIN scenes USING (dataset_id) WHERE {condition} ORDER BY dataset_id"
        with duck.readable_errors(self._con, self._files.name, self._files.advice):
            rows: list[dict[str, Any]] = self._con.execute(query, parameters).to_arrow_table().to_pylist()
        return rows

    def _tile(self, row: dict[str, Any]) -> Tile:
        try:
            tile = Tile.model_validate({name: row[name] for name in Tile.model_fields if name != "shard"})
        except ValidationError as error:
            raise self._files.impossible_row(error) from error
        self._places[tile] = self._keys[name_of(row["filename"])], row["file_row_number"]
        return tile

    def vectors(self, tiles: Sequence[Tile]) -> dict[Tile, NDArray[np.float32]]:
        """Read the vectors of tiles that this object found. Only the row groups of these tiles are read."""
        found: dict[Tile, NDArray[np.float32]] = {}
        by_key: dict[str, list[Tile]] = {}
        for tile in dict.fromkeys(tiles):
            by_key.setdefault(self._places[tile][0], []).append(tile)
        for key, own in by_key.items():
            try:
                with self._files.store.open(key) as file:
                    found |= self._read(pq.ParquetFile(file), own)
            except ObjectMissingError:
                raise
            except (*PARQUET_ERRORS, IndexError) as error:
                raise DataError(
                    f"{self._files.store.uri(key)}: it cannot be read ({one_line(error)}): {self._files.advice}"
                ) from error
        return found

    def _read(self, parquet: pq.ParquetFile, tiles: Sequence[Tile]) -> dict[Tile, NDArray[np.float32]]:
        sizes = [parquet.metadata.row_group(number).num_rows for number in range(parquet.num_row_groups)]
        ends = np.cumsum(sizes)
        groups: dict[int, pa.Table] = {}
        vectors = {}
        for tile in sorted(tiles, key=lambda tile: self._places[tile][1]):
            row = self._places[tile][1]
            number = int(np.searchsorted(ends, row, side="right"))
            if number not in groups:
                groups = {number: parquet.read_row_group(number, columns=self._columns)}
            values = groups[number].slice(row - (int(ends[number]) - sizes[number]), 1)
            if (values["dataset_id"][0].as_py(), values["tile_id"][0].as_py()) != (tile.dataset_id, tile.tile_id):
                raise ValueError("its rows changed while they were read")
            vectors[tile] = decode_vectors(values)[0]
        return vectors

    def dataset_of_image(self) -> Dataset:
        """Return the first scene in the order of the ids. Its radiometry is used for an image."""
        return self._collection.dataset(self._ready.scenes["dataset_id"][0].as_py())


def _picked(filters: TableFilters, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows of the scenes that `pick` chooses."""
    if filters.pick == "all" or not rows:
        return rows
    picked = set(tile_names(filters.selected([row["tile_id"] for row in rows])))
    return [row for row in rows if (row["dataset_id"], row["tile_id"]) in picked]
