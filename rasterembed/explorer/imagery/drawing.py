"""Draw a raster on a map tile."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pictures

from rasterembed.dataset.plan import Plan
from rasterembed.explorer.imagery.open_rasters import OpenRaster
from rasterembed.explorer.imagery.raster_place import PixelBox, RasterPlace
from rasterembed.explorer.imagery.reading import plan_reading
from rasterembed.explorer.map_tile import SIDE, MapTile
from rasterembed.raster.bilinear import Image
from rasterembed.raster.pixels import Pixels
from rasterembed.search.thumbnails import webp

_PIECE_PIXELS = 2**14
"""Number of pixels that are computed together. Their arrays fit in a processor's cache."""

_EFFORT = 1
"""Effort of the WebP encoder. More effort takes longer than the rest of a map tile, for files of the same size."""


@dataclass(frozen=True)
class Drawing:
    """Colours of a map tile."""

    colours: NDArray[np.uint8]
    """Red, green and blue, shape (3, SIDE, SIDE)."""
    valid: NDArray[np.bool_]
    """Where the map tile has a colour, shape (SIDE, SIDE). The other pixels are transparent."""

    @classmethod
    def empty(cls) -> Drawing:
        """Return a map tile that is transparent everywhere."""
        return cls(np.zeros((3, SIDE, SIDE), np.uint8), np.zeros((SIDE, SIDE), bool))

    def encoded(self) -> bytes:
        """Return the map tile as a WebP file."""
        alpha = np.where(self.valid, np.uint8(255), np.uint8(0))
        pixels = np.dstack([*np.where(self.valid, self.colours, 0), alpha])
        return webp(Pictures.fromarray(pixels.astype(np.uint8)), effort=_EFFORT)


def draw(raster: OpenRaster, tile: MapTile) -> Drawing:
    """Draw a raster on a map tile, in the colours of the model's input.

    Colours are bilinear. A pixel of the map tile has a colour if the nearest pixel of the raster is valid.

    Args:
        raster: the open raster, in its files.
        tile: the map tile.

    Raises:
        DataError: if the raster has no place on Earth, or if its pixels cannot be read.
        StoreUnavailableError: if it takes too long.
    """

    def work(pixels: Pixels) -> Drawing:
        if raster.place is None:
            raster.place = RasterPlace(raster.dataset.plan)
        return _draw(pixels, raster.dataset.plan, raster.place, tile)

    return raster.read(work)


def _draw(pixels: Pixels, plan: Plan, place: RasterPlace, tile: MapTile) -> Drawing:
    drawing = Drawing.empty()
    for box in place.boxes(tile):
        _draw_box(drawing, box, pixels, plan, place, tile)
    return drawing


def _draw_box(drawing: Drawing, box: PixelBox, pixels: Pixels, plan: Plan, place: RasterPlace, tile: MapTile) -> None:
    """Draw a part of a map tile."""
    profile, radiometry = plan.profile.original, plan.radiometry
    scale = place.scale(tile, box)
    if scale is None:
        return
    x, y = place.positions(tile, box, scale)
    bands = radiometry.distinct_bands
    reading = plan_reading(profile, pixels.overviews, len(bands), (x, y), scale)
    if reading is None:
        return
    image = Image(*pixels.read_by_band(bands, reading.window, reading.shape), nearest=radiometry.palette)
    x, y = reading.sample_at(x, y)
    left, top, right, bottom = box
    values = np.zeros((len(bands), bottom - top, right - left), pixels.dtype)
    valid = np.zeros(values.shape[1:], bool)
    step = max(1, _PIECE_PIXELS // (right - left))
    for first in range(0, bottom - top, step):
        part = slice(first, first + step)
        image.sample(x[part], y[part], 1, values[:, part], valid[part])
    colours = radiometry.colours(radiometry.channels(values, profile))
    area = slice(top, bottom), slice(left, right)
    np.copyto(drawing.colours[:, *area], colours, where=valid)
    drawing.valid[area] |= valid
