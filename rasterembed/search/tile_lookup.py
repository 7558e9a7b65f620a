"""Find tiles by id, by place and by area in a dataset's tile index. Read the tiles' vectors from the shards."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import shapely
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from rasterembed.dataset.dataset import Dataset
from rasterembed.dataset.extent import bounding_box, outline
from rasterembed.dataset.tile_index import TileStatus
from rasterembed.dataset.vector_column import decode_vector
from rasterembed.dataset.wkb import FootprintError, read_footprints
from rasterembed.errors import DataError, UsageError, validation_reason
from rasterembed.escape import cut
from rasterembed.number_text import number_text
from rasterembed.raster.skip_reason import describe_reason
from rasterembed.search.areas import Areas, bounds_condition, interval_text, meets_all
from rasterembed.store.store_command import store_command

if TYPE_CHECKING:
    import duckdb

_COLUMNS = "tile_id, col_off, row_off, width, height, shard, status, reason"
"""Columns of the tile index that a lookup reads."""


_MOST_EXTENTS = 3
"""Largest number of datasets whose extent an error names."""


class Tile(BaseModel):
    """An embedded tile of a dataset. The values are from the tile index."""

    model_config = ConfigDict(frozen=True)

    dataset_id: str
    tile_id: str
    col_off: int
    """Left edge of the window, px."""
    row_off: int
    """Upper edge of the window, px."""
    width: int
    """Width of the window, px."""
    height: int
    """Height of the window, px."""
    shard: int | None = None
    """Number of the shard that holds the tile's vector. None if the tile was found in the table of a collection or in a
    vector index."""


class Place:
    """A point on Earth, and the tiles that contain it.

    Args:
        lon: longitude in degrees, -360 to 360. Longitudes that differ by 360 degrees are the same place.
        lat: latitude in degrees.
    """

    def __init__(self, lon: float, lat: float) -> None:
        self.east = float(lon - 360.0 * np.round(lon / 360.0))
        """Longitude from -180 to 180."""
        # A point on the antimeridian has two longitudes, -180 and 180. Tiles are looked for at both.
        self._west = -180.0 if self.east == 180.0 else 180.0 if self.east == -180.0 else self.east
        self.lat = lat
        self._points = shapely.points([self.east, self._west], [lat, lat])

    def sql_condition(self) -> tuple[str, dict[str, float]]:
        """Return an SQL condition on the column `bbox`, and the values of its parameters."""
        return (
            "bbox.ymin <= $lat AND bbox.ymax >= $lat "
            "AND (bbox.xmin <= $east AND bbox.xmax >= $east OR bbox.xmin <= $west AND bbox.xmax >= $west)",
            {"east": self.east, "west": self._west, "lat": self.lat},
        )

    def covered_by(self, rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return the rows whose footprints contain the point. The tile with the nearest centre comes first.

        Args:
            rows: rows with the columns `tile_id` and `geometry` (WKB).

        Raises:
            DataError: if a footprint cannot be read.
        """
        try:
            footprints = read_footprints([row["geometry"] for row in rows])
        except FootprintError as error:
            raise DataError(f"the footprint of a tile cannot be read ({error})") from error
        pairs = [pair for pair in zip(rows, footprints, strict=True) if shapely.covers(pair[1], self._points).any()]
        pairs.sort(key=lambda pair: (shapely.distance(pair[1].centroid, self._points).min(), pair[0]["tile_id"]))
        return [row for row, _ in pairs]


def find_tile(con: duckdb.DuckDBPyConnection, dataset: Dataset, tile_id: str) -> Tile:
    """Return the embedded tile with an id.

    Raises:
        UsageError: if the grid has no such tile.
        DataError: if the tile was skipped, or if the tile index cannot be read.
    """
    rows = _query_index(con, dataset, f"SELECT {_COLUMNS} FROM tile_index WHERE tile_id = $tile", {"tile": tile_id})
    if not rows:
        raise UsageError(why_no_tile(dataset, tile_id))
    if rows[0]["status"] != TileStatus.EMBEDDED:
        status = _describe_status(dataset, rows[0])
        raise DataError(f"tile {tile_id} of dataset {dataset.id!r} has no vector: it was {status}")
    return _tile(dataset, rows[0])


