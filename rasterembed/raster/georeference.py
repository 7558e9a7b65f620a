"""Convert pixel positions of a raster to native coordinates, and to longitude and latitude."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING

import numpy as np
import pyproj
from numpy.typing import NDArray
from pyproj.enums import TransformDirection

from rasterembed.errors import DataError
from rasterembed.number_text import number_text
from rasterembed.raster.map_domain import MapDomain

if TYPE_CHECKING:
    from rasterio.transform import GCPTransformer

    from rasterembed.raster.profile import RasterProfile

CRS84 = "OGC:CRS84"
"""CRS of all longitudes and latitudes in the output: WGS 84, longitude before latitude, in degrees."""

Floats = NDArray[np.float64]

_BORDER_SAMPLES, _INNER_SAMPLES = 257, 33
"""Numbers of points that are checked to find out whether the whole raster is on Earth: along each side of the raster,
and along each side of a lattice inside the raster."""

POLE_GAP_PX = 0.002
"""A border that runs through a pole is led around it at this distance, in px, because a pole has no longitude."""


# PROJ needs milliseconds to read a CRS and to find a conversion. The scenes of an archive have few different CRSs.
# pyproj keeps a PROJ object for each thread, so several threads may share these objects.
@lru_cache(maxsize=64)
def crs_of(wkt: str) -> pyproj.CRS:
    """Return the CRS that a WKT text describes. The last ones are kept.

    Raises:
        CRSError: if PROJ does not understand the text.
    """
    return pyproj.CRS.from_wkt(wkt)


@lru_cache(maxsize=64)
def transformer_to_lonlat(wkt: str) -> pyproj.Transformer:
    """Return the conversion from a CRS, given as WKT, to `CRS84`. The last ones are kept.

    Raises:
        ProjError: if the CRS cannot be converted to longitude and latitude.
    """
    return pyproj.Transformer.from_crs(crs_of(wkt), CRS84, always_xy=True)


@lru_cache(maxsize=64)
def transformer_between(wkt: str, other: str) -> pyproj.Transformer:
    """Return the conversion from one CRS to another, both given as WKT. The last ones are kept.

    Raises:
        ProjError: if there is no such conversion.
    """
    return pyproj.Transformer.from_crs(crs_of(wkt), crs_of(other), always_xy=True)


@lru_cache(maxsize=64)
def _domain_of(wkt: str, linear: tuple[float, float, float, float]) -> MapDomain:
    """Return the domain of a CRS for pixels of one size. The last ones are kept."""
    return MapDomain(crs_of(wkt), linear)


@dataclass(frozen=True)
class Pole:
    """A pole of the Earth that is a single point on the raster's map."""

    col: float
    """Pixel position from the raster's left edge. It may lie outside the raster."""
    row: float
    """Pixel position from the raster's upper edge."""
    latitude: float
    """90 or -90 degrees."""


