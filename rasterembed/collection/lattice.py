"""The lattice of an anchored grid: scenes with the same lattice give the same ground the same tile id."""

from __future__ import annotations

import hashlib
from functools import lru_cache

from rasterio.crs import CRS

from rasterembed.dataset.plan import Plan


def lattice_of(plan: Plan) -> str | None:
    """Return CRS and pixel size of a dataset's grid as text. None if the grid is not anchored to the CRS.

    Size, stride and origin of the grid are the same in all scenes of a collection, so they are no part of the text.

    Example:
        >>> lattice_of(plan)  # doctest: +SKIP
        'EPSG:32635 10 -10'
    """
    if plan.sharding.anchor is None or plan.profile.crs_wkt is None:
        return None
    width, height = plan.profile.transform[0], plan.profile.transform[4]
    # Rasters with pixel sizes that differ by a rounding error are on the same lattice.
    return f"{_name_of_crs(plan.profile.crs_wkt)} {width:.9g} {height:.9g}"


@lru_cache(maxsize=64)
def _name_of_crs(wkt: str) -> str:
    """Return authority and code of a CRS, or else a digest of its WKT."""
    crs = CRS.from_wkt(wkt)
    authority = crs.to_authority()
    return ":".join(authority) if authority else f"wkt-{hashlib.sha256(crs.to_wkt().encode()).hexdigest()[:16]}"
