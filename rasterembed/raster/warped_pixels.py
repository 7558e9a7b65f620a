"""Read a raster on another grid of pixels: in another CRS, with another pixel size, or with shifted edges.

Nothing is written. Colours are bilinear: each pixel is computed from the four nearest pixels of the raster, and invalid
pixels have no weight. If the new pixels are larger than the raster's, the mean of several such samples is taken. A
pixel is valid if the raster's pixel at its centre is valid.

A pixel depends on the raster and on the pixel's place on the lattice, never on the window that is read. Shards are
therefore equal, whichever process computes them and however its reads are cut. GDAL's warper cannot be used for this
reason: it computes exact places for a few pixels of each window, and the places of the others from these.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.windows import Window

from rasterembed.raster.bilinear import Image
from rasterembed.raster.pixels import Pixels
from rasterembed.raster.profile import RasterProfile
from rasterembed.raster.warped_places import WarpedPlaces

_REGION_SAMPLES = 2**19
"""Largest number of samples for which the raster is read in one call."""

_REGION_BYTES = 2**24
"""Largest size in bytes of the raster's pixels that are read in one call."""

_PIECE_SAMPLES = 2**14
"""Number of samples that are computed together. Their arrays fit in a processor's cache."""


class WarpedPixels(Pixels):
    """An open raster, seen on another grid of pixels.

    Args:
        profile: header of the warped raster. Its `warp` is not None.
        original: the open raster.
    """

    def __init__(self, profile: RasterProfile, original: Pixels) -> None:
        assert profile.warp is not None
        self._profile = profile
        self._original = original
        self._places = WarpedPlaces(profile, profile.warp)
        self._samples = profile.warp.samples
        self._nearest = profile.palette is not None
        # The base class applies no rule for valid pixels: the mask that is read has the rules of the original.
        self._nodata = [None] * profile.count
        self._masks_by_gdal = False
        self._mask_file = None

    @property
    def dtype(self) -> np.dtype[Any]:
        """NumPy dtype of the original."""
        return self._original.dtype

    @property
    def overviews(self) -> tuple[int, ...]:
        """No factors, because a warped raster is never read decimated."""
        return ()

    def buffer_bands(self, bands: tuple[int, ...]) -> int:
        """Return the number of bands in the buffer of `read_into`. The original reads its alpha band by itself."""
        return len(bands)

    def _read_inside(
        self, buffer: NDArray[np.generic], bands: tuple[int, ...], window: Window
    ) -> tuple[NDArray[np.generic], NDArray[np.bool_] | None]:
        """Read bands of a window inside the warped raster. See `Pixels.read_into`. The window is never resampled."""
        valid = np.zeros(buffer.shape[1:], dtype=bool)
        self._fill(buffer, valid, bands, int(window.col_off), int(window.row_off))
        return buffer, valid

    def _fill(
        self, out: NDArray[np.generic], valid: NDArray[np.bool_], bands: tuple[int, ...], left: int, top: int
    ) -> None:
        """Compute the pixels of a window.

        Args:
            out: memory for the pixels, shape (bands, rows, columns).
            valid: memory for the validity, shape (rows, columns). It is False everywhere.
            bands: band numbers, from 1.
            left: left edge of the window, px.
            top: upper edge of the window, px.
        """
        rows, cols = valid.shape
        if rows * cols * self._samples**2 > _REGION_SAMPLES and rows * cols > 1:
            self._fill_halves(out, valid, bands, left, top)
            return
        x, y = self._places.positions(left, top, cols, rows)
        width, height = self._places.original_size
        inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
        if not inside.any():
            out[:] = 0
            return
        # Read the pixels at the samples, and those around them.
        x0, y0 = (max(0, int(axis.min(where=inside, initial=np.inf)) - 1) for axis in (x, y))
        x1, y1 = (int(axis.max(where=inside, initial=0)) + 2 for axis in (x, y))
        read = Window.from_slices((y0, min(y1, height)), (x0, min(x1, width)))
        if read.width * read.height * len(bands) * self.dtype.itemsize > _REGION_BYTES and rows * cols > 1:
            # Neighbours on the new map are far apart in the raster, as at the edge of a map.
            self._fill_halves(out, valid, bands, left, top)
            return
        image = Image(*self._original.read_by_band(bands, read), nearest=self._nearest)
        x -= x0
        y -= y0
        step = max(1, _PIECE_SAMPLES // (cols * self._samples**2))
        for first in range(0, rows, step):
            part = slice(first, first + step)
            fine = slice(first * self._samples, (first + step) * self._samples)
            image.sample(x[fine], y[fine], self._samples, out[:, part], valid[part])

    def _fill_halves(
        self, out: NDArray[np.generic], valid: NDArray[np.bool_], bands: tuple[int, ...], left: int, top: int
    ) -> None:
        """Compute the pixels of a window in two parts. See `_fill`."""
        rows, cols = valid.shape
        if cols >= rows:
            half = cols // 2
            self._fill(out[:, :, :half], valid[:, :half], bands, left, top)
            self._fill(out[:, :, half:], valid[:, half:], bands, left + half, top)
        else:
            half = rows // 2
            self._fill(out[:, :half], valid[:half], bands, left, top)
            self._fill(out[:, half:], valid[half:], bands, left, top + half)
