"""Run geoai: DINOv3GeoProcessor with load_geotiff, geoai's contrast stretch, and extract_features for each tile.

The processor takes one image at a time. By default, the processor resizes every image to 896 px, which is sixteen times
the work for a tile of 224 px. The script therefore sets the size to the tile's side. The processor returns no CLS
token, so the tile's vector is the mean of the patch tokens. With `--tuned`, the file is opened only once, and autocast
computes in bfloat16.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import numpy as np
from peer import Vectors, model_time, options, serve, torchvision_without_operators

torchvision_without_operators()

settings = options()
os.environ["DINOV3_LOCATION"] = str(Path(__file__).parent / "stand_in")
os.environ["PEER_WEIGHTS"] = str(settings.weights)

import rasterio  # noqa: E402
import torch  # noqa: E402
from geoai.dinov3 import DINOv3GeoProcessor  # noqa: E402
from rasterio.windows import Window  # noqa: E402

torch.set_num_threads(settings.threads)
with tempfile.NamedTemporaryFile(suffix=".pth") as nothing:  # Without a file, geoai would download one.
    torch.save({}, nothing.name)
    processor = DINOv3GeoProcessor("dinov3_vits16", weights_path=nothing.name, device=torch.device("cpu"))


def embed() -> Vectors:
    """Embed all tiles, row by row."""
    found: dict[tuple[int, int], np.ndarray] = {}
    side = settings.tile
    with rasterio.open(settings.raster) as source, torch.autocast("cpu", torch.bfloat16, enabled=settings.tuned):
        for row in range(source.height // side):
            for col in range(source.width // side):
                window = Window(col * side, row * side, side, side)
                pixels, _ = processor.load_geotiff(source if settings.tuned else str(settings.raster), window)
                image = processor.preprocess_image_for_dinov3(pixels, target_size=side)
                with model_time:
                    features, _, _ = processor.extract_features(image)
                found[row, col] = features.flatten(0, 1).float().mean(dim=0).numpy()
    return found


note = "the mean of the patch tokens, of pixels stretched and normalised in its own way"
serve(("torch", "geoai-py", "transformers", "rasterio"), {"embed": embed}, note)
