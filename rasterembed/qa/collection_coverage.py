"""The area that the scenes of a collection cover, and how many of them lie on top of each other."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyproj
import shapely
from numpy.typing import NDArray

_EQUAL_AREA = "EPSG:6933"
"""WGS 84 / NSIDC EASE-Grid 2.0 Global: a cylindrical projection that keeps areas, also of large footprints."""

_CHUNK = 512
"""Number of scenes whose overlapping scenes are counted at once."""


@dataclass(frozen=True)
class CollectionCoverage:
    """The ground that scenes cover. n scenes with a place on Earth."""

    area_km2: float
    """Area of the union of all footprints, in square kilometres."""
    sum_km2: float
    """Sum of the areas of all footprints, in square kilometres."""
    depth: NDArray[np.int64]
    """Number of scenes whose footprint contains the middle of each scene, shape (n,). At least 1."""


def measure_collection_coverage(geometry: NDArray[np.object_]) -> CollectionCoverage:
    """Measure the area of footprints, and their overlap.

    Args:
        geometry: footprints in OGC:CRS84, shape (n,), without None.
    """
    transformer = pyproj.Transformer.from_crs("OGC:CRS84", _EQUAL_AREA, always_xy=True)
    flat = shapely.make_valid(
        shapely.transform(geometry, lambda points: np.column_stack(transformer.transform(*points.T)))
    )
    areas = shapely.area(flat)
    union = float(shapely.area(shapely.disjoint_subset_union_all(flat))) if len(flat) else 0.0
    return CollectionCoverage(union / 1e6, float(areas.sum()) / 1e6, _depth(flat))


def _depth(flat: NDArray[np.object_]) -> NDArray[np.int64]:
    """Return the number of footprints that contain the middle of each footprint, shape (n,)."""
    middles = shapely.point_on_surface(flat)
    tree = shapely.STRtree(flat)
    depth = np.ones(len(flat), dtype=np.int64)
    for start in range(0, len(flat), _CHUNK):
        here, there = tree.query(middles[start : start + _CHUNK], predicate="intersects")
        others = here[there != here + start]
        depth[start : start + _CHUNK] += np.bincount(others, minlength=len(depth[start : start + _CHUNK]))
    return depth
