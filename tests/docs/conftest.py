"""The folder that the commands and programs of the documentation run in."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import rasterio
from PIL import Image

from examples.landscape import make_scene
from rasterembed import EmbedOptions, Grid, ObjectStore, embed_raster


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with all that the pages' commands and programs name; copy it before use."""
    folder = tmp_path_factory.mktemp("docs")
    make_scene(folder, width=2304, height=1472, pixel_size=4.0)  # 36 by 23 tiles of 64 px
    options = EmbedOptions(dataset_id="scene", grid=Grid(size=64))
    embed_raster(ObjectStore(root=str(folder / "embeddings")), str(folder / "scene.tif"), options)
    with rasterio.open(folder / "scene.tif") as raster:
        pixels = raster.read(window=((128, 192), (256, 320)))
    Image.fromarray(pixels.transpose(1, 2, 0)).save(folder / "chip.png")
    ring = [[24.90, 60.19], [24.95, 60.19], [24.95, 60.21], [24.90, 60.21], [24.90, 60.19]]
    area = {"type": "Feature", "properties": {}, "geometry": {"type": "Polygon", "coordinates": [ring]}}
    (folder / "area.geojson").write_text(json.dumps(area))
    return folder
