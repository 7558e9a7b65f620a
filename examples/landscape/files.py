"""Write a scene as files."""

from __future__ import annotations

import math
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import rasterio
from rasterio._err import CPLE_BaseError  # This error has no public name.
from rasterio.crs import CRS
from rasterio.enums import ColorInterp
from rasterio.errors import CRSError
from rasterio.transform import Affine
from rasterio.warp import transform as transform_coordinates

from examples.landscape.arrays import Shape
from examples.landscape.classes import CLASS_COLOURS, CLASSES
from examples.landscape.landscape import make_landscape, photograph
from rasterembed.errors import UsageError

_SMALLEST = 64
"""Smallest width and height of a scene, px."""

_LOSSLESS = ("none", "lzw", "deflate", "zstd")
"""Compressions that keep every pixel. A lossy compression would blur the border of the nodata pixels."""

_ORIGIN_LON_LAT = (24.9, 60.2)
"""Longitude and latitude near the upper left corner of every scene, degrees."""


@dataclass(frozen=True)
class Scene:
    """The two files of a generated scene. Both have the same size, CRS and transform."""

    raster: Path
    """Three-band uint8 RGB COG. A nodata pixel is 0 in all bands. A valid pixel is above 0 in all bands."""

    classes: Path
    """One-band uint8 COG with an index into `CLASSES` for each pixel."""


def make_scene(
    folder: Path,
    *,
    width: int = 4000,
    height: int = 4000,
    seed: int = 7,
    crs: str = "EPSG:32635",
    pixel_size: float = 1.0,
    border: int = 40,
    compress: str = "deflate",
) -> Scene:
    """Write `scene.tif` and `scene-classes.tif` into a folder.

    Fields, street blocks and crowns have their natural size if a pixel is one metre. A scene with more pixels has more
    fields, blocks and crowns; their size in pixels does not change. With the same NumPy, on the same kind of
    processor, the same arguments give the same pixels.

    Args:
        folder: folder for the files. It is created if it is missing. Existing files with the same names are replaced.
        width: number of columns in pixels, 64 or more.
        height: number of rows in pixels, 64 or more.
        seed: seed of the random numbers, 0 or more. Each seed gives another landscape.
        crs: a projected CRS. The upper left corner is near 24.9 degrees east, 60.2 degrees north.
        pixel_size: side of a pixel in units of the CRS. The unit of the default CRS is the metre.
        border: largest width of the nodata border on each side, in pixels. The width varies between half of this
            value and this value. The border is never wider than a quarter of the scene's shorter side.
        compress: `deflate`, `zstd`, `lzw` or `none`.

    Returns:
        The paths of the two files. Each file is moved into place when it is complete.

    Raises:
        UsageError: if a size, the seed, the border, the CRS or the compression is not allowed.
    """
    shape = (height, width)
    _check(shape, seed, pixel_size, border, compress)
    grid_crs, transform = _georeference(crs, pixel_size)

    place, weather, sensor = np.random.default_rng(seed).spawn(3)
    landscape = make_landscape(place, shape, min(border, min(shape) // 4))
    rgb = photograph(landscape, weather, sensor)

    profile = {
        "driver": "COG",
        "width": width,
        "height": height,
        "dtype": "uint8",
        "nodata": 0,
        "crs": grid_crs,
        "transform": transform,
        "blocksize": 512,
        "compress": compress,
        "num_threads": "all_cpus",
    }
    folder.mkdir(parents=True, exist_ok=True)
    scene = Scene(raster=folder / "scene.tif", classes=folder / "scene-classes.tif")
    # The scratch folder is in the target folder, because os.replace cannot move a file to another file system. If
    # writing fails, the scratch folder is removed together with GDAL's temporary files (overviews).
    with tempfile.TemporaryDirectory(dir=folder, prefix=".scene-") as scratch:
        raster_part, classes_part = Path(scratch) / "scene.tif", Path(scratch) / "classes.tif"
        _write_rgb(raster_part, rgb, profile)
        _write_classes(classes_part, landscape.classes, profile)
        os.replace(classes_part, scene.classes)
        os.replace(raster_part, scene.raster)
    return scene


def _check(shape: Shape, seed: int, pixel_size: float, border: int, compress: str) -> None:
    if min(shape) < _SMALLEST:
        raise UsageError(f"scene of {shape[1]} x {shape[0]} px: give a width and a height of {_SMALLEST} or more")
    if seed < 0:
        raise UsageError(f"scene seed {seed}: give 0 or more")
    if not (math.isfinite(pixel_size) and pixel_size > 0):
        raise UsageError(f"scene pixel size {pixel_size}: give a number above 0")
    if border < 0:
        raise UsageError(f"scene border {border} px: give 0 or more")
    if compress.lower() not in _LOSSLESS:
        raise UsageError(f"scene compression {compress!r}: give one of {', '.join(_LOSSLESS)}")


def _georeference(crs: str, pixel_size: float) -> tuple[CRS, Affine]:
    try:
        grid_crs = CRS.from_user_input(crs)
    except CRSError as error:
        raise UsageError(f"scene CRS {crs!r}: not known; give one such as EPSG:32635") from error
    if not grid_crs.is_projected:
        raise UsageError(f"scene CRS {crs!r}: not projected; give one such as EPSG:32635")
    lon, lat = _ORIGIN_LON_LAT
    try:
        xs, ys = transform_coordinates("OGC:CRS84", grid_crs, [lon], [lat])
    except CPLE_BaseError as error:
        raise UsageError(f"scene CRS {crs!r}: does not reach {lon} E, {lat} N; give another") from error
    # Move the corner to a multiple of the pixel size, as in the images that data providers deliver.
    west, north = (round(value / pixel_size) * pixel_size for value in (xs[0], ys[0]))
    return grid_crs, Affine(pixel_size, 0, west, 0, -pixel_size, north)


def _write_rgb(path: Path, rgb: npt.NDArray[np.uint8], profile: dict[str, Any]) -> None:
    predictor = "no" if profile["compress"].lower() == "none" else "yes"
    options = {**profile, "predictor": predictor, "overview_resampling": "average"}
    with rasterio.open(path, "w", count=3, **options) as target:
        target.write(rgb)
        target.colorinterp = (ColorInterp.red, ColorInterp.green, ColorInterp.blue)
        target.update_tags(
            TIFFTAG_DATETIME="2024:07:03 09:41:00",
            TIFFTAG_IMAGEDESCRIPTION="Made-up landscape, not a real place",
            AREA_OR_POINT="Area",
        )


def _write_classes(path: Path, classes: npt.NDArray[np.uint8], profile: dict[str, Any]) -> None:
    with rasterio.open(path, "w", count=1, **profile, overview_resampling="nearest") as target:
        target.write(classes, 1)
        target.write_colormap(1, CLASS_COLOURS)
        target.set_band_description(1, "land cover")
        target.update_tags(AREA_OR_POINT="Area")
        target.update_tags(1, **{f"CLASS_{value}": name for value, name in enumerate(CLASSES)})
