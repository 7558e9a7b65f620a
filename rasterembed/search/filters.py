"""Filters for the tiles of an answer. All search engines use this class."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rasterembed.dataset.wkb import FootprintError, read_footprints
from rasterembed.errors import DataError
from rasterembed.search.areas import Areas, bounds_condition, meets_all


class TileFilters(Protocol):
    """Filters for tiles, as an engine with a vector index uses them."""

    @property
    def restrictive(self) -> bool:
        """Whether the filters can reject a tile that is not excluded."""

    @property
    def excluded_count(self) -> int:
        """Largest number of tiles that the filters reject because they are tiles of the query."""

    def keep_passing(self, rows: pa.Table) -> pa.Table:
        """Return the rows that pass all filters. The rows have the columns `VectorFiles.columns`."""


@dataclass(frozen=True)
class Filters:
    """Filters for the tiles of one dataset. Only tiles that pass all filters can be in the answer."""

    min_valid_fraction: float = 0.0
    """Smallest share of valid pixels, 0 to 1."""
    areas: Areas = ()
    """Areas in longitude and latitude. A tile's footprint must intersect every area."""
    excluded: frozenset[str] = frozenset()
    """Ids of tiles that must not be in the answer. These are the tiles of the query."""

    @property
    def restrictive(self) -> bool:
        """Whether the filters can reject a tile that is not in `excluded`."""
        return bool(self.areas) or self.min_valid_fraction > 0

    @property
    def excluded_count(self) -> int:
        """Number of tiles in `excluded`."""
        return len(self.excluded)

    def keep_passing(self, rows: pa.Table) -> pa.Table:
        """Return the rows that pass all filters.

        Args:
            rows: a table with the columns `tile_id`, `valid_fraction` and `geometry` (WKB).
        """
        # Valid fractions are stored as float32, so the bound is rounded to float32.
        passes = rows["valid_fraction"].to_numpy() >= np.float32(self.min_valid_fraction)
        passes &= ~pc.is_in(rows["tile_id"], pa.array(self.excluded, pa.string())).to_numpy()
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