def why_no_tile(dataset: Dataset, tile_id: str) -> str:
    """Return the error text for a tile that a dataset does not have, or that has no vector.

    Args:
        dataset: the dataset.
        tile_id: any text.

    Raises:
        DataError: if the plan of the dataset cannot be read.
    """
    sharding = dataset.plan.sharding
    if sharding.find(tile_id) is not None:
        return f"tile {tile_id} of dataset {dataset.id!r} has no vector: it was skipped"
    return f"dataset {dataset.id!r} has no tile {cut(tile_id, 100)}: {sharding.why_no_tile(tile_id)}"


def find_tile_at(con: duckdb.DuckDBPyConnection, datasets: Sequence[Dataset], lon: float, lat: float) -> Tile:
    """Return the embedded tile that contains a point.

    The tile is from the first dataset that has such a tile. If several tiles of this dataset contain the point, the
    function returns the tile with the nearest centre.

    Args:
        con: a connection from `duck.connect`.
        datasets: datasets in which the tile is searched.
        lon: longitude in degrees, -360 to 360. Longitudes that differ by 360 degrees are the same place.
        lat: latitude in degrees.

    Raises:
        DataError: if no tile contains the point, if all tiles that contain the point were skipped, or if a raster has
            no place on Earth.
    """
    place, skipped = Place(lon, lat), ""
    for dataset in datasets:
        dataset.check_on_earth()
        condition, parameters = place.sql_condition()
        query = f"SELECT {_COLUMNS}, geometry FROM tile_index WHERE {condition}"
        containing = place.covered_by(_query_index(con, dataset, query, parameters))
        embedded = [row for row in containing if row["status"] == TileStatus.EMBEDDED]
        if embedded:
            return _tile(dataset, embedded[0])
        if containing:
            row = containing[0]
            status = _describe_status(dataset, row)
            skipped = f": tile {row['tile_id']} of dataset {dataset.id!r} does, but was {status}"
    names = ", ".join(repr(dataset.id) for dataset in datasets)
    where = skipped or _describe_extents(datasets, lon, lat)
    point = f"longitude {number_text(lon)}, latitude {number_text(lat)}"
    raise DataError(f"no embedded tile of {names} contains {point}{where}")


def _describe_extents(datasets: Sequence[Dataset], lon: float, lat: float) -> str:
    """Return the end of an error text: the extents of the datasets, and a hint if the numbers seem to be swapped."""
    texts, swapped = [], False
    for dataset in datasets:
        geometry = outline(dataset.plan)
        if geometry is None:
            continue
        west, south, east, north = bounding_box(geometry)
        texts.append(
            f"{dataset.id!r} has longitudes {interval_text(west, east)} and latitudes {interval_text(south, north)}"
        )
        swapped = swapped or bool(geometry.covers(shapely.Point(lat, lon)))
    text = "".join(f"; {text}" for text in texts[:_MOST_EXTENTS])
    if swapped:
        text += f". The longitude comes first: did you mean {number_text(lat)} {number_text(lon)}?"
    return text


def tiles_in_areas(con: duckdb.DuckDBPyConnection, dataset: Dataset, areas: Areas) -> pa.Table:
    """Return a table of the embedded tiles that intersect every area. Its columns are `tile_id` and `shard`.

    Raises:
        DataError: if the tile index cannot be read.
    """
    from rasterembed.store import duck  # It imports DuckDB, which a tile of an open index does not need.

    condition, parameters = bounds_condition(areas)
    query = f"SELECT tile_id, shard, geometry FROM tile_index WHERE status = '{TileStatus.EMBEDDED}' AND {condition}"
    matching = []
    with duck.dataset_errors(con, dataset.id):
        _create_index_view(con, dataset)
        for batch in con.execute(query, parameters).to_arrow_reader(65536):
            try:
                inside = meets_all(areas, read_footprints(batch.column("geometry")))
            except FootprintError as error:
                raise DataError(
                    f"dataset {dataset.id!r}: a footprint of its tile index cannot be read ({error}): "
                    f"run {store_command(dataset.store, f'datasets verify {dataset.id}')}"
                ) from error
            matching.append(batch.select(["tile_id", "shard"]).filter(pa.array(inside)))
    schema = pa.schema([("tile_id", pa.string()), ("shard", pa.int32())])
    return pa.Table.from_batches(matching, schema) if matching else schema.empty_table()


