"""Areas that restrict a search: a box, and the polygons of a GeoJSON file."""

from __future__ import annotations

import hashlib
import json
import math
import os
import stat
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.geometry import shape

from rasterembed.antimeridian import crossing_note
from rasterembed.errors import DataError, one_line, os_errors
from rasterembed.number_text import number_text, rounded_text
from rasterembed.search.query import Where

Bounds = Sequence[NDArray[np.float64]]
"""Bounding boxes of n footprints: four arrays of shape (n,), with west, south, east and north in degrees."""


@dataclass(frozen=True, eq=False)
class Area:
    """An area in longitude and latitude."""

    parts: NDArray[np.object_]
    """The geometries that make up the area, shape (n,). Longitudes are -180 to 180. The geometries may overlap."""
    key: tuple[float, ...] | str
    """Two areas with the same key have the same parts: the box, or the SHA-256 digest of the GeoJSON file."""

    @cached_property
    def boxes(self) -> NDArray[np.float64]:
        """West, south, east and north of boxes that together contain the area, shape (m, 4)."""
        if len(self.parts) <= _MAX_PARTS:
            return np.asarray(shapely.bounds(self.parts), np.float64)
        return np.asarray(shapely.total_bounds(self.parts), np.float64)[None]

    def may_meet(self, bounds: Bounds) -> NDArray[np.bool_]:
        """Return which bounding boxes intersect `boxes`. It is false only for footprints outside the area.

        Args:
            bounds: bounding boxes of n footprints. A missing footprint has NaN.

        Returns:
            Booleans, shape (n,). False for a missing footprint.
        """
        xmin, ymin, xmax, ymax = bounds
        result = np.zeros(len(xmin), bool)
        for west, south, east, north in self.boxes.tolist():
            result |= (xmin <= east) & (xmax >= west) & (ymin <= north) & (ymax >= south)
        return result

    def in_a_box(self, bounds: Bounds) -> NDArray[np.bool_]:
        """Return which bounding boxes are inside a part of the area that is a box. Their footprints meet the area.

        Args:
            bounds: bounding boxes of n footprints. A missing footprint has NaN.

        Returns:
            Booleans, shape (n,). It may be false for a footprint that meets the area.
        """
        xmin, ymin, xmax, ymax = bounds
        result = np.zeros(len(xmin), bool)
        for is_box, (west, south, east, north) in zip(self._are_boxes, self.boxes.tolist(), strict=False):
            if is_box:
                result |= (xmin >= west) & (xmax <= east) & (ymin >= south) & (ymax <= north)
        return result

    def classify(self, bounds: Bounds) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Return which boxes intersect the area, and which are inside it. It takes longer than `may_meet`.

        Args:
            bounds: n boxes, each around the footprints of several tiles. NaN stands for a box without a tile.

        Returns:
            Two arrays of n booleans. If the first one is false, no footprint in the box meets the area. If the second
            one is true, every footprint in the box meets it.
        """
        possible, sure = self.may_meet(bounds), self.in_a_box(bounds)
        if len(self.parts) > _MAX_PARTS:
            return possible, sure
        unsure = np.flatnonzero(possible & ~sure)
        boxes = shapely.box(*(side[unsure] for side in bounds))
        meets, inside = np.zeros(len(unsure), bool), np.zeros(len(unsure), bool)
        for part, is_box in zip(self.parts, self._are_boxes, strict=True):
            meets |= shapely.intersects(part, boxes)
            if not is_box:
                inside |= shapely.covers(part, boxes)
        possible[unsure], sure[unsure] = meets, inside
        return possible, sure

    @cached_property
    def _are_boxes(self) -> list[bool]:
        """Whether each part is equal to its bounding box. The other parts are prepared for `classify`."""
        if len(self.parts) > _MAX_PARTS:
            return [False]
        are_boxes = shapely.get_num_coordinates(self.parts) == 5
        are_boxes[are_boxes] = shapely.equals(self.parts[are_boxes], shapely.envelope(self.parts[are_boxes]))
        shapely.prepare(self.parts[~are_boxes])
        return [bool(is_box) for is_box in are_boxes]

    def meets(self, footprints: NDArray[np.object_]) -> NDArray[np.bool_]:
        """Return which footprints intersect the area. A footprint that only touches the area intersects it.

        Args:
            footprints: polygons in longitude and latitude, shape (n,).

        Returns:
            Booleans, shape (n,): True where the footprint intersects the area.
        """
        result = np.zeros(len(footprints), dtype=bool)
        tree = shapely.STRtree(footprints)
        for start in range(0, len(self.parts), _PARTS_AT_ONCE):
            _, met = tree.query(self.parts[start : start + _PARTS_AT_ONCE], predicate="intersects")
            result[met] = True
            if result.all():
                break
        return result


Areas = tuple[Area, ...]
"""Areas of a search. A tile passes if its footprint intersects every area. Without an area, every tile passes."""

_LONLAT_NAMES = ("CRS84", "EPSG::4326", "EPSG:4326")
"""Endings of CRS names. In a CRS with such a name, the coordinates are longitude and latitude."""

_PARTS_AT_ONCE = 64
"""Largest number of an area's parts that are compared with footprints at once. This limits the memory for the pairs of
a part and a footprint."""

_MAX_BYTES, _MAX_POINTS = 32 * 2**20, 1_000_000
"""Largest size of a GeoJSON file in bytes, and largest number of points in it."""

_MAX_CROSSINGS = 1000
"""Largest number of places where the polygons of a file cross themselves. With this number of crossings, making the
polygons valid takes about a second. The time grows faster than the number of crossings."""

_PAIRS_AT_ONCE = 10_000_000
"""Largest number of pairs of edges that are held in memory."""

_FEW_POINTS, _PAIRS_OF_EDGE = 200, 100
"""Limits for `_is_tangled`. A polygon with fewer points than the first number is never tangled. Any other polygon is
tangled if the bounding box of an edge intersects, on average, the boxes of more edges than the second number. In
coastlines, this average is about five."""

_MOST_KEPT = 4
"""Number of files whose polygons are kept for the next query."""

_SETTLED_NS = 2 * 10**9
"""A file that changed less than so many nanoseconds ago is not kept. It could change again without a new time, because
some file systems count time in steps of two seconds."""

_MAX_PARTS = 32
"""Largest number of parts of an area for which an SQL query has one box for each part. If an area has more parts, the
query has one box for the whole area."""


class AreaFiles:
    """Reads areas, and keeps the polygons of the last GeoJSON files. Several threads may use one object."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[int, ...], tuple[list[bytes], str]] = OrderedDict()
        self._lock = threading.Lock()

    def read(self, where: Where) -> Areas:
        """Return the areas in `where`. See `read_areas`."""
        boxes = () if where.bbox is None else (_box(*where.bbox),)
        return boxes if where.within is None else (*boxes, self._polygons(Path(where.within).expanduser()))

    def _polygons(self, path: Path) -> Area:
        """Return the polygons in a GeoJSON file. See `read_polygons`."""
        with os_errors(str(path)), path.open("rb") as file:
            info = os.fstat(file.fileno())
            state = info.st_dev, info.st_ino, info.st_size, info.st_mtime_ns, info.st_ctime_ns
            with self._lock:
                kept = self._kept.get(state)
            text = b"" if kept is not None else file.read(_MAX_BYTES + 1)
        if kept is None:
            area = _parse_polygons(text, path)
            settled = time.time_ns() - info.st_mtime_ns > _SETTLED_NS
            if not (stat.S_ISREG(info.st_mode) and settled):
                return area
            kept = shapely.to_wkb(area.parts).tolist(), str(area.key)
        with self._lock:
            self._kept[state] = kept
            self._kept.move_to_end(state)
            while len(self._kept) > _MOST_KEPT:
                self._kept.popitem(last=False)
        # GEOS does not allow two threads to use one prepared geometry at the same time. So each query has its own.
        return Area(np.asarray(shapely.from_wkb(kept[0]), dtype=object), kept[1])


