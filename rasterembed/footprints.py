"""Where tiles are on Earth: exact windows as polygons in OGC:CRS84, split at the antimeridian.

A window's border is walked in pixel space, carried through the affine or the ground control points to the native CRS,
and from there to longitude and latitude. Edges get as many points as it takes for the straight lines between them to
stay within a tenth of a pixel of the true, curved edge.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyproj
import shapely
from numpy.typing import NDArray
from rasterio.control import GroundControlPoint as RasterioGCP
from rasterio.transform import GCPTransformer
from shapely import Polygon
from shapely.affinity import translate
from shapely.geometry.base import BaseGeometry

from rasterembed.errors import DataError
from rasterembed.grid import Tiles
from rasterembed.profile import RasterProfile

CRS84 = "OGC:CRS84"

_TOLERANCE_PX = 0.1
"""How far a footprint's edge may be from the true edge."""

_MAX_STEP_DEGREES = 60.0
"""Longitude between two points of a border stays below this, so that a jump of 360 is told from an edge."""

_MAX_SEGMENTS = 64
"""Points an edge; reached only by tiles that span a good part of the globe."""

_SNAP_DEGREES = 1e-9
"""A tenth of a millimetre: an edge this near the antimeridian is on it."""


@dataclass(frozen=True)
class Footprints:
    """Places of n tiles."""

    geometry: NDArray[np.object_]
    """Shapely Polygon or MultiPolygon of each tile, counter-clockwise, shape (n,)."""
    bounds: NDArray[np.float64]
    """xmin, ymin, xmax, ymax of each, shape (n, 4). A tile across the antimeridian reaches from -180 to 180."""


