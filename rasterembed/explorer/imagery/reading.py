"""Choose what is read of a raster for a map tile: the window, the overview, and how much work that may be."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from rasterio.windows import Window

from rasterembed.explorer.map_tile import SIDE
from rasterembed.raster.georeference import Floats
from rasterembed.raster.profile import RasterProfile

MAX_DECODED_BYTES = 2**27
"""Largest size in bytes of the pixels that GDAL decodes for a map tile of one raster. A raster with too few overviews
needs more when a map tile shows much of it, and is then not drawn."""

_SHARPEST = 2.0
"""Largest number of pixels that are read for a pixel of the map tile, along each side. Bilinear sampling would skip
pixels if more were read."""

_MOST_PIXELS = 2**22
"""Largest number of pixels of a band that are read. A usual map tile needs at most half of it. A raster with long and
narrow pixels could need many more, and then GDAL skips some."""

_NEAREST_OVERVIEW = 1.2
"""GDAL takes an overview up to this much coarser than asked for (GDALBandGetBestOverviewLevel2 in GDAL 3.10)."""

_WHOLE_FILES = ("PNG", "JPEG")
"""Formats that are decoded from the first row on."""


@dataclass(frozen=True)
class Reading:
    """What is read of a raster for a part of a map tile."""

    window: Window
    """Window inside the raster, px."""
    shape: tuple[int, int]
    """Rows and columns to which the window is resampled."""

    def sample_at(self, x: Floats, y: Floats) -> tuple[Floats, Floats]:
        """Return positions in the pixels that were read, for positions in the raster, px."""
        rows, cols = self.shape
        return (
            (x - self.window.col_off) * (cols / self.window.width),
            (y - self.window.row_off) * (rows / self.window.height),
        )


def plan_reading(
    profile: RasterProfile, overviews: Sequence[int], bands: int, positions: tuple[Floats, Floats], scale: float
) -> Reading | None:
    """Choose what to read, so that all positions can be sampled.

    Args:
        profile: header of the raster in its files.
        overviews: factors by which the overviews of the open raster are decimated.
        bands: number of bands to read.
        positions: columns and rows in the raster, px, as `RasterPlace.positions` returns them.
        scale: width of a pixel of the map tile, in px of the raster.

    Returns:
        None if no position is inside the raster, or if the reading would take more than `MAX_DECODED_BYTES`.
    """
    x, y = positions
    inside = (x >= 0) & (x < profile.width) & (y >= 0) & (y < profile.height)
    if not inside.any():
        return None
    x0, x1, y0, y1 = (float(v) for v in (x[inside].min(), x[inside].max(), y[inside].min(), y[inside].max()))
    factors = sorted({1, *overviews})
    best = max(factor for factor in factors if factor <= max(scale, 1.0))
    for factor in factors[factors.index(best) :]:
        # A bilinear sample needs the pixels beside it. An edge of the window that is a multiple of the factor is the
        # edge of a pixel in the overview.
        left, top = (max(0, (math.floor(low / factor) - 1) * factor) for low in (x0, y0))
        right = min(profile.width, (math.floor(x1 / factor) + 2) * factor)
        bottom = min(profile.height, (math.floor(y1 / factor) + 2) * factor)
        if decoded_bytes(profile, overviews, bands, (left, top, right, bottom), factor) <= MAX_DECODED_BYTES:
            step = max(factor, scale / _SHARPEST, math.sqrt((bottom - top) * (right - left) / _MOST_PIXELS))
            shape = math.ceil((bottom - top) / step), math.ceil((right - left) / step)
            return Reading(Window(left, top, right - left, bottom - top), shape)
    return None


def decoded_bytes(
    profile: RasterProfile, overviews: Sequence[int], bands: int, edges: tuple[int, int, int, int], factor: float
) -> float:
    """Return how many bytes of pixels GDAL decodes to read a window. Whole blocks are decoded.

    Args:
        profile: header of the raster in its files.
        overviews: factors by which the overviews of the raster are decimated.
        bands: number of bands to read.
        edges: left, top, right and bottom edge of the window, px.
        factor: factor by which the window is decimated.
    """
    block = profile.block_height, profile.block_width
    size = np.dtype(profile.dtype).itemsize
    together = profile.count if profile.interleave == "pixel" and not profile.assets else bands
    files = [(overviews, block, float(size * together))]
    if profile.mask_file is not None:
        files.append((profile.mask_overviews, block, 1.0))
    mask = profile.valid_mask
    if mask is not None:
        files.append((mask.overviews, (mask.block_height, mask.block_width), float(np.dtype(mask.dtype).itemsize)))
    left, top, right, bottom = edges
    if profile.driver in _WHOLE_FILES:
        top, left, right = 0, 0, profile.width
    total = 0.0
    for own, (rows, cols), pixel_bytes in files:
        shrunk = max((one for one in own if one <= _NEAREST_OVERVIEW * factor), default=1)
        width = math.ceil(right / shrunk / cols) * cols - math.floor(left / shrunk / cols) * cols
        height = math.ceil(bottom / shrunk / rows) * rows - math.floor(top / shrunk / rows) * rows
        # A block at the edge may be larger than the raster.
        total += min(width, profile.width) * min(height, profile.height) * pixel_bytes
    return total


def smallest_zoom(profile: RasterProfile, native_zoom: int) -> int:
    """Return the smallest zoom at which each map tile of a raster can be drawn within `MAX_DECODED_BYTES`.

    Args:
        profile: header of the raster in its files.
        native_zoom: zoom at which a pixel of a map tile is about as wide as one of the raster.
    """
    bands = min(profile.count, 3)
    for zoom in range(native_zoom):
        scale = 2.0 ** (native_zoom - zoom)
        # The window of a map tile may lie anywhere, so it is a block wider than its pixels.
        width = min(profile.width, math.ceil(SIDE * scale) + profile.block_width)
        height = min(profile.height, math.ceil(SIDE * scale) + profile.block_height)
        for factor in {1, *profile.overviews}:
            if decoded_bytes(profile, profile.overviews, bands, (0, 0, width, height), factor) <= MAX_DECODED_BYTES:
                return zoom
    return native_zoom
