"""Areas that restrict a search: a box, and the polygons of a GeoJSON file."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.geometry import shape

from rasterembed.errors import DataError, one_line, os_errors
from rasterembed.search.query import Where

Areas = tuple[shapely.Geometry, ...]
"""Areas in longitude and latitude. A tile must meet each area. Without an area, every tile passes."""

_LONLAT_NAMES = ("CRS84", "EPSG::4326", "EPSG:4326")
"""Endings of CRS names. In a CRS with such a name, the coordinates are longitude and latitude."""

_MAX_PARTS = 32
"""Largest number of polygons for which an SQL query lists one box for each polygon. If an area has more polygons, the
query has one box for the whole area."""


def read_areas(where: Where) -> Areas:
    """Return the areas in `where`.

    Raises:
        StoreError: if the GeoJSON file cannot be read.
        DataError: if the GeoJSON file does not hold polygons in longitude and latitude.
    """
    areas = []
    if where.bbox is not None:
        areas.append(_box(*where.bbox))
    if where.within is not None:
        areas.append(read_polygons(Path(where.within).expanduser()))
    return tuple(areas)


def meets_all(areas: Areas, footprints: NDArray[np.object_]) -> NDArray[np.bool_]:
    """Return whether each footprint meets every area. It is enough if they have a common edge.

    Args:
        areas: the areas.
        footprints: polygons in longitude and latitude, shape (n,).

    Returns:
        Shape (n,).
    """
    result = np.ones(len(footprints), dtype=bool)
    for area in areas:
        shapely.prepare(area)
        result &= shapely.intersects(area, footprints)
    return result


def bounds_condition(areas: Areas) -> tuple[str, dict[str, float]]:
    """Return an SQL condition on the column `bbox`, and the values of the condition's parameters.

    The condition is true for every tile that meets the areas, and for some other tiles. DuckDB compares the condition
    with the statistics of each row group. DuckDB does not read a row group that has no such tile.
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


def _box(west: float, south: float, east: float, north: float) -> shapely.Geometry:
    """Return the box as one polygon. If west > east, the box crosses the antimeridian and becomes two polygons."""
    if west <= east:
        return shapely.box(west, south, east, north)
    return shapely.MultiPolygon([shapely.box(west, south, 180.0, north), shapely.box(-180.0, south, east, north)])


def read_polygons(path: Path) -> shapely.Geometry:
    """Return the union of all polygons in a GeoJSON file.

    Args:
        path: a GeoJSON file by RFC 7946, in longitude and latitude on WGS 84.

    Raises:
        StoreError: if the file cannot be read.
        DataError: if the file is not GeoJSON, has another CRS, or holds other geometries than polygons.
    """
    with os_errors(str(path)):
        text = path.read_bytes()
    try:
        content = json.loads(text)
        geometries = [shape(geometry) for geometry in _geometries(content)]
    except (ValueError, TypeError, KeyError, AttributeError, shapely.errors.ShapelyError) as error:
        raise DataError(f"{path}: it is not GeoJSON: {one_line(error)}") from error
    crs = _crs_name(content)
    if crs is not None and not crs.endswith(_LONLAT_NAMES):
        raise DataError(f"{path}: its CRS is {crs}: GeoJSON is in longitude and latitude (RFC 7946); reproject it")
    if not geometries or any(g.geom_type not in ("Polygon", "MultiPolygon") or g.is_empty for g in geometries):
        kinds = ", ".join(sorted({g.geom_type for g in geometries})) or "nothing"
        raise DataError(f"{path}: it holds {kinds}, but polygons are needed")
    area = shapely.union_all(shapely.make_valid(np.array(geometries, dtype=object)))
    west, south, east, north = area.bounds
    if not (west >= -180 and east <= 180 and south >= -90 and north <= 90):
        raise DataError(f"{path}: its coordinates are not degrees of longitude and latitude: reproject it to EPSG:4326")
    return area


def _geometries(content: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield all geometries in a GeoJSON object, also from nested objects."""
    kind = content["type"]
    if kind == "FeatureCollection":
        for feature in content["features"]:
            yield from _geometries(feature)
    elif kind == "Feature":
        if content["geometry"] is not None:
            yield from _geometries(content["geometry"])
    elif kind == "GeometryCollection":
        for geometry in content["geometries"]:
            yield from _geometries(geometry)
    else:
        yield content


def _crs_name(content: dict[str, Any]) -> str | None:
    """Return the name of the CRS in the file's member `crs`, or None if the file has no such member.

    RFC 7946 removed the member `crs` from GeoJSON, but QGIS and GDAL still write it.
    """
    crs = content.get("crs")
    if not isinstance(crs, dict):
        return None
    return str(crs.get("properties", {}).get("name"))