def read_areas(where: Where) -> Areas:
    """Return the areas in `where`.

    Raises:
        StoreError: if the GeoJSON file cannot be read.
        DataError: if the GeoJSON file does not hold polygons in longitude and latitude.
    """
    return AreaFiles().read(where)


def meets_all(areas: Areas, footprints: NDArray[np.object_]) -> NDArray[np.bool_]:
    """Return which footprints intersect every area.

    Args:
        areas: the areas.
        footprints: polygons in longitude and latitude, shape (n,).

    Returns:
        Booleans, shape (n,): True where the footprint intersects every area.
    """
    result = np.ones(len(footprints), dtype=bool)
    for area in areas:
        result &= area.meets(footprints)
    return result


def bounds_condition(areas: Areas) -> tuple[str, dict[str, float]]:
    """Return an SQL condition on the column `bbox`, and the values of the condition's parameters.

    The condition compares only bounding boxes. It is true for every tile that intersects all areas, and for some tiles
    near the areas. DuckDB skips a row group if the group's statistics show that the condition is false for all tiles in
    the group.
    """
    clauses = ["true"]
    parameters: dict[str, float] = {}
    for i, area in enumerate(areas):
        choices = []
        for j, box in enumerate(area.boxes.tolist()):
            west, south, east, north = (f"a{i}_{j}_{side}" for side in "wsen")
            parameters |= dict(zip((west, south, east, north), box, strict=True))
            choices.append(
                f"(bbox.xmin <= ${east} AND bbox.xmax >= ${west} AND bbox.ymin <= ${north} AND bbox.ymax >= ${south})"
            )
        clauses.append(f"({' OR '.join(choices)})")
    return " AND ".join(clauses), parameters