class Footprinter:
    """Makes footprints for the tiles of one raster.

    Args:
        profile: the raster; without a place on Earth, footprints are in its pixels (x right, y down).
        size: side of a tile, px; sets how finely edges are divided.
    """

    def __init__(self, profile: RasterProfile, size: int) -> None:
        self._profile = profile
        self._size = size
        self._crs = pyproj.CRS.from_wkt(profile.crs_wkt) if profile.on_earth and profile.crs_wkt else None
        self._to_lonlat = pyproj.Transformer.from_crs(self._crs, CRS84, always_xy=True) if self._crs else None

    @cached_property
    def _gcps(self) -> GCPTransformer | None:
        """GDAL's own polynomial through the ground control points, of the order GDAL chooses."""
        if not self._profile.gcps:
            return None
        xs = np.array([p.x for p in self._profile.gcps])
        if self._crs is not None and self._crs.is_geographic and np.ptp(xs) > 180.0:
            xs = np.where(xs < 0.0, xs + 360.0, xs)  # points on both sides of the antimeridian
        points = [RasterioGCP(p.row, p.col, x, p.y, p.z) for p, x in zip(self._profile.gcps, xs.tolist(), strict=True)]
        return GCPTransformer(points)

    def native(
        self, cols: NDArray[np.float64], rows: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Native x and y of pixel positions (corners are whole numbers), in the inputs' shape."""
        if self._gcps is not None:
            x, y = self._gcps.xy(rows.ravel(), cols.ravel(), offset="ul")
            return np.reshape(x, cols.shape), np.reshape(y, cols.shape)
        a, b, c, d, e, f = self._profile.transform
        return a * cols + b * rows + c, d * cols + e * rows + f

    def lonlat(
        self, cols: NDArray[np.float64], rows: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Longitude and latitude (degrees, OGC:CRS84) of pixel positions, in the inputs' shape.

        Raises:
            DataError: where the native CRS has no inverse.
        """
        assert self._crs is not None
        assert self._to_lonlat is not None
        x, y = self.native(cols, rows)
        lon, lat = self._to_lonlat.transform(x, y)
        lon, lat = np.asarray(lon), np.asarray(lat)
        if self._crs.is_geographic:
            # PROJ wraps longitude to +-180; a raster from 0 to 360 goes on beyond
            scale = float(np.degrees(self._crs.axis_info[0].unit_conversion_factor))
            lon = lon + 360.0 * np.round((x * scale - lon) / 360.0)
            lat = np.clip(lat, -90.0, 90.0)
        if not (np.isfinite(lon).all() and np.isfinite(lat).all()):
            bad = np.flatnonzero(~(np.isfinite(lon) & np.isfinite(lat)).ravel())[0]
            raise DataError(
                f"pixel (column {cols.ravel()[bad]:g}, row {rows.ravel()[bad]:g}) has no longitude and "
                f"latitude in CRS {self._crs.name!r}: crop the raster to the CRS's area of use"
            )
        return lon, lat

    def __call__(self, tiles: Tiles) -> Footprints:
        """Footprints of tiles.

        Raises:
            DataError: where a window lies outside what the native CRS can express.
        """
        if self._to_lonlat is None:
            cols, rows = _border(tiles, 1)
            return _plain(cols, rows)
        cols, rows = _border(tiles, self._segments)
        lon, lat = self.lonlat(cols, rows)
        lon = _unwrapped(lon)
        lon = np.where(np.abs(np.abs(lon) - 180.0) < _SNAP_DEGREES, np.copysign(180.0, lon), lon)
        closing = lon[:, -1] - lon[:, 0]
        beyond = (lon < -180.0).any(axis=1) | (lon > 180.0).any(axis=1)
        odd = beyond | (np.abs(closing) > 180.0)
        if not odd.any():
            return _plain(lon[:, :-1], lat[:, :-1])
        geometry = np.empty(len(tiles), dtype=object)
        bounds = np.empty((len(tiles), 4))
        if not odd.all():
            plain = _plain(lon[~odd, :-1], lat[~odd, :-1])
            geometry[~odd], bounds[~odd] = plain.geometry, plain.bounds
        for i in np.flatnonzero(odd):
            geometry[i] = _split(lon[i], lat[i])
            bounds[i] = geometry[i].bounds
        return Footprints(geometry, bounds)

    @cached_property
    def _segments(self) -> int:
        """Segments an edge needs, found on windows spread over the whole raster."""
        width, height = self._profile.width, self._profile.height
        lefts = np.unique(np.linspace(0, max(width - self._size, 0), 9).astype(np.int32))
        tops = np.unique(np.linspace(0, max(height - self._size, 0), 9).astype(np.int32))
        top, left = (grid.ravel() for grid in np.meshgrid(tops, lefts, indexing="ij"))
        sample = Tiles(
            row=np.zeros_like(top),
            col=np.zeros_like(top),
            col_off=left,
            row_off=top,
            width=np.minimum(self._size, width - left).astype(np.int32),
            height=np.minimum(self._size, height - top).astype(np.int32),
        )
        segments = 1
        while segments < _MAX_SEGMENTS and not self._fine_enough(sample, segments):
            segments *= 2
        return segments

    def _fine_enough(self, sample: Tiles, segments: int) -> bool:
        """Whether the middle of each chord is within the tolerance of the edge it stands for."""
        cols, rows = _border(sample, 2 * segments)
        lon, lat = self.lonlat(cols, rows)
        lon = _unwrapped(lon)
        if np.abs(np.diff(lon[:, ::2], axis=1)).max() > _MAX_STEP_DEGREES:
            return False
        chord_lon = (lon[:, :-2:2] + lon[:, 2::2]) / 2
        chord_lat = (lat[:, :-2:2] + lat[:, 2::2]) / 2
        stretch = np.cos(np.radians(lat[:, 1::2]))
        bow = np.hypot((lon[:, 1::2] - chord_lon) * stretch, lat[:, 1::2] - chord_lat)
        edge = np.hypot(np.diff(lon) * np.cos(np.radians(lat[:, 1:])), np.diff(lat)).sum(axis=1)
        pixel = edge / (2.0 * (sample.width + sample.height))
        return bool((bow.max(axis=1) <= _TOLERANCE_PX * pixel).all())


def _border(tiles: Tiles, segments: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Columns and rows of points around each window, closed, shape (n, 4 * segments + 1)."""
    steps = np.arange(segments) / segments
    ones, zeros = np.ones(segments), np.zeros(segments)
    # down the left edge first: counter-clockwise on a north-up map
    u = np.concatenate([zeros, steps, ones, 1 - steps, [0.0]])
    v = np.concatenate([steps, ones, 1 - steps, zeros, [0.0]])
    cols = tiles.col_off[:, None] + u * tiles.width[:, None]
    rows = tiles.row_off[:, None] + v * tiles.height[:, None]
    return cols, rows


def _unwrapped(lon: NDArray[np.float64]) -> NDArray[np.float64]:
    """Longitudes made continuous along each border."""
    jumps = np.diff(lon, axis=1)
    turns = -np.round(jumps / 360.0) * (np.abs(jumps) > 180.0)
    if not turns.any():
        return lon
    unwrapped = lon.copy()
    unwrapped[:, 1:] += 360.0 * np.cumsum(turns, axis=1)
    return unwrapped


def _plain(x: NDArray[np.float64], y: NDArray[np.float64]) -> Footprints:
    """Polygons from open rings, shape (n, points)."""
    rings = np.stack([x, y], axis=-1)
    geometry = shapely.polygons(rings)
    geometry = shapely.orient_polygons(geometry)
    bounds = np.stack([x.min(axis=1), y.min(axis=1), x.max(axis=1), y.max(axis=1)], axis=1)
    return Footprints(np.asarray(geometry, dtype=object), bounds)


def _split(lon: NDArray[np.float64], lat: NDArray[np.float64]) -> BaseGeometry:
    """One continuous border brought into -180 to 180, cut where it crosses."""
    closing = lon[-1] - lon[0]
    if abs(closing) > 180.0:
        # the border goes round a pole: over the pole it is closed on the map
        pole = np.copysign(90.0, lat.mean())
        lon = np.concatenate([lon, [lon[-1], lon[0]]])
        lat = np.concatenate([lat, [pole, pole]])
    ring: Any = shapely.make_valid(Polygon(np.stack([lon, lat], axis=1)))
    low, _, high, _ = ring.bounds
    parts = []
    for turn in range(int(np.floor((low + 180.0) / 360.0)), int(np.floor((high + 180.0) / 360.0)) + 1):
        world = shapely.box(360.0 * turn - 180.0, -90.0, 360.0 * turn + 180.0, 90.0)
        part = ring.intersection(world)
        if not part.is_empty and part.area > 0:
            parts.append(translate(part, xoff=-360.0 * turn))
    merged = shapely.union_all(parts)
    return shapely.orient_polygons(merged)
