"""Filters for the tiles of an answer: the protocol of all filters, and the filters for a single dataset."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rasterembed.dataset.wkb import FootprintError, read_footprints
from rasterembed.errors import DataError
from rasterembed.search.areas import Areas, bounds_condition, meets_all
from rasterembed.search.class_tiles import ClassTiles
from rasterembed.search.filter_columns import FilterColumns
from rasterembed.search.row_selection import RowSelection, Selections


class TileFilters(Protocol):
    """Filters for tiles, as an engine with a vector index uses them."""

    @property
    def restrictive(self) -> bool:
        """Whether the filters can reject a tile that is not excluded."""

    @property
    def excluded_count(self) -> int:
        """Largest number of tiles that the filters reject because they are tiles of the query."""

    @property
    def key(self) -> Hashable:
        """Filters with the same key select the same rows. The excluded tiles are not part of it."""

    def select(self, segments: Sequence[FilterColumns]) -> Selections:
        """Return the rows of each segment that can be in an answer and pass all filters, the excluded tiles included.

        None stands for all rows that can be in an answer.

        Raises:
            DataError: if a footprint cannot be read.
        """

    def excluded_rows(self, rows: Sequence[Mapping[str, Any]], segments: Sequence[FilterColumns]) -> list[bool]:
        """Return for each of some rows whether it is excluded, because it is a tile of the query.

        Args:
            rows: for each row, the values of the columns `VectorFiles.identity`, and of `lattice` in a collection.
            segments: the columns of all segments.
        """

    def keep_passing(self, rows: pa.Table) -> pa.Table:
        """Return the rows that pass all filters. The rows have the columns `VectorFiles.columns`."""


@dataclass(frozen=True, eq=False)
class Filters:
    """Filters for the tiles of one dataset. Only tiles that pass all filters can be in the answer."""

    min_valid_fraction: float = 0.0
    """Smallest share of valid pixels, 0 to 1."""
    areas: Areas = ()
    """Areas in longitude and latitude. A tile's footprint must intersect every area."""
    excluded: frozenset[str] = frozenset()
    """Ids of tiles that must not be in the answer. These are the tiles of the query."""
    classes: ClassTiles | None = None
    """Tiles of the searched classes. None: there is no filter for classes."""
    dataset_id: str = ""
    """Id of the dataset. The filter for classes needs it."""

    @property
    def restrictive(self) -> bool:
        """Whether the filters can reject a tile that is not in `excluded`."""
        return bool(self.areas) or self.min_valid_fraction > 0 or self.classes is not None

    @property
    def excluded_count(self) -> int:
        """Number of tiles in `excluded`."""
        return len(self.excluded)

    @property
    def key(self) -> Hashable:
        """See `TileFilters.key`."""
        classes = None if self.classes is None else self.classes.key
        return self.min_valid_fraction, tuple(area.key for area in self.areas), classes

    @property
    def class_tiles(self) -> pa.Array | None:
        """Ids of the tiles of the searched classes. None: there is no filter for classes."""
        return None if self.classes is None else self.classes.of_dataset(self.dataset_id)

    def select(self, segments: Sequence[FilterColumns]) -> Selections:
        """See `TileFilters.select`."""
        return [self._select(segment) if self.restrictive else None for segment in segments]

    def _select(self, segment: FilterColumns) -> RowSelection:
        mask = segment.live_rows()
        if self.min_valid_fraction > 0:
            mask &= segment.at_least_valid(self.min_valid_fraction)
        if self.areas:
            mask &= segment.in_areas(self.areas)
        if self.classes is not None:
            mask &= segment.with_tile_ids(self.classes.of_dataset(self.dataset_id))
        return RowSelection.of_mask(mask)

    def excluded_rows(self, rows: Sequence[Mapping[str, Any]], segments: Sequence[FilterColumns]) -> list[bool]:
        """See `TileFilters.excluded_rows`."""
        return [row["tile_id"] in self.excluded for row in rows]

    def keep_passing(self, rows: pa.Table) -> pa.Table:
        """Return the rows that pass all filters.

        Args:
            rows: a table with the columns `tile_id`, `valid_fraction` and `geometry` (WKB).
        """
        # Valid fractions are stored as float32, so the bound is rounded to float32.
        passes = rows["valid_fraction"].to_numpy() >= np.float32(self.min_valid_fraction)
        passes &= ~pc.is_in(rows["tile_id"], pa.array(self.excluded, pa.string())).to_numpy()
        if self.class_tiles is not None:
            passes &= pc.is_in(rows["tile_id"], self.class_tiles).to_numpy()
        if self.areas:
            try:
                passes &= meets_all(self.areas, read_footprints(rows["geometry"]))
            except FootprintError as error:
                raise DataError(f"a footprint in the vector index cannot be read ({error})") from error
        return rows.filter(pa.array(passes))

    def sql_condition(self) -> tuple[str, dict[str, Any]]:
        """Return an SQL condition on a shard's columns, and the values of the condition's parameters.

        The condition is true for every row that passes the filters. It compares only bounding boxes, so it can be true
        for a row that is near an area but does not pass.
        """
        in_bounds, bounds = bounds_condition(self.areas)
        condition = f"valid_fraction >= $valid::FLOAT AND NOT list_contains($excluded, tile_id) AND {in_bounds}"
        return condition, {"valid": self.min_valid_fraction, "excluded": sorted(self.excluded), **bounds}