def notes_on_areas(where: Where, areas: Areas) -> list[str]:
    """Return notes about areas that may cover another part of the Earth than a person thinks.

    Args:
        where: filters of a search.
        areas: the areas in `where`.
    """
    notes = [] if where.bbox is None else [crossing_note(where.bbox)]
    if where.within is not None:
        west, _, east, _ = shapely.bounds(areas[-1].parts).T
        # A polygon around a pole goes around the whole Earth.
        widest = (east - west)[east - west < 360.0].max(initial=0.0)
        if widest > 180.0:
            notes.append(
                f"a polygon covers {rounded_text(widest, 360.0)} degrees of longitude: if it should cross the "
                "antimeridian, cut it there, or let its longitudes go on beyond 180 (RFC 7946, section 3.1.9)"
            )
    return list(filter(None, notes))


def hint_for_areas(where: Where, areas: Areas, outlines: Sequence[shapely.Geometry]) -> str:
    """Return a hint if no searched raster is in the areas, else an empty text.

    The hint says where the rasters are. If the longitudes and latitudes of the box seem to be swapped, it says so.

    Args:
        where: filters of a search.
        areas: the areas in `where`.
        outlines: outlines of the searched rasters in longitude and latitude.
    """
    geometries = np.array(outlines, dtype=object)
    if not areas or not len(geometries) or meets_all(areas, geometries).any():
        return ""
    if where.bbox is not None and _is_swapped(where.bbox, geometries):
        west, south, east, north = map(number_text, where.bbox)
        return f"The longitude comes first: did you mean the box {south} {west} {north} {east}?"
    west, south, east, north = shapely.total_bounds(geometries).tolist()
    place = f"longitudes {interval_text(west, east)} and latitudes {interval_text(south, north)}"
    return f"the area is outside the searched rasters, which have {place}"


def _is_swapped(box: tuple[float, float, float, float], outlines: NDArray[np.object_]) -> bool:
    """Return whether the longitudes and latitudes of a box outside all outlines seem to be swapped."""
    west, south, east, north = box
    if west > east or max(abs(west), abs(east)) > 90.0:
        return False  # The first and the third number cannot be latitudes.
    return bool(not _box(*box).meets(outlines).any() and _box(south, west, north, east).meets(outlines).any())


