"""Make polygons with longitudes from -180 to 180 degrees from rings of longitude and latitude.

A ring is a closed line: its last point is at the same place as its first point. In a *continuous* ring, longitudes do
not jump from 180 to -180 at the antimeridian, but continue beyond 180. In a continuous ring around a pole, the last
longitude is therefore 360 degrees more or less than the first longitude.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.affinity import translate
from shapely.geometry.base import BaseGeometry

Floats = NDArray[np.float64]
Polygons = tuple[NDArray[np.object_], Floats]
"""Shapely geometries, shape (n,), and their bounds xmin, ymin, xmax, ymax, shape (n, 4)."""


def make_continuous(lon: Floats) -> Floats:
    """Return longitudes without jumps: along the last axis, neighbours differ by at most 180 degrees."""
    jumps = np.diff(lon)
    turns = -np.round(jumps / 360.0) * (np.abs(jumps) > 180.0)
    if not turns.any():
        return lon
    continuous = lon.copy()
    continuous[..., 1:] += 360.0 * np.cumsum(turns, axis=-1)
    return continuous


def deviations(lon: Floats, lat: Floats) -> Floats:
    """Return the distance of every second point from the straight line between its two neighbours.

    Args:
        lon: continuous longitudes, degrees, shape (..., 2 m + 1).
        lat: latitudes, degrees, of the same shape.

    Returns:
        Distances in degrees of latitude, shape (..., m). Differences of longitude are multiplied by the cosine of the
        latitude.
    """
    shortening = np.cos(np.radians(lat[..., 1::2]))
    line_x = (lon[..., 2::2] - lon[..., :-2:2]) * shortening
    line_y = lat[..., 2::2] - lat[..., :-2:2]
    x = (lon[..., 1::2] - lon[..., :-2:2]) * shortening
    y = lat[..., 1::2] - lat[..., :-2:2]
    length = np.hypot(line_x, line_y)
    distance: Floats = np.abs(line_x * y - line_y * x) / np.maximum(length, np.finfo(float).tiny)
    return distance


def polygons(x: Floats, y: Floats) -> Polygons:
    """Return counter-clockwise polygons of rings, in any plane coordinates.

    Args:
        x: x of the points of each ring, shape (n, points).
        y: y of the points, of the same shape.
    """
    count, points = x.shape
    rings = np.stack([x, y], axis=-1)
    from_first_x, from_first_y = x - x[:, :1], y - y[:, :1]
    doubled_area = (from_first_x[:, :-1] * from_first_y[:, 1:] - from_first_x[:, 1:] * from_first_y[:, :-1]).sum(axis=1)
    clockwise = doubled_area < 0.0
    rings[clockwise] = rings[clockwise, ::-1]
    offsets = (np.arange(count + 1) * points, np.arange(count + 1))
    # This takes a third of the time of shapely.polygons followed by orient_polygons.
    geometry = shapely.from_ragged_array(shapely.GeometryType.POLYGON, rings.reshape(-1, 2), offsets)
    bounds = np.stack([x.min(axis=1), y.min(axis=1), x.max(axis=1), y.max(axis=1)], axis=1)
    return geometry, bounds


def polygons_on_earth(lon: Floats, lat: Floats) -> Polygons:
    """Return the polygons of continuous rings that do not go around a pole.

    A polygon that crosses the antimeridian is cut there.

    Args:
        lon: degrees, shape (n, points).
        lat: degrees, of the same shape.
    """
    # Move every ring by whole turns, so that its western end is within -180 to 180.
    lon = lon - 360.0 * np.floor((lon.min(axis=1, keepdims=True) + 180.0) / 360.0)
    geometry, bounds = polygons(lon, lat)
    for i in np.flatnonzero(bounds[:, 2] > 180.0):
        geometry[i] = split_at_antimeridian(geometry[i])
        bounds[i] = geometry[i].bounds
    return geometry, bounds


def polygon_over_pole(lon: Floats, lat: Floats, pole_latitude: float) -> BaseGeometry:
    """Return the polygon of a continuous ring that goes around a pole once.

    On a map of longitude and latitude, the ring is a line from -180 to 180. The ring is opened where it crosses the
    antimeridian, and then closed along the pole.

    Args:
        lon: degrees, shape (points,).
        lat: degrees, shape (points,).
        pole_latitude: 90 or -90 degrees.
    """
    if lon[-1] < lon[0]:
        lon, lat = lon[::-1], lat[::-1]  # From here on the ring goes eastward.
    cut = 360.0 * np.ceil((lon[0] - 180.0) / 360.0) + 180.0
    before = int(np.flatnonzero((lon[:-1] <= cut) & (lon[1:] > cut))[0])
    after = before + 1
    share = (cut - lon[before]) / (lon[after] - lon[before])
    crossing = lat[before] + share * (lat[after] - lat[before])
    opened_lon = np.concatenate([[cut], lon[after:-1], lon[:after] + 360.0, [cut + 360.0, cut + 360.0, cut]])
    opened_lat = np.concatenate([[crossing], lat[after:-1], lat[:after], [crossing, pole_latitude, pole_latitude]])
    return split_at_antimeridian(shapely.Polygon(np.stack([opened_lon - cut - 180.0, opened_lat], axis=1)))


def polygon_of_left_side(lon: Floats, lat: Floats) -> BaseGeometry:
    """Return the part of the Earth at the left of a continuous ring.

    The part may contain one pole or both poles. If the ring runs clockwise around a small area, nearly the whole Earth
    is at its left.

    Args:
        lon: degrees, shape (points,).
        lat: degrees, shape (points,).
    """
    turn = lon[-1] - lon[0]
    if abs(turn) > 180.0:
        return polygon_over_pole(lon, lat, float(np.copysign(90.0, turn)))
    inside = split_at_antimeridian(shapely.Polygon(np.stack([lon, lat], axis=1)))
    x, y = lon - lon[0], lat - lat[0]
    if (x[:-1] * y[1:] - x[1:] * y[:-1]).sum() >= 0.0:
        return inside
    return shapely.box(-180.0, -90.0, 180.0, 90.0).difference(inside)


def split_at_antimeridian(polygon: BaseGeometry) -> BaseGeometry:
    """Move a polygon with continuous longitudes into -180 to 180. Cut it where it crosses the antimeridian."""
    if not polygon.is_valid:
        polygon = shapely.make_valid(polygon)
    west, _, east, _ = polygon.bounds
    parts: list[Any] = []
    for turn in range(int(np.floor((west + 180.0) / 360.0)), int(np.ceil((east - 180.0) / 360.0)) + 1):
        world = shapely.box(360.0 * turn - 180.0, -90.0, 360.0 * turn + 180.0, 90.0)
        pieces = shapely.get_parts(polygon.intersection(world))
        parts += [translate(piece, xoff=-360.0 * turn) for piece in pieces if piece.area > 0.0]
    return shapely.orient_polygons(shapely.union_all(parts))
