"""Write a second, smaller scene of the same ground: another corner, a later date, and some changed ground."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import numpy as np
import rasterio
from rasterio.transform import Affine
from rasterio.windows import Window

from rasterembed.errors import UsageError

_SMALLEST = 512
"""Smallest width and height of the first scene, px."""


def make_second_date(first: Path, path: Path, *, side: int = 900) -> Path:
    """Write a part of a scene as if it had been photographed a year later.

    The ground is the same, with equal pixels, except in a square at the lower right of the middle. Ground from another
    part of the scene is there.

    Args:
        first: the scene of `make_scene`, or any other raster with three bands.
        path: the new GeoTIFF. An existing file is replaced.
        side: width and height of the new scene, px. It is at most half of the first scene's width and height.

    Returns:
        The path of the new file. It is moved into place when it is complete.

    Raises:
        UsageError: if the first scene is smaller than 512 px.
    """
    with rasterio.open(first) as source:
        if min(source.width, source.height) < _SMALLEST:
            raise UsageError(f"{first}: {source.width} x {source.height} px are too few: give {_SMALLEST} or more")
        side = min(side, source.width // 2, source.height // 2)
        # Neither corner is at a multiple of a tile's size.
        left, top = source.width // 3 + 5, source.height // 3 + 11
        pixels = source.read(window=Window(left, top, side, side))
        changed = side // 5
        other = source.read(window=Window(source.width - left, source.height // 8, changed, changed))
        options = {"crs": source.crs, "transform": source.transform @ Affine.translation(left, top)}
        options |= {"nodata": source.nodata, "photometric": "rgb", "tiled": True, "compress": "deflate"}
    place = slice(3 * changed, 4 * changed)
    pixels[:, place, place] = np.where((pixels[:, place, place] > 0) & (other > 0), other, pixels[:, place, place])
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".scene-") as scratch:
        part = Path(scratch) / path.name
        shape = {"width": side, "height": side, "count": len(pixels), "dtype": pixels.dtype}
        with rasterio.open(part, "w", driver="GTiff", **shape, **options) as target:
            target.write(pixels)
            target.update_tags(TIFFTAG_DATETIME="2025:07:01 09:38:00", AREA_OR_POINT="Area")
        os.replace(part, path)
    return path
