"""Run transformers' model on tensors in memory.

The plain loop would be this fast if reading and preparing took no time.
"""

from __future__ import annotations

import numpy as np
import rasterio
import torch
from peer import model_time, options, serve
from transformers import AutoModel

settings = options()
torch.set_num_threads(settings.threads)
dtype = torch.bfloat16 if settings.tuned else torch.float32
model = AutoModel.from_pretrained(settings.weights, dtype=dtype).eval()
with rasterio.open(settings.raster) as source:
    tiles = source.width // settings.tile * (source.height // settings.tile)
drawn = np.random.default_rng(0).normal(size=(tiles, 3, settings.tile, settings.tile)).astype(np.float32)
batches = torch.split(torch.from_numpy(drawn).to(dtype), settings.batch)


def in_memory() -> None:
    """Run the model alone."""
    with torch.inference_mode(), model_time:
        for batch in batches:
            model(pixel_values=batch)


serve(("torch", "transformers"), {"in_memory": in_memory})
