"""TorchGeo: RasterDataset, GridGeoSampler, DataLoader; the model is transformers', as in the plain loop.

As shipped: float32, and reading in the process itself, as DataLoader does by default. Tuned: bfloat16, a worker process
that stays and reads ahead, and TorchGeo's cache of open files, which it has on by default.
"""

from __future__ import annotations

import numpy as np
from peer import Vectors, model_time, options, serve, torchvision_without_operators

torchvision_without_operators()

import torch  # noqa: E402
from torch.utils.data import DataLoader  # noqa: E402
from torchgeo.datasets import RasterDataset, stack_samples  # noqa: E402
from torchgeo.samplers import GridGeoSampler  # noqa: E402
from transformers import AutoImageProcessor, AutoModel  # noqa: E402

asked = options()
torch.set_num_threads(asked.threads)
processor = AutoImageProcessor.from_pretrained(asked.weights)
dtype = torch.bfloat16 if asked.tuned else torch.float32
model = AutoModel.from_pretrained(asked.weights, dtype=dtype).eval()


class Scene(RasterDataset):
    """The one file."""

    filename_glob = asked.raster.name


dataset = Scene(asked.raster.parent)
sampler = GridGeoSampler(dataset, size=asked.tile)
loader = DataLoader(
    dataset,
    batch_size=asked.batch,
    sampler=sampler,
    collate_fn=stack_samples,
    num_workers=1 if asked.tuned else 0,
    persistent_workers=asked.tuned,
)
west, _, _, north = dataset.index.total_bounds
extent = asked.tile * dataset.res[0]


def embed() -> Vectors:
    """Vectors of all tiles, in the order of the sampler."""
    found: dict[tuple[int, int], np.ndarray] = {}
    places = iter(sampler)
    with torch.inference_mode():
        for batch in loader:
            inputs = processor(images=list(batch["image"].to(torch.uint8)), return_tensors="pt").to(dtype)
            with model_time:
                vectors = model(**inputs).pooler_output.float().numpy()
            for vector in vectors:
                x, y, _ = next(places)
                found[round((north - y.stop) / extent), round((x.start - west) / extent)] = vector
    return found


serve(("torch", "torchgeo", "transformers", "rasterio"), {"embed": embed})