def read_vectors(con: duckdb.DuckDBPyConnection, dataset: Dataset, tiles: Sequence[Tile]) -> NDArray[np.float32]:
    """Read the vectors of tiles from the tiles' shards.

    Args:
        con: a connection from `duck.connect`.
        dataset: the dataset of all tiles.
        tiles: n tiles.

    Returns:
        The vectors, shape (n, dimensions), in the order of `tiles`.

    Raises:
        DataError: if a shard cannot be read, if a shard has no row for a tile that should be in it, or if the manifest
            does not list the shard.
    """
    from rasterembed.store import duck

    vectors: dict[str, NDArray[np.float32]] = {}
    paths = {shard.number: shard.path for shard in dataset.manifest.shards}
    for tile in tiles:
        if tile.shard not in paths:
            raise DataError(
                f"dataset {dataset.id!r}: its tile index names shard {tile.shard} for tile {tile.tile_id}, and the "
                f"manifest has no such shard: run {store_command(dataset.store, f'datasets verify {dataset.id}')}"
            )
    with duck.dataset_errors(con, dataset.id):
        for number in sorted({tile.shard for tile in tiles if tile.shard is not None}):
            duck.scan(con, dataset.store, [paths[number]]).create_view("one_shard", replace=True)
            # Send one query for each tile, and not one query with IN: DuckDB skips row groups only for =.
            for tile_id in [tile.tile_id for tile in tiles if tile.shard == number]:
                query = f"SELECT {', '.join(dataset.vector_columns)} FROM one_shard WHERE tile_id = $tile"
                for numbers, *scale in con.sql(query, params={"tile": tile_id}).fetchall():
                    vectors[tile_id] = decode_vector(numbers, *scale)
    for tile in tiles:
        if tile.tile_id not in vectors:
            raise DataError(
                f"tile {tile.tile_id} is not in shard {tile.shard} of dataset {dataset.id!r}: embed the raster again"
            )
    return np.stack([vectors[tile.tile_id] for tile in tiles])


def check_tile_index(con: duckdb.DuckDBPyConnection, dataset: Dataset) -> None:
    """Refuse a dataset whose tile index cannot be read. Only the footer of the file is read.

    Raises:
        DataError: if the tile index cannot be read.
    """
    from rasterembed.store import duck

    with duck.dataset_errors(con, dataset.id):
        duck.scan(con, dataset.store, [dataset.manifest.index])


def _create_index_view(con: duckdb.DuckDBPyConnection, dataset: Dataset) -> None:
    from rasterembed.store import duck

    duck.scan(con, dataset.store, [dataset.manifest.index]).create_view("tile_index", replace=True)


def _query_index(
    con: duckdb.DuckDBPyConnection, dataset: Dataset, query: str, parameters: dict[str, Any]
) -> list[dict[str, Any]]:
    """Return the rows of a query on the view `tile_index`."""
    from rasterembed.store import duck

    with duck.dataset_errors(con, dataset.id):
        _create_index_view(con, dataset)
        rows: list[dict[str, Any]] = con.execute(query, parameters).to_arrow_table().to_pylist()
    return rows


def _tile(dataset: Dataset, row: dict[str, Any]) -> Tile:
    try:
        return Tile(dataset_id=dataset.id, **{name: row[name] for name in Tile.model_fields if name != "dataset_id"})
    except ValidationError as error:
        raise DataError(
            f"dataset {dataset.id!r}: a row of its tile index has an impossible value ({validation_reason(error)}): "
            f"run {store_command(dataset.store, f'datasets verify {dataset.id}')}"
        ) from error


def _describe_status(dataset: Dataset, row: dict[str, Any]) -> str:
    """Return a tile's status as text for people. If the status has a reason, the text includes the reason."""
    if not row["reason"]:
        return str(row["status"])
    return f"{row['status']} ({describe_reason(row['reason'], dataset.plan.selection.min_valid_fraction)})"
