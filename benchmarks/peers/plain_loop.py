"""Run the usual loop: read a window with rasterio, then call AutoImageProcessor and AutoModel.

By default, the loop computes in float32. With `--tuned`, the whole model is in bfloat16. On the benchmark's CPU, this
is faster than autocast and faster than compiling.
"""

from __future__ import annotations

import numpy as np
from peer import Vectors, model_time, options, serve, torchvision_without_operators

torchvision_without_operators()  # transformers' processor uses torchvision's transforms.

import rasterio  # noqa: E402
import torch  # noqa: E402
from rasterio.windows import Window  # noqa: E402
from transformers import AutoImageProcessor, AutoModel  # noqa: E402

settings = options()
torch.set_num_threads(settings.threads)
processor = AutoImageProcessor.from_pretrained(settings.weights)
dtype = torch.bfloat16 if settings.tuned else torch.float32
model = AutoModel.from_pretrained(settings.weights, dtype=dtype).eval()


def embed() -> Vectors:
    """Embed all tiles, row by row."""
    found: dict[tuple[int, int], np.ndarray] = {}
    with rasterio.open(settings.raster) as source, torch.inference_mode():
        side = settings.tile
        tiles = [(row, col) for row in range(source.height // side) for col in range(source.width // side)]
        for first in range(0, len(tiles), settings.batch):
            batch = tiles[first : first + settings.batch]
            images = [source.read(window=Window(col * side, row * side, side, side)) for row, col in batch]
            inputs = processor(images=images, return_tensors="pt").to(dtype)
            with model_time:
                vectors = model(**inputs).pooler_output.float().numpy()
            found |= zip(batch, vectors, strict=True)
    return found


serve(("torch", "transformers", "rasterio"), {"embed": embed})
