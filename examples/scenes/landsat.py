"""Embed a Landsat Collection 2 Level 2 scene in an anchored grid, without its clouds.

The pixel edges of Landsat scenes are 15 m from the multiples of 30 m, so the grid is counted from the point 15, 15.

python -m examples.scenes.landsat [FOLDER]
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray

from examples.scenes.command import run
from examples.scenes.generated import SIDE, place_of, read_item, reflectances, write_item, write_tiff
from rasterembed import EmbedOptions, EmbedResult, Grid, ObjectStore, Radiometry, Validity, embed_raster

NAME = "landsat-c2-l2"

COLOURS = ("red", "green", "blue")

CLEAR, CLOUD = 21824, 22280
"""Values of QA_PIXEL for clear ground and for a cloud."""

HIDDEN_BITS = 0b11111
"""Bits of QA_PIXEL: fill, dilated cloud, cirrus, cloud, and shadow of a cloud."""


def write_scene(folder: Path) -> Path:
    """Write a small scene in the form of the Item's assets, with a cloud, and return the address of the Item."""
    item = read_item(NAME)
    place = place_of(item, "red")
    files = {}
    for key, ground in zip(COLOURS, reflectances(seed=1), strict=True):
        pixels = np.round((ground + 0.2) / 0.0000275).astype(np.uint16)
        files[key] = write_tiff(folder / f"{NAME}-{key}.tif", pixels[None], *place, nodata=0)
    quality = np.full((1, SIDE, SIDE), CLEAR, np.uint16)
    quality[0, 10:75, 5:70] = CLOUD
    files["qa_pixel"] = write_tiff(folder / f"{NAME}-qa.tif", quality, *place, nodata=1)
    return write_item(folder / f"{NAME}.json", item, files)


def write_mask(quality: Path, mask: Path) -> NDArray[np.bool_]:
    """Write a mask that hides fill, clouds and their shadows. Return the visible pixels, shape (SIDE, SIDE)."""
    with rasterio.open(quality) as file:
        visible: NDArray[np.bool_] = (file.read(1) & HIDDEN_BITS) == 0
        write_tiff(mask, (visible * np.uint8(255))[None], file.transform, str(file.crs))
    return visible


def embed(folder: Path, **options: Any) -> dict[str, EmbedResult]:
    """Embed the scene, and return the result by the name of the Item.

    Args:
        folder: folder of the scene and the store.
        options: further fields of `EmbedOptions`.
    """
    store = ObjectStore(root=str(folder / "store"))
    item, mask = write_scene(folder), folder / f"{NAME}-mask.tif"
    write_mask(folder / f"{NAME}-qa.tif", mask)
    chosen = {
        "grid": Grid(size=32, anchor="crs", origin=(15, 15)),
        "radiometry": Radiometry(scale="landsat-c2-l2"),
        "validity": Validity(mask=str(mask)),
    }
    return {NAME: embed_raster(store, str(item), EmbedOptions(dataset_id=NAME, **(chosen | options)))}


if __name__ == "__main__":
    run(__doc__, embed)
