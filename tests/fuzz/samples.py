"""Sound files, which the fuzzer damages: a raster in every form that can be read, and the files of a small dataset."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import rasterio.shutil

from tests.support.rasters import write

WIDTH, HEIGHT = 96, 80


def write_rasters(folder: Path) -> dict[str, Path]:
    """Write small rasters, and return their paths by a name of the form."""
    random = np.random.default_rng(1)
    smooth = np.add.outer(np.arange(HEIGHT), np.arange(WIDTH))[None] + random.integers(0, 40, (3, HEIGHT, WIDTH))
    byte = np.clip(smooth, 1, 255).astype(np.uint8)
    wide, real = (smooth * 7).astype(np.uint16), smooth.astype(np.float32)
    real[:, :10] = -9999.0
    tiled = {"tiled": True, "blockxsize": 32, "blockysize": 32}

    forms: dict[str, tuple[np.ndarray[Any, Any], dict[str, Any]]] = {
        "GTiff, strips": (byte, {}),
        "GTiff, tiles, deflate": (wide, {**tiled, "compress": "deflate", "predictor": 2}),
        "GTiff, LZW, float, nodata": (real, {**tiled, "compress": "lzw", "nodata": -9999.0}),
        "GTiff, JPEG": (byte, {**tiled, "compress": "jpeg", "photometric": "ycbcr"}),
        "GTiff, ZSTD, bands apart": (wide, {**tiled, "compress": "zstd", "interleave": "band"}),
        "BigTIFF, packbits": (byte, {"BIGTIFF": "YES", "compress": "packbits"}),
        "GTiff, 4 bits": (byte[:1] % 16, {"nbits": 4}),
    }
    paths: dict[str, Path] = {}
    for name, (pixels, options) in forms.items():
        paths[name] = write(folder / f"{len(paths)}.tif", pixels, **options)
    paths["GTiff, palette"] = write(folder / "palette.tif", byte[:1] % 8, photometric="palette")
    with rasterio.open(paths["GTiff, palette"], "r+") as file:
        file.write_colormap(1, {value: (value * 30, 255 - value * 30, 9, 255) for value in range(8)})
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True):
        paths["GTiff, mask"] = write(folder / "mask.tif", byte, **tiled, compress="deflate")
        with rasterio.open(paths["GTiff, mask"], "r+") as file:
            file.write_mask(byte[0] > 50)
    source = paths["GTiff, strips"]
    for name, ending, driver, options in (
        ("COG", "cog.tif", "COG", {"blocksize": 128, "overviews": "IGNORE_EXISTING", "compress": "deflate"}),
        ("PNG", "r.png", "PNG", {}),
        ("JPEG", "r.jpg", "JPEG", {}),
        ("JPEG 2000", "r.jp2", "JP2OpenJPEG", {}),
        ("VRT (never read)", "r.vrt", "VRT", {}),
    ):
        rasterio.shutil.copy(source, folder / ending, driver=driver, **options)
        paths[name] = folder / ending
    for side_file in folder.glob("*.aux.xml"):
        side_file.unlink()
    return paths


def write_area(path: Path) -> Path:
    """Write a GeoJSON file with polygons, one of them with a hole."""
    ring = [[24.0, 60.0], [25.0, 60.0], [25.0, 61.0], [24.0, 61.0], [24.0, 60.0]]
    hole = [[24.2, 60.2], [24.8, 60.2], [24.8, 60.8], [24.2, 60.2]]
    features = [
        {"type": "Feature", "properties": {"name": None}, "geometry": {"type": "Polygon", "coordinates": [ring, hole]}},
        {"type": "Feature", "properties": {}, "geometry": {"type": "MultiPolygon", "coordinates": [[ring], [hole]]}},
    ]
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    return path


def write_checkpoint(folder: Path) -> Path:
    """Write a DINOv3 of one layer and 32 dimensions, with random weights."""
    import torch
    from transformers import DINOv3ViTConfig, DINOv3ViTModel

    from rasterembed.model.checkpoints import write_preprocessor

    torch.manual_seed(0)
    config = DINOv3ViTConfig(hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2)
    DINOv3ViTModel(config).save_pretrained(folder)
    write_preprocessor(folder, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    return folder
