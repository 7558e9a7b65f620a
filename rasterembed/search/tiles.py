"""Tiles by name, by place and by area, from a dataset's tile index; and their vectors, from the shards."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import shapely
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from rasterembed.dataset.dataset import Dataset
from rasterembed.errors import DataError, UsageError
from rasterembed.raster.skip_reason import describe_reason
from rasterembed.search.areas import Areas, meeting
from rasterembed.store import duck

_MAX_PARTS = 32
"""Parts of an area that a query names one by one; an area of more is named by its bounds."""


class Tile(BaseModel):
    """A tile as the index has it."""

    model_config = ConfigDict(frozen=True)

    dataset_id: str
    tile_id: str
    col_off: int
    row_off: int
    width: int
    height: int
    shard: int


_COLUMNS = "tile_id, col_off, row_off, width, height, shard, status, reason"


def find_tile(con: duckdb.DuckDBPyConnection, dataset: Dataset, tile_id: str) -> Tile:
    """An embedded tile by its name.

    Raises:
        UsageError: if the grid has no such tile.
        DataError: if it was skipped.
    """
    rows = _index_rows(con, dataset, f"SELECT {_COLUMNS} FROM tile_index WHERE tile_id = $tile", {"tile": tile_id})
    if not rows:
        sharding = dataset.plan.sharding
        raise UsageError(
            f"dataset {dataset.id!r} has no tile {tile_id}: its rows are 0 to {sharding.rows - 1}, "
            f"its columns 0 to {sharding.cols - 1}"
        )
    if rows[0]["status"] != "embedded":
        raise DataError(f"tile {tile_id} of dataset {dataset.id!r} has no vector: it was {_status(dataset, rows[0])}")
    return _tile(dataset, rows[0])


def tile_at(con: duckdb.DuckDBPyConnection, datasets: Sequence[Dataset], lon: float, lat: float) -> Tile:
    """The embedded tile that contains a point, of the first dataset that has one; where tiles overlap, the one whose
    middle is the nearest.

    Raises:
        DataError: if no tile contains the point, those that do were skipped, or a raster has no place on Earth.
    """
    point, skipped = shapely.Point(lon, lat), ""
    for dataset in datasets:
        dataset.check_on_earth()
        rows = _index_rows(
            con,
            dataset,
            f"SELECT {_COLUMNS}, geometry FROM tile_index WHERE bbox.xmin <= $lon AND bbox.xmax >= $lon "
            "AND bbox.ymin <= $lat AND bbox.ymax >= $lat",
            {"lon": lon, "lat": lat},
        )
        footprints = shapely.from_wkb([row["geometry"] for row in rows])
        around = [(row, footprint) for row, footprint in zip(rows, footprints, strict=True) if footprint.covers(point)]
        embedded = [(row, footprint) for row, footprint in around if row["status"] == "embedded"]
        if embedded:
            nearest = min(embedded, key=lambda pair: (pair[1].centroid.distance(point), pair[0]["tile_id"]))
            return _tile(dataset, nearest[0])
        if around:
            row = around[0][0]
            skipped = f": tile {row['tile_id']} of dataset {dataset.id!r} is there, but was {_status(dataset, row)}"
    names = ", ".join(repr(dataset.id) for dataset in datasets)
    raise DataError(f"no tile of {names} contains longitude {lon:g}, latitude {lat:g}{skipped}")


def tiles_meeting(con: duckdb.DuckDBPyConnection, dataset: Dataset, areas: Areas) -> pa.Table:
    """Embedded tiles that meet every area: columns `tile_id` and `shard`."""
    condition, parameters = bounds_condition(areas)
    found = []
    with duck.readable(f"dataset {dataset.id!r}"):
        _view(con, dataset)
        batches = con.execute(
            f"SELECT tile_id, shard, geometry FROM tile_index WHERE status = 'embedded' AND {condition}", parameters
        ).to_arrow_reader(65536)
        for batch in batches:
            inside = meeting(areas, shapely.from_wkb(batch.column("geometry").to_numpy(zero_copy_only=False)))
            found.append(batch.select(["tile_id", "shard"]).filter(pa.array(inside)))
    schema = pa.schema([("tile_id", pa.string()), ("shard", pa.int32())])
    return pa.Table.from_batches(found, schema) if found else schema.empty_table()


def bounds_condition(areas: Areas) -> tuple[str, dict[str, float]]:
    """A condition on `bbox` that every tile which meets the areas fulfils, and its parameters.

    Row groups without such a tile are not read: their statistics tell.
    """
    clauses = ["true"]
    parameters: dict[str, float] = {}
    for i, area in enumerate(areas):
        parts = shapely.get_parts(area)
        boxes = shapely.bounds(parts if len(parts) <= _MAX_PARTS else np.array([area], dtype=object))
        choices = []
        for j, box in enumerate(boxes.tolist()):
            west, south, east, north = (f"a{i}_{j}_{side}" for side in "wsen")
            parameters |= dict(zip((west, south, east, north), box, strict=True))
            choices.append(
                f"(bbox.xmin <= ${east} AND bbox.xmax >= ${west} AND bbox.ymin <= ${north} AND bbox.ymax >= ${south})"
            )
        clauses.append(f"({' OR '.join(choices)})")
    return " AND ".join(clauses), parameters


def vectors_of(con: duckdb.DuckDBPyConnection, dataset: Dataset, tiles: Sequence[Tile]) -> NDArray[np.float32]:
    """Vectors of tiles of one dataset, shape (n, dimensions): each from its own shard.

    Raises:
        DataError: if a shard is not what the index says.
    """
    vectors: dict[str, NDArray[np.float32]] = {}
    paths = {shard.number: shard.path for shard in dataset.manifest.shards}
    with duck.readable(f"dataset {dataset.id!r}"):
        for number in sorted({tile.shard for tile in tiles}):
            wanted = [tile.tile_id for tile in tiles if tile.shard == number]
            duck.scan(con, dataset.store, [paths[number]]).create_view("one_shard", replace=True)
            for name in wanted:  # one at a time: equality prunes row groups, a list does not
                query = "SELECT embedding FROM one_shard WHERE tile_id = $tile"
                for (vector,) in con.sql(query, params={"tile": name}).fetchall():
                    vectors[name] = np.array(vector, dtype=np.float32)
    for tile in tiles:
        if tile.tile_id not in vectors:
            raise DataError(
                f"tile {tile.tile_id} is not in shard {tile.shard} of dataset {dataset.id!r}: embed it anew"
            )
    return np.stack([vectors[tile.tile_id] for tile in tiles])


def _view(con: duckdb.DuckDBPyConnection, dataset: Dataset) -> None:
    duck.scan(con, dataset.store, [dataset.manifest.index]).create_view("tile_index", replace=True)


def _index_rows(
    con: duckdb.DuckDBPyConnection, dataset: Dataset, query: str, parameters: dict[str, Any]
) -> list[dict[str, Any]]:
    with duck.readable(f"dataset {dataset.id!r}"):
        _view(con, dataset)
        rows: list[dict[str, Any]] = con.execute(query, parameters).to_arrow_table().to_pylist()
    return rows


def _tile(dataset: Dataset, row: dict[str, Any]) -> Tile:
    return Tile(dataset_id=dataset.id, **{name: row[name] for name in Tile.model_fields if name != "dataset_id"})


def _status(dataset: Dataset, row: dict[str, Any]) -> str:
    if not row["reason"]:
        return str(row["status"])
    return f"{row['status']} ({describe_reason(row['reason'], dataset.plan.selection.min_valid_fraction)})"
