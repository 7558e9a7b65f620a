"""Filters: which tiles of a dataset may answer. Every engine applies this one class."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import shapely

from rasterembed.search.areas import Areas, bounds_condition, meets_all


@dataclass(frozen=True)
class Filters:
    """Which tiles of one dataset may answer."""

    min_valid_fraction: float = 0.0
    """Smallest share of valid pixels, 0 to 1."""
    areas: Areas = ()
    """Areas in longitude and latitude. A tile must meet each of them."""
    excluded: frozenset[str] = frozenset()
    """Ids of tiles that must not answer: those that the query names."""

    @property
    def restrictive(self) -> bool:
        """Whether the filters may reject other tiles than the excluded ones."""
        return bool(self.areas) or self.min_valid_fraction > 0

    def keep_passing(self, rows: pa.Table) -> pa.Table:
        """Return the rows that pass all filters.

        Args:
            rows: a table with the columns `tile_id`, `valid_fraction` and `geometry` (WKB).
        """
        # Valid fractions are stored as float32, so the bound is compared in float32 too.
        passes = rows["valid_fraction"].to_numpy() >= np.float32(self.min_valid_fraction)
        passes &= ~pc.is_in(rows["tile_id"], pa.array(self.excluded, pa.string())).to_numpy()
        if self.areas:
            passes &= meets_all(self.areas, shapely.from_wkb(rows["geometry"].to_numpy()))
        return rows.filter(pa.array(passes))

    def sql_condition(self) -> tuple[str, dict[str, Any]]:
        """Return an SQL condition on a shard's columns, and the values of its parameters.

        Every row that passes the filters fulfils the condition. Of the areas it compares only bounding boxes, so rows
        just outside an area fulfil it too.
        """
        in_bounds, bounds = bounds_condition(self.areas)
        condition = f"valid_fraction >= $valid::FLOAT AND NOT list_contains($excluded, tile_id) AND {in_bounds}"
        return condition, {"valid": self.min_valid_fraction, "excluded": sorted(self.excluded), **bounds}
