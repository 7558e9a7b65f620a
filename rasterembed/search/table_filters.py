"""Filters for the tiles of a collection's table, and the choice between scenes of the same ground."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from rasterembed.dataset.wkb import FootprintError, read_footprints
from rasterembed.errors import DataError
from rasterembed.search.areas import Areas, bounds_condition, meets_all
from rasterembed.search.class_tiles import ClassTiles
from rasterembed.search.filter_columns import FilterColumns
from rasterembed.search.query import Pick
from rasterembed.search.row_selection import RowSelection, Selections
from rasterembed.search.vector_files import VectorFiles
from rasterembed.store import duck

TileName = tuple[str, str]
"""Name of a tile in a table: dataset id and tile id."""

_BEST = "time DESC NULLS LAST, dataset_id"
_ORDERS: dict[Pick, str] = {
    "latest": _BEST,
    "clearest": f"valid_fraction DESC, cloud_cover ASC NULLS LAST, {_BEST}",
}
"""Order of the scenes of a tile, as SQL. The first scene is picked. Unknown clouds and dates come last."""

_BATCH_ROWS = 65_536


def open_table(con: duckdb.DuckDBPyConnection, files: VectorFiles) -> None:
    """Make the view `tiles` of a table. All functions of this module read it.

    Args:
        con: a connection from `rasterembed.search.engines.scan.connect`.
        files: files of the table.

    Raises:
        DataError: if a file cannot be read, or lacks a column.
    """
    with duck.readable_errors(con, files.name, files.advice):
        duck.scan(con, files.store, files.keys, row_numbers=True).create_view("tiles", replace=True)


def tile_names(rows: pa.Table) -> list[TileName]:
    """Return the names of the tiles of rows. The rows have the columns `dataset_id` and `tile_id`."""
    return list(zip(rows["dataset_id"].to_pylist(), rows["tile_id"].to_pylist(), strict=True))


@dataclass(frozen=True, eq=False)
class TableFilters:
    """Filters for the tiles of a table.

    First, all filters are applied. Then, with `pick`, one scene of each tile stays.
    """

    con: duckdb.DuckDBPyConnection
    """Connection with the view of `open_table`."""
    files: VectorFiles
    """Files of the table."""
    scenes: pa.Table
    """Scenes whose tiles may be in the answer: `dataset_id`, `time` (microseconds since 1970) and `cloud_cover`."""
    every_scene: bool
    """Whether `scenes` has all scenes of the table."""
    min_valid_fraction: float = 0.0
    """Smallest share of valid pixels, 0 to 1."""
    areas: Areas = ()
    """Areas in longitude and latitude. A tile's footprint must intersect every area."""
    excluded: frozenset[TileName] = frozenset()
    """Tiles that must not be in the answer. With `pick`, all scenes of their ground are excluded."""
    pick: Pick = "all"
    classes: ClassTiles | None = None
    """Tiles of the searched classes. None: there is no filter for classes."""

    @property
    def restrictive(self) -> bool:
        """Whether the filters can reject a tile that is not in `excluded`."""
        simple = self.min_valid_fraction > 0 or not self.every_scene
        return simple or bool(self.areas) or self.classes is not None or self.pick != "all"

    @property
    def excluded_count(self) -> int:
        """Number of tiles in `excluded`."""
        return len(self.excluded)

    @property
    def key(self) -> Hashable:
        """See `TileFilters.key`."""
        scenes = None if self.every_scene else tuple(self.scenes["dataset_id"].to_pylist())
        classes = None if self.classes is None else self.classes.key
        return self.min_valid_fraction, tuple(area.key for area in self.areas), classes, self.pick, scenes

    def select(self, segments: Sequence[FilterColumns]) -> Selections:
        """See `TileFilters.select`. With `pick`, one scene of each tile is selected, from all segments together."""
        if not self.restrictive:
            return [None] * len(segments)
        masks = [self._passing(segment) for segment in segments]
        if self.pick != "all":
            masks = self._picked(segments, masks)
        return [RowSelection.of_mask(mask) for mask in masks]

    def _passing(self, segment: FilterColumns) -> NDArray[np.bool_]:
        """Return which rows of a segment pass all filters but `pick`, shape (rows,)."""
        # A changed scene has dropped rows and new ones. A dropped row must not be picked instead of a new one.
        mask = segment.live_rows()
        if not self.every_scene:
            mask &= segment.of_datasets(self.scenes["dataset_id"])
        if self.min_valid_fraction > 0:
            mask &= segment.at_least_valid(self.min_valid_fraction)
        if self.areas:
            mask &= segment.in_areas(self.areas)
        if self.classes is not None:
            mask &= segment.with_names(self.classes.named())
        return mask

    def _picked(self, segments: Sequence[FilterColumns], masks: Sequence[NDArray[np.bool_]]) -> list[NDArray[np.bool_]]:
        """Return which of the passing rows of each segment are picked."""
        names = ["dataset_id", "tile_id", "lattice", "valid_fraction"]
        passing = []
        for number, (segment, mask) in enumerate(zip(segments, masks, strict=True)):
            rows = np.flatnonzero(mask)
            columns = segment.table.select(names).filter(pa.array(mask))
            columns = columns.append_column("segment", pa.array(np.full(len(rows), number, np.int32)))
            passing.append(columns.append_column("number", pa.array(rows)))
        self.con.register("scenes", self.scenes)
        self.con.register("passing", pa.concat_tables(passing))
        chosen = self.con.execute(_picked_sql("segment, number", "passing JOIN scenes USING (dataset_id)", self.pick))
        segment_numbers, numbers = (column.to_numpy() for column in chosen.to_arrow_table().columns)
        self.con.unregister("passing")  # The connection is kept for other queries, and would keep the rows in memory.
        return [
            RowSelection.of_numbers(numbers[segment_numbers == i], segment.rows).mask
            for i, segment in enumerate(segments)
        ]

    def excluded_rows(self, rows: Sequence[Mapping[str, Any]], segments: Sequence[FilterColumns]) -> list[bool]:
        """See `TileFilters.excluded_rows`."""
        if self.pick == "all":
            return [(row["dataset_id"], row["tile_id"]) in self.excluded for row in rows]
        ids = pa.array(sorted({dataset_id for dataset_id, _ in self.excluded}), pa.string())
        lattices: dict[str, str | None] = {}
        for segment in segments:
            lattices |= segment.lattices(ids)
        grounds = {(lattices.get(dataset_id), tile_id) for dataset_id, tile_id in self.excluded}
        return [(row["lattice"], row["tile_id"]) in grounds for row in rows]

    def sql_condition(self) -> tuple[str, dict[str, Any]]:
        """Return an SQL condition that is true for the tiles that pass, and the values of its parameters.

        Raises:
            DataError: if the table cannot be read.
        """
        condition, parameters = self._simple_condition()
        if self.areas or self.pick != "all":
            self.con.register("selected", self.selected())
            condition += " AND (dataset_id, tile_id) IN (SELECT dataset_id, tile_id FROM selected)"
        return condition, parameters

    def keep_passing(self, rows: pa.Table) -> pa.Table:
        """Return the rows that pass all filters. See `TileFilters.keep_passing`."""
        names = tile_names(rows)
        if self.restrictive:
            passing = set(tile_names(self.selected([tile_id for _, tile_id in names])))
        else:
            passing = set(names) - self.excluded
        return rows.filter(pa.array([name in passing for name in names], pa.bool_()))

    def selected(self, tile_ids: Sequence[str] | None = None) -> pa.Table:
        """Return the tiles that pass all filters, and are picked.

        Args:
            tile_ids: ids of the tiles to look at. By default, all tiles of the table.

        Returns:
            The columns `dataset_id` and `tile_id`.

        Raises:
            DataError: if the table cannot be read.
        """
        condition, parameters = self._simple_condition()
        if tile_ids is not None:
            self.con.register("asked", pa.table({"tile_id": pa.array(sorted(set(tile_ids)), pa.string())}))
            condition += " AND tile_id IN (SELECT tile_id FROM asked)"
        geometry = ", geometry" if self.areas else ""
        query = (
            f"SELECT dataset_id, tile_id, lattice, valid_fraction, time, cloud_cover{geometry} "
            f"FROM tiles JOIN scenes USING (dataset_id) WHERE {condition}"
        )
        with duck.readable_errors(self.con, self.files.name, self.files.advice):
            reader = self.con.execute(query, parameters).to_arrow_reader(_BATCH_ROWS)
            batches = [self._inside(batch) for batch in reader]
            passing = pa.Table.from_batches(batches, _PASSING)
            if self.pick == "all":
                return passing.select(["dataset_id", "tile_id"])
            self.con.register("passing", passing)
            return self.con.execute(_picked_sql("dataset_id, tile_id", "passing", self.pick)).to_arrow_table()

    def _simple_condition(self) -> tuple[str, dict[str, Any]]:
        """Return the condition of all filters without the exact form of the areas, and without `pick`."""
        self.con.register("scenes", self.scenes)
        bounds, parameters = bounds_condition(self.areas)
        condition = f"valid_fraction >= $valid::FLOAT AND {bounds}"
        if not self.every_scene:
            condition += " AND dataset_id IN (SELECT dataset_id FROM scenes)"
        if self.classes is not None:
            self.con.register("classes", self.classes.named())
            condition += " AND (dataset_id, tile_id) IN (SELECT dataset_id, tile_id FROM classes)"
        if self.excluded:
            datasets, tiles = zip(*sorted(self.excluded), strict=True)
            self.con.register("excluded", pa.table({"dataset_id": list(datasets), "tile_id": list(tiles)}))
            condition += " AND (dataset_id, tile_id) NOT IN (SELECT dataset_id, tile_id FROM excluded)"
            if self.pick != "all":
                condition += (
                    " AND (lattice, tile_id) NOT IN (SELECT lattice, tile_id FROM tiles "
                    "SEMI JOIN excluded USING (dataset_id, tile_id))"
                )
        return condition, {"valid": self.min_valid_fraction, **parameters}

    def _inside(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Return the rows of a batch in all areas, without the footprints."""
        if not self.areas:
            return batch.cast(_PASSING)
        try:
            footprints = read_footprints(batch.column("geometry"))
        except FootprintError as error:
            raise DataError(f"{self.files.name}: a footprint of its table cannot be read ({error})") from error
        inside = meets_all(self.areas, footprints)
        return batch.drop_columns(["geometry"]).filter(pa.array(inside)).cast(_PASSING)


def _picked_sql(columns: str, passing: str, pick: Pick) -> str:
    """Return the SQL query for the picked scene of each tile.

    Args:
        columns: columns of the result.
        passing: the rows to pick from, with the columns of `_PASSING`.
        pick: the scene to pick.
    """
    return (
        f"SELECT {columns} FROM {passing} QUALIFY row_number() OVER "
        f"(PARTITION BY lattice, tile_id ORDER BY {_ORDERS[pick]}) = 1"
    )


_PASSING = pa.schema(
    [
        ("dataset_id", pa.string()),
        ("tile_id", pa.string()),
        ("lattice", pa.string()),
        ("valid_fraction", pa.float32()),
        ("time", pa.int64()),
        ("cloud_cover", pa.float64()),
    ]
)
