"""Where tiles are on Earth: exact windows as polygons in OGC:CRS84, split at the antimeridian.

A window's border is walked in pixel space, carried through the affine or the ground control points to the native CRS,
and from there to longitude and latitude. Every edge gets as many points as it takes for the straight lines between
them to stay within a tenth of a pixel of the true, curved edge. A footprint follows from its raster and window alone,
never from the tiles that are asked for with it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyproj
import shapely
from numpy.typing import NDArray
from pyproj.enums import TransformDirection
from rasterio.control import GroundControlPoint as RasterioGCP
from rasterio.transform import GCPTransformer
from shapely.affinity import translate
from shapely.geometry.base import BaseGeometry

from rasterembed.errors import DataError
from rasterembed.raster.grid import Tiles
from rasterembed.raster.profile import RasterProfile

CRS84 = "OGC:CRS84"

Floats = NDArray[np.float64]

_TOLERANCE_PX = 0.05
"""How far the middle of a line may be from the true edge; half of what is promised, for only middles are measured."""

_MAX_SEGMENTS = 64
"""Equal parts of an edge; a border that needs finer ones is divided only where it bends."""

_MAX_ROUNDS = 20
"""Halvings of an edge; only a border across a tear in the map, where no number is enough, comes to this."""

_SNAP_PX = 0.01
"""An edge this near the antimeridian is on it: pixel sizes in files are rounded, and slivers help nobody."""

_POLE_GAP_PX = 0.002
"""A border through a pole goes round it at this distance, for at the pole itself there is no longitude."""

_POINTS_AT_ONCE = 2**18
"""Border points worked on together; bounds memory, and fits a processor's cache."""


@dataclass(frozen=True)
class Footprints:
    """Places of n tiles."""

    geometry: NDArray[np.object_]
    """Shapely Polygon or MultiPolygon of each tile, counter-clockwise, shape (n,)."""
    bounds: Floats
    """xmin, ymin, xmax, ymax of each, shape (n, 4). A tile across the antimeridian reaches from -180 to 180."""


