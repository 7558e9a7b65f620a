"""transformers' own model on tensors that lie ready: what a loop would reach if reading and preparing took no time."""

from __future__ import annotations

import numpy as np
import rasterio
import torch
from peer import model_time, options, serve
from transformers import AutoModel

asked = options()
torch.set_num_threads(asked.threads)
dtype = torch.bfloat16 if asked.tuned else torch.float32
model = AutoModel.from_pretrained(asked.weights, dtype=dtype).eval()
with rasterio.open(asked.raster) as source:
    tiles = source.width // asked.tile * (source.height // asked.tile)
drawn = np.random.default_rng(0).normal(size=(tiles, 3, asked.tile, asked.tile)).astype(np.float32)
batches = torch.from_numpy(drawn).to(dtype).split(asked.batch)


def in_memory() -> None:
    """The model alone."""
    with torch.inference_mode(), model_time:
        for batch in batches:
            model(pixel_values=batch)


serve(("torch", "transformers"), {"in_memory": in_memory})
