"""The places of a warped raster's pixels in the original raster.

PROJ converts only the nodes of a net that is fixed to the lattice, not to a window. See `rasterembed.raster.place_net`.
"""

from __future__ import annotations

import numpy as np
import pyproj
from numpy.typing import NDArray

from rasterembed.raster.georeference import Floats, crs_of, native_degrees, transformer_between
from rasterembed.raster.place_net import places_on_net
from rasterembed.raster.profile import RasterProfile, Warp
from rasterembed.raster.same_grid import same_crs

_EXTENT_POINTS = 9
"""Number of points along each side of a window whose extent in the original is computed."""

_TOLERANCE_PX = 0.02
"""Tolerance of the net, in px of the original. Places are accurate to about a quarter of this: 0.005 px."""


class WarpedPlaces:
    """Converts pixels of a warped raster to positions in the original raster.

    Args:
        profile: header of the warped raster.
        warp: its `warp`.
    """

    def __init__(self, profile: RasterProfile, warp: Warp) -> None:
        original = warp.unwarped
        self._samples = warp.samples
        self._anchor = warp.anchor
        self._pixel, _, self._left, _, _, self._top = profile.transform
        self._to_px = ~original.affine
        self._size = original.width, original.height
        self._warped_size = profile.width, profile.height
        self._to_original: pyproj.Transformer | None = None
        self._turn: tuple[float, float] | None = None
        if not same_crs(profile.crs_wkt, original.crs_wkt):
            original_wkt = original.crs_wkt or ""
            self._to_original = transformer_between(profile.crs_wkt or "", original_wkt)
            degrees = native_degrees(crs_of(original_wkt))
            if degrees is not None:
                middle = original.affine @ (original.width / 2, original.height / 2)
                self._turn = middle[0], 360.0 / degrees

    @property
    def original_size(self) -> tuple[int, int]:
        """Width and height of the original, px."""
        return self._size

    def positions(self, left: int, top: int, cols: int, rows: int) -> tuple[Floats, Floats]:
        """Return the positions of all samples of a window.

        Args:
            left: left edge of the window, px of the warped raster.
            top: upper edge of the window, px.
            cols: width of the window, px.
            rows: height of the window, px.

        Returns:
            Positions from the left and from the upper edge of the original, px. Both have the shape
            (rows * samples, cols * samples). A place that is not on the original's map is NaN or infinite.
        """
        # Count samples from the origin of the lattice: eastwards, and southwards.
        x0 = (left + self._anchor.col) * self._samples
        y0 = (top - self._anchor.row) * self._samples
        x1, y1 = x0 + cols * self._samples, y0 + rows * self._samples
        return places_on_net(self._exact, (x0, y0, x1, y1), _TOLERANCE_PX)

    def extent(self, rows: int, cols: int) -> tuple[int, int]:
        """Return height and width, in px of the original, of the part that the middle of the warped raster shows.

        Args:
            rows: height of a window in the middle of the warped raster, px.
            cols: width of the window, px.
        """
        width, height = self._warped_size
        rows, cols = min(rows, height), min(cols, width)
        across = (width - cols) / 2 + cols * np.linspace(0.0, 1.0, _EXTENT_POINTS)
        down = (height - rows) / 2 + rows * np.linspace(0.0, 1.0, _EXTENT_POINTS)
        limits = zip(self.at(*np.meshgrid(across, down)), self._size, strict=True)
        x, y = (np.clip(axis[np.isfinite(axis)], 0, limit) for axis, limit in limits)
        return int(np.ptp(y)) if y.size else 0, int(np.ptp(x)) if x.size else 0

    def at(self, cols: NDArray[np.number], rows: NDArray[np.number]) -> tuple[Floats, Floats]:
        """Return the exact positions in the original, px, of positions in the warped raster, px."""
        return self._exact((cols + self._anchor.col) * self._samples, (rows - self._anchor.row) * self._samples)

    def _exact(self, x: NDArray[np.number], y: NDArray[np.number]) -> tuple[Floats, Floats]:
        """Return positions in the original, px, of points that are counted in samples from the lattice's origin."""
        east = self._left + (x / self._samples - self._anchor.col) * self._pixel
        north = self._top - (y / self._samples + self._anchor.row) * self._pixel
        if self._to_original is not None:
            east, north = (np.asarray(axis) for axis in self._to_original.transform(east, north))
        if self._turn is not None:
            # The original may lie at 170 to 190 degrees, and PROJ returns -180 to 180.
            middle, turn = self._turn
            with np.errstate(invalid="ignore"):
                east = east - turn * np.round((east - middle) / turn)
        a, b, c, d, e, f = tuple(self._to_px)[:6]
        with np.errstate(invalid="ignore"):
            return a * east + b * north + c, d * east + e * north + f
