"""Footprints: the outline of each tile's window as a polygon in longitude and latitude (OGC:CRS84).

How a footprint is made:

1. Walk once around the border of the window in pixel space, and set points on it.
2. Convert each point to the native CRS, with the affine or the ground control points, and then to longitude and
   latitude.
3. Make the longitudes continuous, so that they do not jump from 180 to -180 along the border.
4. Measure how far the middle of each edge between two points is from the true, curved border. If a middle is too far,
   set more points and measure again, until all edges are within a tenth of a pixel of the true border.
5. Cut the polygon where it crosses the antimeridian. Every part then lies within -180 to 180.

Most tiles are computed in large groups, with equally spaced points: 1, 2, 4 and so on up to `_MAX_SEGMENTS` segments on
each side. Tiles whose border bends sharply, and tiles at a pole, are computed one by one. Their points are added only
where the border bends.

The edge of the map may run through a raster, such as a full-disk image from a satellite, or a raster in a sinusoidal
projection at the 180th meridian. The footprint of a tile on this edge is the part of the tile that is on Earth, see
`rasterembed.raster.outlines`. A tile off Earth has no footprint.

A footprint depends on its raster and window only, never on the tiles that are computed together with it. In a grid that
is anchored to the CRS, it depends on the CRS, the pixel size and the tile id only, and includes the padding.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.geometry.base import BaseGeometry

from rasterembed.errors import DataError
from rasterembed.raster.anchor import on_lattice
from rasterembed.raster.georeference import POLE_GAP_PX, Floats, georeference_of
from rasterembed.raster.grid import Tiles
from rasterembed.raster.outlines import middles, part_on_earth, window_points
from rasterembed.raster.profile import RasterProfile
from rasterembed.raster.rings import (
    deviations,
    make_continuous,
    polygon_of_left_side,
    polygon_over_pole,
    polygons,
    polygons_on_earth,
    split_at_antimeridian,
)
from rasterembed.raster.sharding import Sharding

_TOLERANCE_PX = 0.05
"""Largest distance of an edge's middle from the true border, in px. It is half of the promised tenth of a pixel,
because only the middles are measured."""

_MAX_SEGMENTS = 64
"""Largest number of equal segments on each side of a window. If a border needs more points, they are added only where
the border bends."""

_MAX_HALVINGS = 20
"""Largest number of times that an edge is halved. Only a border across a tear in the map reaches this number, because
no number of points is enough at a tear."""

_MAX_POINTS = 2**14
"""Largest number of points of one border. Even a border across a tear needs only a few hundred points, because only the
edges at the tear are halved. A border needs more points only if the inverse projection gives unrelated places for
neighbouring points: outside its domain, or so far away that coordinates have no digits left for a pixel."""

_LEAST_POINTS = 3
"""Smallest number of points of a ring that has an area."""

_EDGE_SEGMENTS = 16
"""Number of segments on each side of a window. The ends of these segments are checked for being on Earth."""

_SNAP_PX = 0.01
"""A point nearer than this to the antimeridian, in px, is moved onto it. Otherwise rounded pixel sizes would leave very
narrow parts of a footprint on the other side."""

_POINTS_AT_ONCE = 2**18
"""Largest number of border points that are computed together. It limits memory, and fits a processor's cache."""


@dataclass(frozen=True)
class Footprints:
    """Footprints of n tiles."""

    geometry: NDArray[np.object_]
    """Shapely Polygon or MultiPolygon of each tile, counter-clockwise, shape (n,). None for a tile off Earth."""
    bounds: Floats
    """xmin, ymin, xmax, ymax of each tile, shape (n, 4). A tile across the antimeridian reaches from -180 to 180. NaN
    for a tile off Earth."""