def interval_text(low: float, high: float) -> str:
    """Return an interval as text, with enough digits that its ends differ."""
    return f"{rounded_text(low, high - low)} to {rounded_text(high, high - low)}"


def _box(west: float, south: float, east: float, north: float) -> Area:
    """Return a box as an `Area`. If west > east, the box crosses the antimeridian."""
    if west > east:
        east += 360.0 * math.ceil((west - east) / 360.0)
    east = min(east, west + 360.0)
    return _area(np.array([shapely.box(west, south, east, north)], dtype=object), (west, south, east, north))


def _area(geometries: NDArray[np.object_], key: tuple[float, ...] | str) -> Area:
    """Return geometries as one `Area`. Parts beyond longitude -180 or 180 are moved by whole turns of 360 degrees.

    The meridians at -180 and 180 are the same line, so a geometry that touches one of them touches both.
    """
    west, _, east, _ = shapely.bounds(geometries).T
    within = (west > -180.0) & (east < 180.0)
    parts = [geometries[within]]
    world = shapely.box(-180.0, -90.0, 180.0, 90.0)
    for turn in range(-3, 4):
        moved = geometries[~within & (west + 360.0 * turn <= 180.0) & (east + 360.0 * turn >= -180.0)]
        moved = shapely.transform(moved, lambda places, shift=(360.0 * turn, 0.0): places + shift)
        inside = shapely.intersection(moved, world)
        parts.append(inside[~shapely.is_empty(inside)])
    return Area(np.concatenate(parts), key)


def read_polygons(path: Path) -> Area:
    """Return the polygons in a GeoJSON file.

    Args:
        path: a GeoJSON file by RFC 7946, in longitude and latitude on WGS 84.

    Raises:
        StoreError: if the file cannot be read.
        DataError: if the file is not GeoJSON or is too large; if its coordinates are not longitude and latitude; if it
            holds a geometry that is not a polygon; or if its polygons cross themselves too often.
    """
    with os_errors(str(path)), path.open("rb") as file:
        text = file.read(_MAX_BYTES + 1)
    return _parse_polygons(text, path)


def _parse_polygons(text: bytes, path: Path) -> Area:
    """Return the polygons in the content of a GeoJSON file, of which at most `_MAX_BYTES` + 1 bytes were read."""
    if len(text) > _MAX_BYTES:
        raise DataError(f"{path}: it has more than {_MAX_BYTES // 2**20} MiB: simplify its polygons, or cut it")
    try:
        content = json.loads(text, parse_constant=_refuse_constant)
        geometries = np.array([shape(geometry) for geometry in _geometries(content)], dtype=object)
        crs = _crs_name(content)
    except RecursionError as error:
        raise DataError(f"{path}: it is not GeoJSON: it is nested too deeply") from error
    except (ValueError, TypeError, LookupError, AttributeError, OverflowError, shapely.errors.ShapelyError) as error:
        raise DataError(f"{path}: it is not GeoJSON: {one_line(error)}") from error
    if crs is not None and not crs.endswith(_LONLAT_NAMES):
        raise DataError(f"{path}: its CRS is {crs}: GeoJSON is in longitude and latitude (RFC 7946); reproject it")
    kinds = {geometry.geom_type for geometry in geometries}
    if not kinds or not kinds <= {"Polygon", "MultiPolygon"} or shapely.is_empty(geometries).any():
        raise DataError(f"{path}: it holds {', '.join(sorted(kinds)) or 'nothing'}, but polygons are needed")
    places = shapely.get_coordinates(geometries)
    if len(places) > _MAX_POINTS:
        raise DataError(f"{path}: its polygons have {len(places)} points, more than {_MAX_POINTS}: simplify them")
    if not (np.abs(places) <= [360.0, 90.0]).all():
        raise DataError(f"{path}: its coordinates are not degrees of longitude and latitude: reproject it to EPSG:4326")
    return _area(_made_valid(shapely.get_parts(geometries), path), hashlib.sha256(text).hexdigest())


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not a number in JSON")


