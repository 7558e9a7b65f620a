"""Embed a drone orthomosaic: one RGBA file with pixels of 2 cm in UTM.

The alpha band hides the pixels that the flight did not see.

python -m examples.scenes.drone [FOLDER]
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from affine import Affine
from numpy.typing import NDArray

from examples.scenes.command import run
from examples.scenes.generated import SIDE, reflectances, write_tiff
from rasterembed import EmbedOptions, EmbedResult, Grid, ObjectStore, embed_raster

NAME = "drone"


def flown_area() -> NDArray[np.bool_]:
    """Return the pixels that the flight saw: a disc, as the irregular outline of an orthomosaic. Shape (SIDE, SIDE)."""
    y, x = np.mgrid[0:SIDE, 0:SIDE]
    seen: NDArray[np.bool_] = np.hypot(x - SIDE / 2, y - SIDE / 2) < 0.4 * SIDE
    return seen


def write_scene(folder: Path) -> Path:
    """Write a small orthomosaic, as photogrammetry programs write it, and return its address."""
    seen = flown_area()
    colours = np.where(seen, np.round(reflectances(seed=3) * 700), 255).astype(np.uint8)
    pixels = np.concatenate([colours, seen[None] * np.uint8(255)])
    transform = Affine(0.02, 0, 385_120.34, 0, -0.02, 6_672_040.18)
    return write_tiff(folder / f"{NAME}.tif", pixels, transform, "EPSG:32635", photometric="rgb", alpha="yes")


def embed(folder: Path, **options: Any) -> dict[str, EmbedResult]:
    """Embed the orthomosaic, and return the result by the name of the dataset.

    Args:
        folder: folder of the orthomosaic and the store.
        options: further fields of `EmbedOptions`.
    """
    store = ObjectStore(root=str(folder / "store"))
    chosen = {"grid": Grid(size=32)} | options
    return {NAME: embed_raster(store, str(write_scene(folder)), EmbedOptions(dataset_id=NAME, **chosen))}


if __name__ == "__main__":
    run(__doc__, embed)
