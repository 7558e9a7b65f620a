"""Run TorchGeo: RasterDataset, GridGeoSampler and DataLoader, with transformers' model as in the plain loop.

By default, the model is in float32, and the main process reads the file (DataLoader's default). With `--tuned`, the
model is in bfloat16, and a persistent worker process reads ahead. In both cases, TorchGeo's cache of open files is on
(TorchGeo's default).
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

settings = options()
torch.set_num_threads(settings.threads)
processor = AutoImageProcessor.from_pretrained(settings.weights)
dtype = torch.bfloat16 if settings.tuned else torch.float32
model = AutoModel.from_pretrained(settings.weights, dtype=dtype).eval()


class Scene(RasterDataset):
    """Dataset with one raster."""

    filename_glob = settings.raster.name


dataset = Scene(settings.raster.parent)
sampler = GridGeoSampler(dataset, size=settings.tile)
loader = DataLoader(
    dataset,
    batch_size=settings.batch,
    sampler=sampler,
    collate_fn=stack_samples,
    num_workers=1 if settings.tuned else 0,
    persistent_workers=settings.tuned,
)
west, _, _, north = dataset.index.total_bounds
extent = settings.tile * dataset.res[0]


def embed() -> Vectors:
    """Embed all tiles, in the order of the sampler."""
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