def _made_valid(polygons: NDArray[np.object_], path: Path) -> NDArray[np.object_]:
    """Repair the polygons that cross themselves. Return all polygons, the repaired and the valid ones.

    Raises:
        DataError: if the polygons cross themselves too often.
    """
    crossings = 0
    # GEOS can take hours to check a long ring with many edges at one place. The crossings of such a polygon are
    # therefore counted before GEOS checks the polygon.
    tangled = np.array([_is_tangled(polygon) for polygon in polygons])
    bad = tangled.copy()
    bad[~tangled] = ~shapely.is_valid(polygons[~tangled])
    for i in np.flatnonzero(bad):
        crossings += _crossings(polygons[i], _MAX_CROSSINGS - crossings)
        if crossings > _MAX_CROSSINGS:
            raise DataError(
                f"{path}: its polygons cross themselves more than {_MAX_CROSSINGS} times: mend them (in QGIS: Fix "
                "geometries), or draw a simpler area"
            )
        if not shapely.is_valid(polygons[i]):
            polygons[i] = shapely.make_valid(polygons[i])
    parts: NDArray[np.object_] = shapely.get_parts(polygons)
    return parts


def _edges(polygon: shapely.Geometry) -> NDArray[np.object_]:
    """Return the edges of all rings of a polygon as lines, shape (n,)."""
    rings = [shapely.get_coordinates(ring) for ring in shapely.get_rings(polygon)]
    edges: NDArray[np.object_] = shapely.linestrings(
        np.concatenate([np.stack([ring[:-1], ring[1:]], axis=1) for ring in rings])
    )
    return edges


def _is_tangled(polygon: shapely.Geometry) -> bool:
    """Return whether the boxes of a polygon's edges overlap far more often than in a polygon drawn by people."""
    if shapely.get_num_coordinates(polygon) < _FEW_POINTS:
        return False
    edges = _edges(polygon)
    tree = shapely.STRtree(edges)
    step = max(1, _PAIRS_AT_ONCE // len(edges))
    pairs = 0
    for start in range(0, len(edges), step):
        pairs += tree.query(edges[start : start + step]).shape[1]
        if pairs > _PAIRS_OF_EDGE * len(edges):
            return True
    return False


def _crossings(polygon: shapely.Geometry, limit: int) -> int:
    """Count the pairs of a polygon's edges that cross or cover each other. Stop when the count exceeds `limit`."""
    edges = _edges(polygon)
    tree = shapely.STRtree(edges)
    step = max(1, _PAIRS_AT_ONCE // len(edges) // 100)
    pairs = 0
    for start in range(0, len(edges), step):
        some = edges[start : start + step]
        for predicate in ("crosses", "overlaps", "covers"):
            pairs += tree.query(some, predicate=predicate).shape[1]
        pairs -= len(some)  # Each edge covers itself, which is no crossing.
        if pairs > 2 * limit:
            break
    return -(-pairs // 2)


def _geometries(content: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield all geometries in a GeoJSON object and in the objects that it contains."""
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

    RFC 7946 removed the member `crs` from GeoJSON, but QGIS and GDAL still write it:
    `"crs": {"type": "name", "properties": {"name": "urn:ogc:def:crs:OGC:1.3:CRS84"}}`.

    Raises:
        ValueError: if the member has no name.
    """
    crs = content.get("crs")
    if crs is None:
        return None
    properties = crs.get("properties") if isinstance(crs, dict) else None
    name = properties.get("name") if isinstance(properties, dict) else None
    if not isinstance(name, str) or not name:
        raise ValueError("its member crs names no CRS: remove the member if the file is in longitude and latitude")
    return " ".join(name.split())[:200]
