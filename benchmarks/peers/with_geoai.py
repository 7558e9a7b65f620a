"""geoai: DINOv3GeoProcessor, a tile at a time, which is all that it takes: load_geotiff, its stretch, its features.

It resizes every image to 896 px unless told otherwise, which would be sixteen times the work; it is told the tile's
side. It gives no CLS token: the mean of the patch tokens stands for the tile. Tuned: the file opened once and bfloat16
by autocast.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import numpy as np
from peer import Vectors, model_time, options, serve, torchvision_without_operators

torchvision_without_operators()

asked = options()
os.environ["DINOV3_LOCATION"] = str(Path(__file__).parent / "stand_in")
os.environ["PEER_WEIGHTS"] = str(asked.weights)

import rasterio  # noqa: E402
import torch  # noqa: E402
from geoai.dinov3 import DINOv3GeoProcessor  # noqa: E402
from rasterio.windows import Window  # noqa: E402

torch.set_num_threads(asked.threads)
with tempfile.NamedTemporaryFile(suffix=".pth") as nothing:  # without a file it would download one
    torch.save({}, nothing.name)
    processor = DINOv3GeoProcessor("dinov3_vits16", weights_path=nothing.name, device=torch.device("cpu"))


def embed() -> Vectors:
    """Vectors of all tiles, row by row."""
    found: dict[tuple[int, int], np.ndarray] = {}
    side = asked.tile
    with rasterio.open(asked.raster) as source, torch.autocast("cpu", torch.bfloat16, enabled=asked.tuned):
        for row in range(source.height // side):
            for col in range(source.width // side):
                window = Window(col * side, row * side, side, side)
                pixels, _ = processor.load_geotiff(source if asked.tuned else str(asked.raster), window)
                image = processor.preprocess_image_for_dinov3(pixels, target_size=side)
                with model_time:
                    features, _, _ = processor.extract_features(image)
                found[row, col] = features.flatten(0, 1).float().mean(dim=0).numpy()
    return found


note = "the mean of the patch tokens, of pixels stretched and normalised in its own way"
serve(("torch", "geoai-py", "transformers", "rasterio"), {"embed": embed}, note)
