"""Small scenes for tests of collections."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from rasterio.transform import Affine

from rasterembed.collection_pipeline import CollectionOptions
from rasterembed.dataset.embedding import Execution
from rasterembed.dataset.plan import PlanSettings
from rasterembed.model.choice import Dinov3
from rasterembed.raster.grid import Grid
from tests.support.rasters import write

SIDE = 64
"""Side of a scene in px. It has four tiles."""


def write_scene(path: Path, number: int = 0, *, crs: str | None = "EPSG:32635", side: int = SIDE) -> Path:
    """Write a scene, by default of 2 x 2 tiles of 32 px. Other numbers give other pixels and another place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(number).integers(1, 256, (3, side, side), dtype=np.uint8)
    place: dict[str, Any] = {}
    if crs is not None:
        place = {"crs": crs, "transform": Affine(10, 0, 500_000 + number * 10_000, 0, -10, 6_700_000)}
    with rasterio.open(path, "w", driver="GTiff", width=side, height=side, count=3, dtype="uint8", **place) as file:
        file.write(pixels)
    return path


def collection_options(model: Path, **changes: Any) -> CollectionOptions:
    """Return options for a small, quick run without quality checks."""
    values: dict[str, Any] = {
        "settings": PlanSettings(grid=Grid(size=32), model=Dinov3(model=str(model), device="cpu")),
        "execution": Execution(batch_size=4, shard_threads=1, lease_wait=0),
        "quality_checks": False,
        "max_failed_fraction": 1.0,
    }
    return CollectionOptions(**values | changes)


def write_bands(path: Path) -> dict[str, Path]:
    """Write each band of a scene as a file beside it, and return the files by the names of their colours."""
    with rasterio.open(path) as scene:
        pixels, place = scene.read(), {"crs": scene.crs, "transform": scene.transform}
    files = {}
    for colour, band in zip(("red", "green", "blue"), pixels, strict=True):
        files[colour] = write(path.with_name(f"{path.stem}-{colour}.tif"), band[np.newaxis], **place)
    return files
