"""Find out which points of a native CRS are on Earth.

A projection maps the Earth onto a part of the plane: an ellipse, a disc, the space between two curves. For many points
outside this part, PROJ's inverse projection returns a longitude and latitude too, but of a wrong place. Each point is
therefore converted to longitude and latitude, and then projected again. A point is on Earth if the result is the same
point.
"""

from __future__ import annotations

import math

import numpy as np
import pyproj
from numpy.typing import NDArray
from pyproj.enums import TransformDirection

Floats = NDArray[np.float64]

TOLERANCE_PX = 0.001
"""Largest distance in px between a point on Earth and the same point after it was projected again. In practice the
distance is at most 0.00003 px."""

_TOLERANCE_M = 0.05
"""The same distance in metres, for rasters with small pixels. PROJ's series for some equal-area projections have errors
of 2 mm."""

_AT_POLE_M = 2.0
"""The same distance in metres, if PROJ returns a pole's latitude. In Albers' projection PROJ does so up to 2 km from
the pole, and the point that is projected again is then up to 1.1 m away."""

_NEAR_POLE_M = 0.2
"""The same distance in metres, if PROJ returns a latitude within 10 m of a pole. In Lambert's azimuthal equal-area
projection it is up to 0.1 m."""

_EARTH_RADIUS_M = 6.371e6
"""Mean radius of the Earth in metres."""

_BEYOND_POLE_PX = 0.6
"""Largest distance in px that a point may lie beyond a pole, on a raster in longitude and latitude. If the centres of
the first and last pixels are at the poles, the raster extends half a pixel beyond each pole."""

_TURN_STEPS = 12
"""Number of longitudes, in a full turn of 360 degrees, at which a projection is tried."""


class MapDomain:
    """The part of a native CRS's plane that shows the Earth.

    Args:
        crs: the native CRS.
        linear: a, b, d, e of the affine from pixels to native coordinates.
    """

    def __init__(self, crs: pyproj.CRS, linear: tuple[float, float, float, float]) -> None:
        source = crs.source_crs if crs.is_bound and crs.source_crs else crs
        derived = source.is_geographic and source.is_derived
        self._geographic = source.is_geographic and not derived
        # Convert without a change of datum. For the two directions PROJ may choose different changes of datum, and
        # points in Britain would then come back at a distance of 150 m.
        base = (source.source_crs if derived else source.geodetic_crs) or pyproj.CRS("OGC:CRS84")
        self._to_base = pyproj.Transformer.from_crs(source, base, always_xy=True)
        self._linear = np.array(linear).reshape(2, 2)
        self._area = abs(float(np.linalg.det(self._linear)))
        unit = source.axis_info[0].unit_conversion_factor
        metre = 1.0 / (unit * _EARTH_RADIUS_M) if source.is_geographic else 1.0 / unit
        metre_px = metre / math.sqrt(self._area) if self._area else math.inf
        self._metre_px = metre_px
        self.tolerance_px = max(TOLERANCE_PX, _TOLERANCE_M * metre_px)
        """Largest distance in px between a point on Earth and the same point after it was projected again."""
        self._degrees = math.degrees(base.axis_info[0].unit_conversion_factor)
        self._pole = (math.pi / 2) / unit + _BEYOND_POLE_PX * float(np.abs(self._linear[1]).max())
        self.turn = 2.0 * math.pi / unit if source.is_geographic else self._turn_of_cylinder()
        """Width of the whole Earth in native x, if the map repeats itself after this width; else None."""

    def contains(self, x: Floats, y: Floats) -> NDArray[np.bool_]:
        """Return whether each point is on Earth.

        Args:
            x: native x coordinates, any shape.
            y: native y coordinates, of the same shape.

        Returns:
            Booleans of the same shape.
        """
        if self._geographic or not self._area:
            return np.abs(y) <= self._pole
        lon, lat = self.lonlat(x, y)
        # Where PROJ has no longitude and latitude, the distance is NaN or infinite, and the comparison is False.
        distance: Floats = np.hypot(*self.offsets_px(lon, lat, x, y))
        from_pole_m = np.radians(90.0 - np.abs(lat)) * _EARTH_RADIUS_M
        near_pole = np.select([from_pole_m < 1e-3, from_pole_m < 10.0], [_AT_POLE_M, _NEAR_POLE_M], _TOLERANCE_M)
        return distance <= np.maximum(near_pole * self._metre_px, TOLERANCE_PX)

    def lonlat(self, x: Floats, y: Floats) -> tuple[Floats, Floats]:
        """Return longitude and latitude in the datum of the CRS, in degrees. Where PROJ has none, both are infinite."""
        lon, lat = self._to_base.transform(x, y)
        return np.asarray(lon) * self._degrees, np.asarray(lat) * self._degrees

    def offsets_px(self, lon: Floats, lat: Floats, x: Floats, y: Floats) -> tuple[Floats, Floats]:
        """Return the offsets of places from native points, in px.

        Args:
            lon: longitudes of the places, as `lonlat` returns them, any shape.
            lat: latitudes of the places, of the same shape.
            x: native x coordinates of the points, of the same shape.
            y: native y coordinates of the points, of the same shape.

        Returns:
            Offsets in columns (positive to the right) and in rows (positive downwards), both of the same shape.
        """
        with np.errstate(invalid="ignore"):
            place_x, place_y = self._project(lon, lat)
            dx, dy = place_x - x, place_y - y
            if self.turn is not None:
                dx = dx - self.turn * np.round(dx / self.turn)
            cols, rows = np.linalg.solve(self._linear, np.stack([dx.ravel(), dy.ravel()]))
        return cols.reshape(x.shape), rows.reshape(x.shape)

    def _project(self, lon: Floats, lat: Floats) -> tuple[Floats, Floats]:
        x, y = self._to_base.transform(lon / self._degrees, lat / self._degrees, direction=TransformDirection.INVERSE)
        return np.asarray(x), np.asarray(y)

    def _turn_of_cylinder(self) -> float | None:
        """Return the width of the map of the whole Earth in native x, for a cylindrical projection. Else return None.

        In a cylindrical projection such as Mercator, equal steps in longitude are equal steps in x, at any latitude.
        The map can therefore be continued beyond its edge: after one width, it shows the same places again.
        """
        lon, lat = np.meshgrid(np.linspace(7.0, 367.0, _TURN_STEPS, endpoint=False), np.array([-40.0, 3.0, 50.0]))
        with np.errstate(invalid="ignore"):
            x, y = self._project(lon, lat)
            steps = np.diff(x, axis=1)
        if not np.isfinite(steps).all():
            return None
        # The upper median. `np.median` would import `numpy.ma`, which takes a twentieth of a process's first answer.
        step = float(np.sort(steps, axis=None)[steps.size // 2])
        jumps = np.abs(steps - step) > 1e-9 * abs(step)
        # One step in each row may jump from one end of the map to the other.
        if np.ptp(y, axis=1).max() > 1e-9 * abs(step) or jumps.sum(axis=1).max() > 1:
            return None
        return _TURN_STEPS * step