class Footprinter:
    """Makes footprints for the tiles of one raster.

    Args:
        profile: the raster; without a place on Earth, footprints are in its pixels (x right, y down).
    """

    def __init__(self, profile: RasterProfile) -> None:
        self._profile = profile
        self._crs = pyproj.CRS.from_wkt(profile.crs_wkt) if profile.on_earth and profile.crs_wkt else None
        self._to_lonlat = pyproj.Transformer.from_crs(self._crs, CRS84, always_xy=True) if self._crs else None

    @cached_property
    def _degrees(self) -> float | None:
        """Degrees in a unit of the native x where that is a longitude, else None."""
        # a rotated pole's coordinates are called geographic too
        if self._crs is None or not self._crs.is_geographic or self._crs.is_derived:
            return None
        return float(np.degrees(self._crs.axis_info[0].unit_conversion_factor))

    @cached_property
    def _gcps(self) -> GCPTransformer | None:
        """GDAL's own polynomial through the ground control points, of the order GDAL chooses."""
        if not self._profile.gcps:
            return None
        xs = np.array([p.x for p in self._profile.gcps])
        if self._degrees and np.ptp(xs) * self._degrees > 180.0:
            xs = np.where(xs < 0.0, xs + 360.0 / self._degrees, xs)  # points on both sides of the antimeridian
        points = [RasterioGCP(p.row, p.col, x, p.y, p.z) for p, x in zip(self._profile.gcps, xs.tolist(), strict=True)]
        return GCPTransformer(points)

    @cached_property
    def _poles(self) -> list[tuple[shapely.Point, float]]:
        """Pixel positions (column, row) of the poles that are points on the map, and their latitudes."""
        if self._to_lonlat is None or self._degrees or self._gcps is not None:
            return []
        poles = []
        a, b, c, d, e, f = tuple(~self._profile.affine)[:6]
        longitudes = np.array([0.0, 90.0, 180.0, 270.0])
        for latitude in (90.0, -90.0):
            x, y = self._to_lonlat.transform(longitudes, np.full(4, latitude), direction=TransformDirection.INVERSE)
            with np.errstate(invalid="ignore"):
                cols, rows = a * x + b * y + c, d * x + e * y + f
                # elsewhere a pole is a line, or not on the map
                if np.hypot(np.ptp(cols), np.ptp(rows)) < _POLE_GAP_PX:
                    poles.append((shapely.Point(cols[0], rows[0]), latitude))
        return poles

    def native(self, cols: Floats, rows: Floats) -> tuple[Floats, Floats]:
        """Native x and y of pixel positions (corners are whole numbers), in the inputs' shape."""
        if self._gcps is not None:
            x, y = self._gcps.xy(rows.ravel(), cols.ravel(), offset="ul")
            return np.reshape(x, cols.shape), np.reshape(y, cols.shape)
        a, b, c, d, e, f = self._profile.transform
        return a * cols + b * rows + c, d * cols + e * rows + f

    def lonlat(self, cols: Floats, rows: Floats) -> tuple[Floats, Floats]:
        """Longitude and latitude (degrees, OGC:CRS84) of pixel positions, in the inputs' shape.

        Longitudes of a raster in longitude and latitude go on beyond +-180 where its own do.

        Raises:
            DataError: where the native CRS has no inverse.
        """
        assert self._crs is not None
        assert self._to_lonlat is not None
        x, y = self.native(cols, rows)
        lon, lat = map(np.asarray, self._to_lonlat.transform(x, y))
        if not (np.isfinite(lon).all() and np.isfinite(lat).all()):
            bad = np.flatnonzero(~(np.isfinite(lon) & np.isfinite(lat)).ravel())[0]
            raise DataError(
                f"pixel (column {cols.ravel()[bad]:g}, row {rows.ravel()[bad]:g}) has no longitude and latitude in "
                f"CRS {self._crs.name!r}: crop the raster to the CRS's area of use, or warp it to another CRS"
            )
        if self._degrees:
            lon = lon + 360.0 * np.round((x * self._degrees - lon) / 360.0)
            # a grid of pixel centres from pole to pole sticks out by half a pixel
            lat = np.clip(lat, -90.0, 90.0)
        return lon, lat

    def __call__(self, tiles: Tiles) -> Footprints:
        """Footprints of tiles.

        Raises:
            DataError: where a window lies outside what the native CRS can express, or covers no area.
        """
        if self._to_lonlat is None:
            return _polygons(*_border(tiles, 1))
        geometry = np.empty(len(tiles), dtype=object)
        bounds = np.empty((len(tiles), 4))
        by_a_pole = self._by_a_pole(tiles)
        waiting = np.flatnonzero(~by_a_pole)
        segments = 1
        while len(waiting) and segments <= _MAX_SEGMENTS:
            coarse = []
            for some in _in_parts(waiting, 8 * segments):
                lon, lat, fine = self._border_on_earth(tiles.take(some), segments)
                drawn = _on_the_map(lon[fine], lat[fine])
                geometry[some[fine]], bounds[some[fine]] = drawn.geometry, drawn.bounds
                coarse.append(some[~fine])
            waiting = np.concatenate(coarse)
            segments *= 2
        for i in [*np.flatnonzero(by_a_pole), *waiting]:
            geometry[i] = self._carefully(tiles.take(slice(i, i + 1)))
            bounds[i] = geometry[i].bounds
        self._check_areas(tiles, bounds)
        return Footprints(geometry, bounds)

    def _border_on_earth(self, tiles: Tiles, segments: int) -> tuple[Floats, Floats, NDArray[np.bool_]]:
        """Closed borders with edges in `segments` parts, shape (n, 4 * segments + 1), and which are fine enough."""
        lon, lat = self.lonlat(*_border(tiles, 2 * segments))
        lon = _continuous(lon)
        pixel = _pixel(lon, lat, tiles)
        fine = (_bow(lon, lat) <= _TOLERANCE_PX * pixel[:, None]).all(axis=1)
        fine &= np.abs(lon[:, -1] - lon[:, 0]) < 180.0  # not round a pole
        return _snapped(lon, tiles)[:, ::2], lat[:, ::2], fine

    def _by_a_pole(self, tiles: Tiles) -> NDArray[np.bool_]:
        """Tiles that hold a pole, or come within a pixel of one."""
        found = np.zeros(len(tiles), dtype=bool)
        for pole, _ in self._poles:
            across = np.maximum(tiles.col_off - pole.x, pole.x - tiles.col_off - tiles.width)
            along = np.maximum(tiles.row_off - pole.y, pole.y - tiles.row_off - tiles.height)
            found |= np.maximum(across, along) <= 1.0
        return found

    def _carefully(self, tile: Tiles) -> BaseGeometry:
        """Footprint of one tile whose border bends sharply or goes round a pole; points are set where it bends."""
        left, top, width, height = (int(v[0]) for v in (tile.col_off, tile.row_off, tile.width, tile.height))
        window = shapely.box(left, top, left + width, top + height)
        inside = [latitude for pole, latitude in self._poles if window.contains(pole)]
        border = window.exterior
        on_border = [
            (border.interpolate(border.project(pole)), latitude)
            for pole, latitude in self._poles
            if border.distance(pole) < _POLE_GAP_PX / 2
        ]
        for pole, _ in on_border:
            window = window.difference(pole.buffer(_POLE_GAP_PX))
        cols, rows = shapely.get_coordinates(window.segmentize(max(width, height) / 8).exterior).T
        lon, lat = self.lonlat(*_border(tile, 16))
        pixel = _pixel(_continuous(lon), lat, tile)
        for _ in range(_MAX_ROUNDS):
            cols, rows = _halved(cols), _halved(rows)
            lon, lat = self.lonlat(cols, rows)
            lon = _continuous(lon)
            coarse = _bow(lon, lat) > _TOLERANCE_PX * pixel
            keep = np.ones(len(cols), dtype=bool)
            keep[1::2] = coarse
            cols, rows, lon, lat = cols[keep], rows[keep], lon[keep], lat[keep]
            if not coarse.any():
                break
        for pole, latitude in on_border:
            lat = np.where(np.hypot(cols - pole.x, rows - pole.y) < 1.5 * _POLE_GAP_PX, latitude, lat)
        lon = _snapped(lon, tile)[0]
        if abs(lon[-1] - lon[0]) > 180.0:
            return _over_the_pole(lon, lat, inside[0] if inside else float(np.copysign(90.0, lat.mean())))
        return _split(shapely.Polygon(np.stack([lon, lat], axis=1)))

    def _check_areas(self, tiles: Tiles, bounds: Floats) -> None:
        empty = np.flatnonzero((bounds[:, 0] >= bounds[:, 2]) | (bounds[:, 1] >= bounds[:, 3]))
        if len(empty):
            i = empty[0]
            raise DataError(
                f"the tile at column {tiles.col_off[i]}, row {tiles.row_off[i]} covers no area on Earth: "
                "the raster's CRS or transform is wrong"
            )


