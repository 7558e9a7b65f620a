"""Embed a NAIP scene: one file with red, green, blue and near infrared, also in false colours.

python -m examples.scenes.naip [FOLDER]
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from examples.scenes.command import run
from examples.scenes.generated import place_of, read_item, reflectances, write_item, write_tiff
from rasterembed import EmbedOptions, EmbedResult, Grid, ObjectStore, Radiometry, embed_raster

NAME = "naip"

BANDS: dict[str, Any] = {"naip": "auto", "naip-infrared": (4, 1, 2)}
"""Bands of the three channels, by the name of the dataset. `auto` takes red, green and blue, as the Item names them."""


def write_scene(folder: Path) -> Path:
    """Write a small scene in the form of the Item's asset, and return the address of the Item."""
    item = read_item(NAME)
    pixels = np.round(reflectances(seed=2, bands=4) * 600).astype(np.uint8)
    # The real files name no colours for their bands.
    image = write_tiff(
        folder / "naip-image.tif", pixels, *place_of(item, "image"), photometric="minisblack", alpha="no"
    )
    return write_item(folder / f"{NAME}.json", item, {"image": image})


def embed(folder: Path, **options: Any) -> dict[str, EmbedResult]:
    """Embed the scene in true and in false colours, and return the results by the names of the datasets.

    Args:
        folder: folder of the scene and the store.
        options: further fields of `EmbedOptions`.
    """
    store = ObjectStore(root=str(folder / "store"))
    item = str(write_scene(folder))
    results = {}
    for name, bands in BANDS.items():
        chosen = {"grid": Grid(size=32), "radiometry": Radiometry(bands=bands)} | options
        results[name] = embed_raster(store, item, EmbedOptions(dataset_id=name, **chosen))
    return results


if __name__ == "__main__":
    run(__doc__, embed)
