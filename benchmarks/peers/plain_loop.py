"""The loop that everyone writes: a window with rasterio, AutoImageProcessor, AutoModel.

As shipped it computes in float32. Tuned, the whole model is in bfloat16: faster here than autocast, or than compiling.
"""

from __future__ import annotations

import numpy as np
from peer import Vectors, model_time, options, serve, torchvision_without_operators

torchvision_without_operators()  # transformers' processor is made of torchvision's transforms

import rasterio  # noqa: E402
import torch  # noqa: E402
from rasterio.windows import Window  # noqa: E402
from transformers import AutoImageProcessor, AutoModel  # noqa: E402

asked = options()
torch.set_num_threads(asked.threads)
processor = AutoImageProcessor.from_pretrained(asked.weights)
dtype = torch.bfloat16 if asked.tuned else torch.float32
model = AutoModel.from_pretrained(asked.weights, dtype=dtype).eval()


def embed() -> Vectors:
    """Vectors of all tiles, row by row."""
    found: dict[tuple[int, int], np.ndarray] = {}
    with rasterio.open(asked.raster) as source, torch.inference_mode():
        side = asked.tile
        tiles = [(row, col) for row in range(source.height // side) for col in range(source.width // side)]
        for first in range(0, len(tiles), asked.batch):
            batch = tiles[first : first + asked.batch]
            images = [source.read(window=Window(col * side, row * side, side, side)) for row, col in batch]
            inputs = processor(images=images, return_tensors="pt").to(dtype)
            with model_time:
                vectors = model(**inputs).pooler_output.float().numpy()
            found |= zip(batch, vectors, strict=True)
    return found


serve(("torch", "transformers", "rasterio"), {"embed": embed})