class Georeference:
    """Converts pixel positions of one raster to coordinates.

    Pixel positions are in px from the upper left corner of the raster. The corners of pixels are at whole numbers.

    Args:
        profile: the raster's header.
        extent: left, top, right and bottom of the positions that will be converted, px. By default those of the raster.
    """

    def __init__(self, profile: RasterProfile, extent: tuple[int, int, int, int] | None = None) -> None:
        self._profile = profile
        self._extent = extent or (0, 0, profile.width, profile.height)
        self._wkt = (profile.crs_wkt or None) if profile.on_earth else None
        self._crs = None if self._wkt is None else crs_of(self._wkt)
        self._to_lonlat = None if self._wkt is None else transformer_to_lonlat(self._wkt)

    @property
    def on_earth(self) -> bool:
        """Whether the pixels have a longitude and latitude."""
        return self._to_lonlat is not None

    def native(self, cols: Floats, rows: Floats) -> tuple[Floats, Floats]:
        """Return x and y in the raster's native CRS.

        Args:
            cols: pixel positions from the left edge, any shape.
            rows: pixel positions from the upper edge, of the same shape.
        """
        if self._gcps is not None:
            x, y = self._gcps.xy(rows.ravel(), cols.ravel(), offset="ul")
            return np.reshape(x, cols.shape), np.reshape(y, cols.shape)
        a, b, c, d, e, f = self._profile.transform
        return a * cols + b * rows + c, d * cols + e * rows + f

    def lonlat(self, cols: Floats, rows: Floats) -> tuple[Floats, Floats]:
        """Return longitude and latitude in OGC:CRS84, in degrees.

        If the coordinates of the native CRS are longitude and latitude, longitudes outside -180 to 180 are kept: a
        raster from 0 to 360 degrees gives longitudes from 0 to 360.

        Args:
            cols: pixel positions from the left edge, any shape.
            rows: pixel positions from the upper edge, of the same shape.

        Raises:
            DataError: if a position has no longitude and latitude in the native CRS.
        """
        assert self._crs is not None
        assert self._to_lonlat is not None
        x, y = self.native(cols, rows)
        lon, lat = map(np.asarray, self._to_lonlat.transform(x, y))
        if not (np.isfinite(lon).all() and np.isfinite(lat).all()):
            bad = np.flatnonzero(~(np.isfinite(lon) & np.isfinite(lat)).ravel())[0]
            col, row = number_text(cols.ravel()[bad]), number_text(rows.ravel()[bad])
            raise DataError(
                f"pixel (column {col}, row {row}) has no longitude and latitude in CRS {self._crs.name!r}: crop "
                "the raster to the CRS's area of use, or warp it to another CRS"
            )
        if self._native_degrees:
            lon = lon + 360.0 * np.round((x * self._native_degrees - lon) / 360.0)
            # If the centres of the first and last pixels are at the poles, the raster extends half a pixel beyond each
            # pole. Clip these latitudes.
            lat = np.clip(lat, -90.0, 90.0)
        return lon, lat

    def pixels(self, lon: Floats, lat: Floats) -> tuple[Floats, Floats]:
        """Return the pixel positions of places on Earth. This is the inverse of `lonlat`.

        If the raster's map shows a place more than once, as a map of more than 360 degrees does, the position is the
        one nearest to the middle of the raster.

        Args:
            lon: longitudes in OGC:CRS84, in degrees, any shape.
            lat: latitudes, of the same shape.

        Returns:
            Columns and rows, px, of the same shape. A position may lie outside the raster. It is NaN or infinite if the
            place is not on the raster's map.
        """
        assert self._to_lonlat is not None
        native = self._to_lonlat.transform(lon, lat, direction=TransformDirection.INVERSE)
        x, y = (np.asarray(axis, dtype=np.float64) for axis in native)
        turn = self.domain.turn
        if turn is not None:
            middle = self.native(np.array([self._profile.width / 2]), np.array([self._profile.height / 2]))[0]
            with np.errstate(invalid="ignore"):
                x = x - turn * np.round((x - middle) / turn)
        with np.errstate(invalid="ignore"):
            if self._gcps is not None:
                return self._pixels_by_points(x, y)
            a, b, c, d, e, f = tuple(~self._profile.affine)[:6]
            return a * x + b * y + c, d * x + e * y + f

    def _pixels_by_points(self, x: Floats, y: Floats) -> tuple[Floats, Floats]:
        """Return the pixel positions of native coordinates, if ground control points georeference the raster.

        GDAL fits one polynomial from pixels to coordinates, and another one back. The second polynomial is not the
        inverse of the first. Its error is measured with the first polynomial, and subtracted.
        """
        cols, rows = self._by_inverse_polynomial(x, y)
        again = self._by_inverse_polynomial(*self.native(cols, rows))
        return 2.0 * cols - again[0], 2.0 * rows - again[1]

    def _by_inverse_polynomial(self, x: Floats, y: Floats) -> tuple[Floats, Floats]:
        assert self._gcps is not None
        known = np.isfinite(x) & np.isfinite(y)
        cols, rows = np.full(x.shape, np.nan), np.full(x.shape, np.nan)
        if known.any():
            rows[known], cols[known] = self._gcps.rowcol(x[known], y[known], op=np.positive)
        return cols, rows

    @cached_property
    def domain(self) -> MapDomain:
        """The part of the native CRS's plane that shows the Earth."""
        assert self._wkt is not None
        a, b, _, d, e, _ = self._profile.transform
        if self._gcps is not None:
            width, height = self._profile.width, self._profile.height
            x, y = self.native(np.array([0.0, width, 0.0]), np.array([0.0, 0.0, height]))
            a, b, d, e = (x[1] - x[0]) / width, (x[2] - x[0]) / height, (y[1] - y[0]) / width, (y[2] - y[0]) / height
        return _domain_of(self._wkt, (float(a), float(b), float(d), float(e)))

    def exist(self, cols: Floats, rows: Floats) -> NDArray[np.bool_]:
        """Return which pixel positions are on Earth. Some are not if the edge of the map runs through the raster.

        Args:
            cols: pixel positions from the left edge, any shape.
            rows: pixel positions from the upper edge, of the same shape.

        Returns:
            Booleans of the same shape: True where the position is on Earth.
        """
        return self.domain.contains(*self.native(cols, rows))

    @property
    def has_ground(self) -> bool:
        """Whether any point of a lattice over the raster is on Earth. If none is, a finer lattice is checked."""
        return any(
            self.exist(
                *np.meshgrid(self._profile.width * np.linspace(0, 1, n), self._profile.height * np.linspace(0, 1, n))
            ).any()
            for n in (_INNER_SAMPLES, _BORDER_SAMPLES)
        )

    @cached_property
    def wholly_on_earth(self) -> bool:
        """Whether the whole extent is on Earth. Points along its border and a lattice of points inside are checked."""
        left, top, right, bottom = self._extent
        width, height = right - left, bottom - top
        side, inner = np.linspace(0, 1, _BORDER_SAMPLES), np.linspace(0, 1, _INNER_SAMPLES)
        u, v = (axis.ravel() for axis in np.meshgrid(inner, inner))
        zeros, ones = np.zeros(len(side)), np.ones(len(side))
        cols = left + width * np.concatenate([u, side, side, zeros, ones])
        rows = top + height * np.concatenate([v, zeros, ones, side, side])
        return bool(self.exist(cols, rows).all())

    @cached_property
    def poles(self) -> tuple[Pole, ...]:
        """The poles that are single points on the raster's map.

        On some maps, such as a map of longitude and latitude, a pole is a line. Every point of the line has its own
        longitude, so a pole that is a line needs no special treatment. A pole that is not on the map needs none either.
        """
        if self._to_lonlat is None or self._native_degrees or self._gcps is not None:
            return ()
        poles = []
        a, b, c, d, e, f = tuple(~self._profile.affine)[:6]
        longitudes = np.array([0.0, 90.0, 180.0, 270.0])
        for latitude in (90.0, -90.0):
            x, y = self._to_lonlat.transform(longitudes, np.full(4, latitude), direction=TransformDirection.INVERSE)
            # A pole that is not on the map has infinite coordinates.
            with np.errstate(invalid="ignore"):
                cols, rows = a * x + b * y + c, d * x + e * y + f
                # The pole is a point if all its longitudes meet in one place.
                if np.hypot(np.ptp(cols), np.ptp(rows)) < POLE_GAP_PX:
                    poles.append(Pole(float(cols[0]), float(rows[0]), latitude))
        return tuple(poles)

    @cached_property
    def _native_degrees(self) -> float | None:
        """Degrees in one unit of the native x, if the native x is a longitude; else None."""
        return None if self._crs is None else native_degrees(self._crs)

    @cached_property
    def _gcps(self) -> GCPTransformer | None:
        """GDAL's polynomial for the ground control points, of the order that GDAL chooses. None if there are none."""
        if not self._profile.gcps:
            return None
        from rasterio.control import GroundControlPoint as RasterioGCP  # rasterio takes long to import.
        from rasterio.transform import GCPTransformer

        xs = np.array([p.x for p in self._profile.gcps])
        if self._native_degrees and np.ptp(xs) * self._native_degrees > 180.0:
            # The points lie on both sides of the antimeridian. The polynomial needs longitudes without a jump.
            xs = np.where(xs < 0.0, xs + 360.0 / self._native_degrees, xs)
        points = [RasterioGCP(p.row, p.col, x, p.y, p.z) for p, x in zip(self._profile.gcps, xs.tolist(), strict=True)]
        return GCPTransformer(points)


def native_degrees(crs: pyproj.CRS) -> float | None:
    """Return the degrees in one unit of x, if x is a longitude in this CRS; else None."""
    # PROJ also calls a CRS with a rotated pole geographic, but its x is not a longitude. PROJ marks it as derived.
    if not crs.is_geographic or crs.is_derived:
        return None
    return float(np.degrees(crs.axis_info[0].unit_conversion_factor))


def georeference_of(profile: RasterProfile, extent: tuple[int, int, int, int] | None = None) -> Georeference:
    """Return the georeference of a raster. The last results are kept, because several steps need the same one.

    The arguments are those of `Georeference`.
    """
    # The transformer of ground control points holds an object of GDAL, which threads may not share.
    return Georeference(profile, extent) if profile.gcps else _kept_georeference(profile, extent)


@lru_cache(maxsize=16)
def _kept_georeference(profile: RasterProfile, extent: tuple[int, int, int, int] | None) -> Georeference:
    return Georeference(profile, extent)
