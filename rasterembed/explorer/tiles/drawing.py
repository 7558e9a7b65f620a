"""Map tiles as PNG files."""

from __future__ import annotations

import io
from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from rasterembed.explorer.tiles.colouring import Colouring

_COMPRESSION = 1
"""Level of the compression. Higher levels take several times as long, and flat colours are small anyway."""


@cache
def empty_picture() -> bytes:
    """Return a transparent picture of one pixel, for a map tile without any tile."""
    return _png(Image.new("RGBA", (1, 1)))


def picture_of(
    tiles: NDArray[np.int32], colouring: Colouring, below: tuple[NDArray[np.int32], Colouring] | None = None
) -> bytes:
    """Return the tiles of a map tile in their colours. Other pixels are transparent.

    Args:
        tiles: number of the tile at each pixel, or -1, shape (height, width).
        colouring: colours of the tiles.
        below: numbers and colours of tiles that lie below the others.
    """
    if colouring.codes.ndim == 1 and below is None:
        return _palette_picture(tiles, colouring)
    pixels = np.zeros((*tiles.shape, 4), np.uint8)
    for numbers, colours in ([] if below is None else [below]) + [(tiles, colouring)]:
        painted = numbers >= 0
        codes = colours.codes[numbers[painted]]
        pixels[painted, :3] = codes if codes.ndim == 2 else colours.palette[codes]
        pixels[painted, 3] = 255
    return _png(Image.fromarray(pixels, "RGBA"))


def _palette_picture(tiles: NDArray[np.int32], colouring: Colouring) -> bytes:
    """Return a picture with one byte for each pixel, which is a third of the size and of the time."""
    codes = np.where(tiles >= 0, colouring.codes[tiles], 0).astype(np.uint8)
    picture = Image.fromarray(codes, "P")
    picture.putpalette(colouring.palette.tobytes())
    return _png(picture, transparency=0)


def _png(picture: Image.Image, **options: int) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", compress_level=_COMPRESSION, **options)
    return buffer.getvalue()
