"""Embed Sentinel-2 L2A scenes from before and after processing baseline 04.00 with equal colours.

Since baseline 04.00, 1000 is added to all pixels. The STAC Items name the baseline, so the preset gives equal ground
equal colours.

python -m examples.scenes.sentinel2 [FOLDER]
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from examples.scenes.command import run
from examples.scenes.generated import place_of, read_item, reflectances, write_item, write_tiff
from rasterembed import EmbedOptions, EmbedResult, Grid, ObjectStore, Radiometry, embed_raster

ADDED = {"sentinel2-before-04.00": 0, "sentinel2-04.00": 1000}
"""Number that is added to all pixels, by the name of the Item."""

BANDS = ("B04", "B03", "B02")
"""Assets of red, green and blue. The asset `visual` would be an 8-bit picture without reflectances."""


def write_scene(folder: Path, name: str) -> Path:
    """Write a small scene of 10 m bands in the form of an Item's assets, and return the address of the Item."""
    item = read_item(name)
    files = {}
    for key, ground in zip(BANDS, reflectances(), strict=True):
        pixels = (np.round(ground * 10_000) + ADDED[name]).astype(np.uint16)
        files[key] = write_tiff(folder / f"{name}-{key}.tif", pixels[None], *place_of(item, key), nodata=0)
    return write_item(folder / f"{name}.json", item, files)


def embed(folder: Path, **options: Any) -> dict[str, EmbedResult]:
    """Embed both scenes, and return the results by the names of the Items.

    Args:
        folder: folder of the scenes and the store.
        options: further fields of `EmbedOptions`.
    """
    store = ObjectStore(root=str(folder / "store"))
    chosen: dict[str, Any] = {"grid": Grid(size=32), "radiometry": Radiometry(scale="sentinel2-l2a"), "assets": BANDS}
    return {
        name: embed_raster(store, str(write_scene(folder, name)), EmbedOptions(dataset_id=name, **(chosen | options)))
        for name in ADDED
    }


if __name__ == "__main__":
    run(__doc__, embed)
