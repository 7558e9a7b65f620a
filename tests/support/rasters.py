"""Write rasters of given pixels for tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import rasterio
from numpy.typing import NDArray
from rasterio.transform import Affine

PLACE: dict[str, Any] = {"crs": "EPSG:32635", "transform": Affine(10, 0, 500_000, 0, -10, 6_700_000)}
"""CRS and transform of a raster in UTM zone 35 with pixels of 10 m."""


def write(path: Path, pixels: NDArray[Any], **options: Any) -> Path:
    """Write a raster, by default a GeoTIFF at `PLACE`.

    Args:
        path: the file.
        pixels: shape (bands, rows, columns).
        options: further options of `rasterio.open`.
    """
    count, height, width = pixels.shape
    profile = {"driver": "GTiff", "dtype": pixels.dtype, "count": count, "width": width, "height": height} | PLACE
    with rasterio.open(path, "w", **(profile | options)) as dataset:
        dataset.write(pixels)
    return path
