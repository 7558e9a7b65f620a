"""Write small files in the form of real scenes.

Data type, CRS, corner, pixel size, nodata and bands are the real ones. The pixels are made up.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from affine import Affine
from numpy.typing import NDArray

ITEMS = Path(__file__).parent / "items"
"""Folder of the STAC Items. Its README says where they come from."""

SIDE = 128
"""Height and width of the scenes in px."""


def reflectances(seed: int = 0, bands: int = 3) -> NDArray[np.float64]:
    """Return made-up ground: reflectances between 0.02 and 0.34, shape (bands, SIDE, SIDE)."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[0:SIDE, 0:SIDE]
    waves = [np.sin(x / random.uniform(4, 20)) * np.cos(y / random.uniform(4, 20)) for _ in range(bands)]
    noise = random.uniform(-0.02, 0.02, (bands, SIDE, SIDE))
    return 0.18 + 0.14 * np.stack(waves) + noise


def write_tiff(path: Path, pixels: NDArray[Any], transform: Affine, crs: str, **profile: Any) -> Path:
    """Write pixels of shape (bands, height, width) as a tiled GeoTIFF.

    Args:
        path: the new file.
        pixels: the bands.
        transform: affine transform from pixels to the CRS.
        crs: the CRS, for example `EPSG:32635`.
        profile: further options of rasterio.
    """
    count, height, width = pixels.shape
    form = {"driver": "GTiff", "tiled": True, "blockxsize": 64, "blockysize": 64, "compress": "deflate"}
    size = {"count": count, "height": height, "width": width, "dtype": pixels.dtype}
    with rasterio.open(path, "w", transform=transform, crs=crs, **(form | size | profile)) as file:
        file.write(pixels)
    return path


def place_of(item: Mapping[str, Any], key: str) -> tuple[Affine, str]:
    """Return transform and CRS that a STAC Item gives for an asset: fields of the asset, else of the whole Item."""
    fields = item["properties"] | item["assets"][key]
    return Affine(*fields["proj:transform"][:6]), f"EPSG:{fields['proj:epsg']}"


def read_item(name: str) -> dict[str, Any]:
    """Return one of the STAC Items by the name of its file."""
    content: dict[str, Any] = json.loads((ITEMS / f"{name}.json").read_text())
    return content


def write_item(path: Path, item: Mapping[str, Any], files: Mapping[str, Path]) -> Path:
    """Write a STAC Item whose assets are files beside it, as somebody does who has copied an Item and its assets.

    Args:
        path: the new file.
        item: the Item. All its fields but the addresses stay as they are.
        files: the copied files, by the keys of their assets.
    """
    assets = {key: asset | ({"href": files[key].name} if key in files else {}) for key, asset in item["assets"].items()}
    path.write_text(json.dumps({**item, "assets": assets}))
    return path
