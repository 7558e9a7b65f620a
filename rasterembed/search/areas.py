"""The areas that a search is restricted to: boxes, and polygons out of GeoJSON."""

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
"""Areas in longitude and latitude, each of which a tile has to meet; none: anywhere."""

_LONLAT_NAMES = ("CRS84", "EPSG::4326", "EPSG:4326")


def areas_of(where: Where) -> Areas:
    """The areas that `where` names.

    Raises:
        DataError: if the GeoJSON file is not there, or holds no polygons in longitude and latitude.
    """
    areas = []
    if where.bbox is not None:
        areas.append(_box(*where.bbox))
    if where.within is not None:
        areas.append(read_polygons(Path(where.within).expanduser()))
    return tuple(areas)


def meeting(areas: Areas, footprints: NDArray[np.object_]) -> NDArray[np.bool_]:
    """Whether each footprint meets every area; an edge in common is enough. Shape (n,)."""
    inside = np.ones(len(footprints), dtype=bool)
    for area in areas:
        shapely.prepare(area)
        inside &= shapely.intersects(area, footprints)
    return inside


def _box(west: float, south: float, east: float, north: float) -> shapely.Geometry:
    if west <= east:
        return shapely.box(west, south, east, north)
    return shapely.MultiPolygon([shapely.box(west, south, 180.0, north), shapely.box(-180.0, south, east, north)])


def read_polygons(path: Path) -> shapely.Geometry:
    """The union of a GeoJSON file's polygons (RFC 7946: longitude and latitude on WGS 84).

    Raises:
        StoreError: if the file cannot be read.
        DataError: if it holds something else.
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
        found = ", ".join(sorted({g.geom_type for g in geometries})) or "nothing"
        raise DataError(f"{path}: it holds {found}, where polygons are needed")
    area = shapely.union_all(shapely.make_valid(np.array(geometries, dtype=object)))
    west, south, east, north = area.bounds
    if not (west >= -180 and east <= 180 and south >= -90 and north <= 90):
        raise DataError(f"{path}: its coordinates are not degrees of longitude and latitude: reproject it to EPSG:4326")
    return area


def _geometries(content: dict[str, Any]) -> Iterator[dict[str, Any]]:
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
    """Name of the CRS member that GeoJSON had before RFC 7946, and that QGIS and GDAL still write."""
    crs = content.get("crs")
    if not isinstance(crs, dict):
        return None
    return str(crs.get("properties", {}).get("name"))