def _in_parts(which: NDArray[np.intp], points: int) -> Iterator[NDArray[np.intp]]:
    """`which` in parts, so that `points` for each are `_POINTS_AT_ONCE` at most."""
    some = max(1, _POINTS_AT_ONCE // points)
    for start in range(0, len(which), some):
        yield which[start : start + some]


def _border(tiles: Tiles, segments: int) -> tuple[Floats, Floats]:
    """Columns and rows of points around each window, closed, shape (n, 4 * segments + 1)."""
    steps = np.arange(segments) / segments
    ones, zeros = np.ones(segments), np.zeros(segments)
    # down the left edge first: counter-clockwise on a north-up map
    u = np.concatenate([zeros, steps, ones, 1 - steps, [0.0]])
    v = np.concatenate([steps, ones, 1 - steps, zeros, [0.0]])
    cols = tiles.col_off[:, None] + u * tiles.width[:, None]
    rows = tiles.row_off[:, None] + v * tiles.height[:, None]
    return cols, rows


def _halved(values: Floats) -> Floats:
    """The values and the means of neighbours between them, shape (2 n - 1,)."""
    halved = np.empty(2 * len(values) - 1)
    halved[::2] = values
    halved[1::2] = (values[:-1] + values[1:]) / 2
    return halved


def _continuous(lon: Floats) -> Floats:
    """Longitudes without jumps along each border, the last axis."""
    jumps = np.diff(lon)
    turns = -np.round(jumps / 360.0) * (np.abs(jumps) > 180.0)
    if not turns.any():
        return lon
    continuous = lon.copy()
    continuous[..., 1:] += 360.0 * np.cumsum(turns, axis=-1)
    return continuous


def _bow(lon: Floats, lat: Floats) -> Floats:
    """Distance of every second point from the line between its neighbours, in degrees of latitude."""
    squeeze = np.cos(np.radians(lat[..., 1::2]))
    chord_x = (lon[..., 2::2] - lon[..., :-2:2]) * squeeze
    chord_y = lat[..., 2::2] - lat[..., :-2:2]
    x = (lon[..., 1::2] - lon[..., :-2:2]) * squeeze
    y = lat[..., 1::2] - lat[..., :-2:2]
    length = np.hypot(chord_x, chord_y)
    bow: Floats = np.abs(chord_x * y - chord_y * x) / np.maximum(length, np.finfo(float).tiny)
    return bow


def _pixel(lon: Floats, lat: Floats, tiles: Tiles) -> Floats:
    """Shorter side of a pixel in degrees of latitude, from borders with edges in equal parts, shape (n,)."""
    squeeze = np.cos(np.radians((lat[:, 1:] + lat[:, :-1]) / 2))
    lengths = np.hypot(np.diff(lon) * squeeze, np.diff(lat))
    left, bottom, right, top = lengths.reshape(len(tiles), 4, -1).sum(axis=2).T
    pixel: Floats = np.minimum((bottom + top) / 2 / tiles.width, (left + right) / 2 / tiles.height)
    return pixel


def _snapped(lon: Floats, tiles: Tiles) -> Floats:
    """Longitudes with those next to an antimeridian moved onto it, shape (n, points)."""
    lon = np.atleast_2d(lon)
    slack = _SNAP_PX * np.ptp(lon, axis=1) / np.maximum(tiles.width, tiles.height)
    nearest = 360.0 * np.round((lon - 180.0) / 360.0) + 180.0
    return np.where(np.abs(lon - nearest) < slack[:, None], nearest, lon)


def _polygons(x: Floats, y: Floats) -> Footprints:
    """Polygons from closed rings, shape (n, points)."""
    count, points = x.shape
    rings = np.stack([x, y], axis=-1)
    across, along = x - x[:, :1], y - y[:, :1]
    clockwise = (across[:, :-1] * along[:, 1:] - across[:, 1:] * along[:, :-1]).sum(axis=1) < 0.0
    rings[clockwise] = rings[clockwise, ::-1]
    offsets = (np.arange(count + 1) * points, np.arange(count + 1))
    # a third of the time that shapely.polygons and orient_polygons take
    geometry = shapely.from_ragged_array(shapely.GeometryType.POLYGON, rings.reshape(-1, 2), offsets)
    bounds = np.stack([x.min(axis=1), y.min(axis=1), x.max(axis=1), y.max(axis=1)], axis=1)
    return Footprints(geometry, bounds)


def _on_the_map(lon: Floats, lat: Floats) -> Footprints:
    """Footprints from closed continuous rings that go round no pole, shape (n, points)."""
    lon = lon - 360.0 * np.floor((lon.min(axis=1, keepdims=True) + 180.0) / 360.0)
    footprints = _polygons(lon, lat)
    for i in np.flatnonzero(footprints.bounds[:, 2] > 180.0):
        footprints.geometry[i] = _split(footprints.geometry[i])
        footprints.bounds[i] = footprints.geometry[i].bounds
    return footprints


def _over_the_pole(lon: Floats, lat: Floats, pole: float) -> BaseGeometry:
    """Footprint from a continuous ring once round a pole: cut open at the antimeridian, closed along the pole."""
    if lon[-1] < lon[0]:
        lon, lat = lon[::-1], lat[::-1]
    cut = 360.0 * np.ceil((lon[0] - 180.0) / 360.0) + 180.0
    before = int(np.flatnonzero((lon[:-1] <= cut) & (lon[1:] > cut))[0])
    after = before + 1
    share = (cut - lon[before]) / (lon[after] - lon[before])
    crossing = lat[before] + share * (lat[after] - lat[before])
    opened = np.concatenate([[cut], lon[after:-1], lon[:after] + 360.0, [cut + 360.0, cut + 360.0, cut]])
    heights = np.concatenate([[crossing], lat[after:-1], lat[:after], [crossing, pole, pole]])
    return _split(shapely.Polygon(np.stack([opened - cut - 180.0, heights], axis=1)))


def _split(polygon: BaseGeometry) -> BaseGeometry:
    """A polygon brought into -180 to 180, cut where it crosses."""
    if not polygon.is_valid:
        polygon = shapely.make_valid(polygon)
    low, _, high, _ = polygon.bounds
    parts: list[Any] = []
    for turn in range(int(np.floor((low + 180.0) / 360.0)), int(np.ceil((high - 180.0) / 360.0)) + 1):
        world = shapely.box(360.0 * turn - 180.0, -90.0, 360.0 * turn + 180.0, 90.0)
        pieces = shapely.get_parts(polygon.intersection(world))
        parts += [translate(piece, xoff=-360.0 * turn) for piece in pieces if piece.area > 0.0]
    return shapely.orient_polygons(shapely.union_all(parts))