class Footprinter:
    """Computes the footprints of one raster's tiles.

    Args:
        profile: the raster's header. If the raster has no place on Earth, footprints are in its pixels (x right, y
            down).
        extent: left, top, right and bottom of all windows together, px. By default those of the raster.

    Example:
        >>> import rasterio
        >>> from rasterio.transform import from_origin
        >>> from rasterembed.raster.grid import Grid, tiles_in
        >>> from rasterembed.raster.profile import inspect_raster
        >>> from rasterembed.raster.source import register
        >>> from rasterembed.store.object_store import ObjectStore
        >>> header = {"width": 448, "height": 224, "count": 1, "dtype": "uint8", "crs": "EPSG:4326"}
        >>> rasterio.open("pacific.tif", "w", transform=from_origin(100, 56, 0.5, 0.25), **header).close()
        >>> store = ObjectStore(root="embeddings")
        >>> profile = inspect_raster(store, register(store, "pacific.tif").uri)
        >>> tiles = tiles_in(Grid(size=112), profile.height, profile.width, rows=(0, 1), cols=(0, 4))
        >>> footprints = Footprinter(profile)(tiles)
        >>> footprints.bounds[0].tolist()
        [100.0, 28.0, 156.0, 56.0]
        >>> footprints.geometry[1].geom_type  # this tile crosses the antimeridian
        'MultiPolygon'
    """

    def __init__(self, profile: RasterProfile, extent: tuple[int, int, int, int] | None = None) -> None:
        self._georeference = georeference_of(profile, extent)

    @classmethod
    def of_grid(cls, profile: RasterProfile, sharding: Sharding) -> Footprinter:
        """Return the footprinter for the tiles of a grid.

        Args:
            profile: the raster's header.
            sharding: the grid on this raster.
        """
        if sharding.anchor is None:
            return cls(profile)
        first, last = sharding.first_tile, sharding.last_tile
        extent = (
            int(first.col_off[0]),
            int(first.row_off[0]),
            int(last.col_off[0] + last.width[0]),
            int(last.row_off[0] + last.height[0]),
        )
        return cls(on_lattice(profile, sharding.grid, sharding.anchor), extent)

    def __call__(self, tiles: Tiles) -> Footprints:
        """Return the footprints of tiles.

        Raises:
            DataError: if a point of a window's border has no longitude and latitude, if the border needs more than
                `_MAX_POINTS` points, or if a window covers no area.
        """
        if not self._georeference.on_earth:
            return Footprints(*polygons(*_border(tiles, 1)))
        geometry = np.full(len(tiles), None, dtype=object)
        bounds = np.full((len(tiles), 4), np.nan)
        off, cut = self._at_edge_of_map(tiles)
        at_pole = self._at_pole(tiles) & ~cut & ~off
        remaining = np.flatnonzero(~at_pole & ~cut & ~off)
        segments = 1
        while len(remaining) and segments <= _MAX_SEGMENTS:
            too_coarse = []
            for part in _in_parts(remaining, 8 * segments):
                lon, lat, fine = self._borders(tiles.take(part), segments)
                geometry[part[fine]], bounds[part[fine]] = polygons_on_earth(lon[fine], lat[fine])
                too_coarse.append(part[~fine])
            remaining = np.concatenate(too_coarse)
            segments *= 2
        one_by_one = np.concatenate([np.flatnonzero(at_pole | cut), remaining])
        for i in one_by_one:
            tile = tiles.take(slice(i, i + 1))
            geometry[i] = self._cut(tile) if cut[i] or not self._border_exists(tile) else self._refined(tile)
        bounds[one_by_one] = shapely.bounds(geometry[one_by_one])
        _check_areas(tiles, bounds)
        return Footprints(geometry, bounds)

    @property
    def complete(self) -> bool:
        """Whether every tile of the raster has a footprint. If not, the edge of the map runs through the tiles."""
        return not self._georeference.on_earth or self._georeference.wholly_on_earth

    def off_earth(self, tiles: Tiles) -> NDArray[np.bool_]:
        """Return which tiles are off Earth. They show no part of the Earth and have no footprint.

        Returns:
            Booleans, shape (n,): True for a tile off Earth. If the raster itself has no place on Earth, all are False.
        """
        if self.complete:
            return np.zeros(len(tiles), dtype=bool)
        return self._at_edge_of_map(tiles)[0]

    def _at_edge_of_map(self, tiles: Tiles) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Return which tiles are off Earth, and which are partly on Earth: two arrays of booleans, shape (n,)."""
        off, cut = np.zeros(len(tiles), dtype=bool), np.zeros(len(tiles), dtype=bool)
        if self._georeference.wholly_on_earth:
            return off, cut
        exist = self._georeference.exist
        for part in _in_parts(np.arange(len(tiles)), 4 * _EDGE_SEGMENTS):
            cut[part] = ~exist(*_border(tiles.take(part), _EDGE_SEGMENTS)).all(axis=1)
        for i in np.flatnonzero(cut):
            off[i] = not window_points(tiles.take(slice(i, i + 1)), exist).has_ground
        return off, cut & ~off

    def _border_exists(self, tile: Tiles) -> bool:
        """Return whether the whole border of a single tile is on Earth."""
        if self._georeference.wholly_on_earth:
            return True
        return bool(self._georeference.exist(*_border(tile, 2 * _MAX_SEGMENTS)).all())

    def _lonlat(self, cols: Floats, rows: Floats) -> tuple[Floats, Floats]:
        """Return longitudes and latitudes. Both are NaN for a position off Earth."""
        if self._georeference.wholly_on_earth:
            return self._georeference.lonlat(cols, rows)
        exist = self._georeference.exist(cols, rows)
        lon, lat = np.full(cols.shape, np.nan), np.full(cols.shape, np.nan)
        lon[exist], lat[exist] = self._georeference.lonlat(cols[exist], rows[exist])
        return lon, lat

    def _cut(self, tile: Tiles) -> BaseGeometry:
        """Return the footprint of a single tile that is partly on Earth."""
        exist = self._georeference.exist
        margin = 2.0 * self._georeference.domain.tolerance_px
        part = part_on_earth(window_points(tile, exist), exist, margin)
        for pole in self._georeference.poles:
            point = shapely.Point(pole.col, pole.row)
            if part.boundary.distance(point) < POLE_GAP_PX / 2:
                part = part.difference(point.buffer(POLE_GAP_PX))
        mirrored = self._mirrored(part.representative_point())
        pieces = []
        # Divide long edges. A long straight line may cross the true border just at its middle, and would then seem to
        # follow the border.
        part = shapely.segmentize(part, max(tile.width[0], tile.height[0]) / 8)
        for polygon in shapely.get_parts(shapely.orient_polygons(part)):
            shell, *holes = (
                self._drawn(np.asarray(ring.coords), tile, mirrored=mirrored)
                for ring in (polygon.exterior, *polygon.interiors)
            )
            # The area at the left of a hole's ring is the whole Earth except the hole.
            for hole in holes:
                shell = shell.intersection(hole)
            pieces.append(shell)
        return shapely.orient_polygons(shapely.union_all(pieces))

    def _drawn(self, ring: Floats, tile: Tiles, *, mirrored: bool) -> BaseGeometry:
        """Return the area at the left of a ring, in longitude and latitude. Points are added where the ring bends.

        Args:
            ring: columns and rows of a closed ring on Earth, px, shape (points, 2).
            tile: exactly one tile, which holds the ring.
            mirrored: whether the left side of the ring becomes the right side in longitude and latitude.
        """
        exist, domain = self._georeference.exist, self._georeference.domain
        margin = 2.0 * domain.tolerance_px
        # Remove points off Earth. Near the edge of some maps, PROJ's inverse projection fails for single points.
        ring = ring[exist(*ring.T)]
        if len(ring) < _LEAST_POINTS:
            return shapely.Polygon()
        if (ring[0] != ring[-1]).any():
            ring = np.concatenate([ring, ring[:1]])
        for _ in range(_MAX_HALVINGS):
            lon, lat = domain.lonlat(*self._georeference.native(*ring.T))
            lon = make_continuous(lon)
            between, distance = middles(ring, tile, exist, margin)
            step = np.diff(ring, axis=0)
            straight = domain.offsets_px(
                (lon[1:] + lon[:-1]) / 2, (lat[1:] + lat[:-1]) / 2, *self._georeference.native(*between.T)
            )
            with np.errstate(invalid="ignore"):
                aside = np.abs(straight[0] * step[:, 1] - straight[1] * step[:, 0]) / np.hypot(step[:, 0], step[:, 1])
            bends = ~np.isnan(distance) & ~((aside <= _TOLERANCE_PX) & (np.abs(distance) <= _TOLERANCE_PX))
            if not bends.any():
                break
            ring = np.insert(ring, np.flatnonzero(bends) + 1, between[bends], axis=0)
            if len(ring) > _MAX_POINTS:
                raise _endless(tile)
        lon, lat = self._georeference.lonlat(*ring.T)
        for pole in self._georeference.poles:
            lat = np.where(
                np.hypot(ring[:, 0] - pole.col, ring[:, 1] - pole.row) < 1.5 * POLE_GAP_PX, pole.latitude, lat
            )
        lon = _snapped(make_continuous(lon), tile)[0]
        if mirrored:
            lon, lat = lon[::-1], lat[::-1]
        return polygon_of_left_side(lon, lat)

    def _mirrored(self, point: shapely.Point) -> bool:
        """Return whether a left turn in pixel space, with y upwards, is a right turn in longitude and latitude."""
        cols = point.x + np.array([0.01, 0.0, 0.0])
        rows = point.y + np.array([0.0, 0.0, 0.01])
        lon, lat = self._georeference.lonlat(cols, rows)
        (to_right_x, down_x), (to_right_y, down_y) = -np.diff(make_continuous(lon)) * [1, -1], -np.diff(lat) * [1, -1]
        return bool(to_right_x * down_y < to_right_y * down_x)

    def _borders(self, tiles: Tiles, segments: int) -> tuple[Floats, Floats, NDArray[np.bool_]]:
        """Return the borders of tiles with equally spaced points, and whether each border is accurate.

        Args:
            tiles: n tiles.
            segments: number of segments on each side of a window.

        Returns:
            Continuous longitudes and latitudes of closed rings, both of shape (n, 4 * segments + 1). Booleans, shape
            (n,): True if the middle of every segment is within `_TOLERANCE_PX` of the true border, and the border does
            not go around a pole.
        """
        # Compute twice as many points. Every second point is the middle of a segment, where the error is measured.
        lon, lat = self._lonlat(*_border(tiles, 2 * segments))
        lon = make_continuous(lon)
        pixel = _pixel_degrees(lon, lat, tiles)
        fine = (deviations(lon, lat) <= _TOLERANCE_PX * pixel[:, None]).all(axis=1)
        around_pole = np.abs(lon[:, -1] - lon[:, 0]) >= 180.0
        return _snapped(lon, tiles)[:, ::2], lat[:, ::2], fine & ~around_pole

    def _at_pole(self, tiles: Tiles) -> NDArray[np.bool_]:
        """Return which tiles hold a pole or come within a pixel of one."""
        at_pole = np.zeros(len(tiles), dtype=bool)
        for pole in self._georeference.poles:
            across = np.maximum(tiles.col_off - pole.col, pole.col - tiles.col_off - tiles.width)
            along = np.maximum(tiles.row_off - pole.row, pole.row - tiles.row_off - tiles.height)
            at_pole |= np.maximum(across, along) <= 1.0
        return at_pole

    def _refined(self, tile: Tiles) -> BaseGeometry:
        """Return the footprint of a single tile, with points where its border bends. The tile may lie at a pole."""
        left, top, width, height = (int(v[0]) for v in (tile.col_off, tile.row_off, tile.width, tile.height))
        window = shapely.box(left, top, left + width, top + height)
        border = window.exterior
        poles = [(shapely.Point(pole.col, pole.row), pole.latitude) for pole in self._georeference.poles]
        inside = [latitude for point, latitude in poles if window.contains(point)]
        on_border = [
            (border.interpolate(border.project(point)), latitude)
            for point, latitude in poles
            if border.distance(point) < POLE_GAP_PX / 2
        ]
        # Lead the border around a pole that lies on it.
        for point, _ in on_border:
            window = window.difference(point.buffer(POLE_GAP_PX))
        cols, rows = shapely.get_coordinates(window.segmentize(max(width, height) / 8).exterior).T
        lon, lat = self._georeference.lonlat(*_border(tile, 16))
        tolerance = _TOLERANCE_PX * _pixel_degrees(make_continuous(lon), lat, tile)
        refined = self._halve_where_it_bends(cols, rows, tolerance)
        if refined is None:
            raise _endless(tile)
        cols, rows, lon, lat = refined
        # The points around a pole stand for the pole itself, so they get its latitude.
        for point, latitude in on_border:
            lat = np.where(np.hypot(cols - point.x, rows - point.y) < 1.5 * POLE_GAP_PX, latitude, lat)
        lon = _snapped(lon, tile)[0]
        if abs(lon[-1] - lon[0]) > 180.0:
            # A tear in the map can send the border around a pole that `Georeference.poles` does not list.
            return polygon_over_pole(lon, lat, inside[0] if inside else float(np.copysign(90.0, lat.mean())))
        return split_at_antimeridian(shapely.Polygon(np.stack([lon, lat], axis=1)))

    def _halve_where_it_bends(
        self, cols: Floats, rows: Floats, tolerance: Floats
    ) -> tuple[Floats, Floats, Floats, Floats] | None:
        """Halve the edges of a border until the middle of each edge is within `tolerance` of the true border.

        Args:
            cols: columns of points along the border, px, shape (points,).
            rows: rows of the points, px, of the same shape.
            tolerance: largest distance in degrees of latitude, shape (1,).

        Returns:
            Columns, rows, continuous longitudes and latitudes of the points, all of the same shape. None if more than
            `_MAX_POINTS` points would be needed.
        """
        for _ in range(_MAX_HALVINGS):
            cols, rows = _with_middles(cols), _with_middles(rows)
            lon, lat = self._georeference.lonlat(cols, rows)
            lon = make_continuous(lon)
            bends = deviations(lon, lat) > tolerance
            keep = np.ones(len(cols), dtype=bool)
            keep[1::2] = bends
            cols, rows, lon, lat = cols[keep], rows[keep], lon[keep], lat[keep]
            if not bends.any():
                break
            if len(cols) > _MAX_POINTS:
                return None
        return cols, rows, lon, lat


def _endless(tile: Tiles) -> DataError:
    return DataError(
        f"the tile at column {tile.col_off[0]}, row {tile.row_off[0]} has no outline on Earth that {_MAX_POINTS} "
        "points could draw: the raster's transform is wrong, or the tile lies outside its CRS's area of use: crop the "
        "raster to that area, or warp it to another CRS"
    )


def _check_areas(tiles: Tiles, bounds: Floats) -> None:
    empty = np.flatnonzero((bounds[:, 0] >= bounds[:, 2]) | (bounds[:, 1] >= bounds[:, 3]))
    if len(empty):
        i = empty[0]
        raise DataError(
            f"the tile at column {tiles.col_off[i]}, row {tiles.row_off[i]} covers no area on Earth: "
            "the raster's CRS or transform is wrong"
        )


def _in_parts(indices: NDArray[np.intp], points: int) -> Iterator[NDArray[np.intp]]:
    """Cut `indices` into parts. A part needs at most `_POINTS_AT_ONCE` points, if each index needs `points` points."""
    length = max(1, _POINTS_AT_ONCE // points)
    for start in range(0, len(indices), length):
        yield indices[start : start + length]


def _border(tiles: Tiles, segments: int) -> tuple[Floats, Floats]:
    """Return columns and rows of equally spaced points around each window, as closed rings.

    The rings go down the left side first, which is counter-clockwise on a map with north up.

    Args:
        tiles: n tiles.
        segments: number of segments on each side.

    Returns:
        Two arrays of shape (n, 4 * segments + 1).
    """
    steps = np.arange(segments) / segments
    ones, zeros = np.ones(segments), np.zeros(segments)
    u = np.concatenate([zeros, steps, ones, 1 - steps, [0.0]])
    v = np.concatenate([steps, ones, 1 - steps, zeros, [0.0]])
    cols = tiles.col_off[:, None] + u * tiles.width[:, None]
    rows = tiles.row_off[:, None] + v * tiles.height[:, None]
    return cols, rows


def _with_middles(values: Floats) -> Floats:
    """Insert the mean of each two neighbours between n values. Return an array of shape (2 n - 1,)."""
    result = np.empty(2 * len(values) - 1)
    result[::2] = values
    result[1::2] = (values[:-1] + values[1:]) / 2
    return result


def _pixel_degrees(lon: Floats, lat: Floats, tiles: Tiles) -> Floats:
    """Return the length of a pixel's shorter side in degrees of latitude, shape (n,).

    Args:
        lon: continuous longitudes of borders with equally spaced points, shape (n, points).
        lat: latitudes of the same points, shape (n, points).
        tiles: the n tiles.
    """
    shortening = np.cos(np.radians((lat[:, 1:] + lat[:, :-1]) / 2))
    lengths = np.hypot(np.diff(lon) * shortening, np.diff(lat))
    left, bottom, right, top = lengths.reshape(len(tiles), 4, -1).sum(axis=2).T
    pixel: Floats = np.minimum((bottom + top) / 2 / tiles.width, (left + right) / 2 / tiles.height)
    return pixel


def _snapped(lon: Floats, tiles: Tiles) -> Floats:
    """Move longitudes within `_SNAP_PX` of the antimeridian onto it. Return an array of shape (n, points)."""
    lon = np.atleast_2d(lon)
    slack = _SNAP_PX * np.ptp(lon, axis=1) / np.maximum(tiles.width, tiles.height)
    nearest = 360.0 * np.round((lon - 180.0) / 360.0) + 180.0
    return np.where(np.abs(lon - nearest) < slack[:, None], nearest, lon)
