"""The exact scan: DuckDB goes through every vector that the filters leave."""

from __future__ import annotations

from dataclasses import dataclass

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import shapely
from numpy.typing import NDArray

from rasterembed.dataset.dataset import Dataset
from rasterembed.search.areas import Areas, meeting
from rasterembed.search.tiles import bounds_condition, tiles_meeting
from rasterembed.store import duck

COLUMNS = 'tile_id, "row", col, col_off, row_off, width, height, valid_fraction, geometry'
"""Columns of a shard that make a hit."""


@dataclass(frozen=True)
class Filters:
    """Which tiles of one dataset may answer."""

    min_valid_fraction: float = 0.0
    areas: Areas = ()
    excluded: frozenset[str] = frozenset()
    """Ids of the tiles that the query names."""

    @property
    def narrow(self) -> bool:
        """Whether more is left out than the query's own tiles."""
        return bool(self.areas) or self.min_valid_fraction > 0

    def keep(self, rows: pa.Table) -> pa.Table:
        """The rows that pass."""
        passing = rows["valid_fraction"].to_numpy() >= np.float32(self.min_valid_fraction)
        passing &= ~pc.is_in(rows["tile_id"], pa.array(self.excluded, pa.string())).to_numpy()
        if self.areas:
            passing &= meeting(self.areas, shapely.from_wkb(rows["geometry"].to_numpy()))
        return rows.filter(pa.array(passing))


def connect() -> duckdb.DuckDBPyConnection:
    """A connection for scans of vectors."""
    con = duck.connect()
    # it would read the vectors a second time, to hand out the few other columns of the nearest rows
    con.execute("SET late_materialization_max_rows = 0")
    return con


def exact_nearest(
    con: duckdb.DuckDBPyConnection, dataset: Dataset, vector: NDArray[np.float32], k: int, filters: Filters
) -> pa.Table:
    """The k nearest tiles by cosine distance, ties by tile id; fewer only if fewer pass the filters.

    The filters come before the cut. Only the shards that they leave are opened, and only the columns that are needed
    are read.

    Args:
        con: a connection made by `connect`.
        dataset: what to search.
        vector: the query, shape (dimensions,).
        k: rows at most.
        filters: which tiles may answer.

    Returns:
        A table of `COLUMNS` and `distance`.

    Raises:
        DataError: if a shard cannot be read.
    """
    shards = dataset.manifest.shards
    condition, parameters = bounds_condition(filters.areas)
    if filters.areas:
        inside = tiles_meeting(con, dataset, filters.areas)
        numbers = set(inside["shard"].unique().to_pylist())
        shards = tuple(shard for shard in shards if shard.number in numbers)
        con.register("inside", inside)
        condition += " AND tile_id IN (SELECT tile_id FROM inside)"
    keys = [shard.path for shard in shards if shard.rows] or [dataset.manifest.shards[0].path]
    array = f"FLOAT[{dataset.manifest.dimensions}]"
    with duck.readable(f"dataset {dataset.id!r}"):
        duck.scan(con, dataset.store, keys).create_view("vectors", replace=True)
        return con.execute(
            f"SELECT {COLUMNS}, array_cosine_distance(embedding::{array}, $vector::{array}) AS distance "
            f"FROM vectors WHERE valid_fraction >= $valid::FLOAT AND NOT list_contains($excluded, tile_id) "
            f"AND {condition} ORDER BY distance, tile_id LIMIT $k",
            {
                "vector": vector.tolist(),
                "valid": filters.min_valid_fraction,
                "excluded": sorted(filters.excluded),
                "k": k,
                **parameters,
            },
        ).to_arrow_table()
