"""Run terratorch: EmbeddingGenerationTask with Lightning's Trainer and TorchGeo's dataset, sampler, DataLoader.

The task writes one GeoParquet file with one token per tile. By default, the task computes in float32. With `--tuned`,
autocast computes in bfloat16, and a worker process reads ahead. The model stays in float32, because terratorch cannot
write the vectors of a model that is in bfloat16.
"""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from peer import Vectors, options, serve, torchvision_without_operators

torchvision_without_operators()

settings = options()
os.environ["PEER_WEIGHTS"] = str(settings.weights)

import pandas as pd  # noqa: E402
import torch  # noqa: E402
from lightning.pytorch import Trainer  # noqa: E402
from terratorch.tasks import EmbeddingGenerationTask  # noqa: E402
from torch.utils.data import DataLoader  # noqa: E402
from torchgeo.datasets import RasterDataset, stack_samples  # noqa: E402
from torchgeo.samplers import GridGeoSampler  # noqa: E402

scratch = tempfile.TemporaryDirectory()
torch.hub.set_dir(scratch.name)
# PyTorch treats a folder of this name in its hub folder as a repository that was already downloaded.
(Path(scratch.name) / "facebookresearch_dinov3_main").symlink_to(Path(__file__).parent / "stand_in")
torch.set_num_threads(settings.threads)
preprocessor = json.loads((settings.weights / "preprocessor_config.json").read_text())
mean = 255 * torch.tensor(preprocessor["image_mean"]).view(3, 1, 1)
std = 255 * torch.tensor(preprocessor["image_std"]).view(3, 1, 1)


class Scene(RasterDataset):
    """Dataset with one raster. A tile's file name is its row and column."""

    filename_glob = settings.raster.name

    def __getitem__(self, query: Any) -> dict[str, Any]:
        west, _, _, north = self.index.total_bounds
        extent = settings.tile * self.res[0]
        x, y, _ = query
        image = super().__getitem__(query)["image"]
        name = f"{round((north - y.stop) / extent)}_{round((x.start - west) / extent)}"
        return {"image": (image - mean) / std, "filename": name}


dataset = Scene(settings.raster.parent)
loader = DataLoader(
    dataset,
    batch_size=settings.batch,
    sampler=GridGeoSampler(dataset, size=settings.tile),
    collate_fn=stack_samples,
    num_workers=1 if settings.tuned else 0,
    persistent_workers=settings.tuned,
)
task = EmbeddingGenerationTask(
    {"backbone": "dinov3_vits16", "backbone_ckpt_path": str(settings.weights)},
    output_dir=f"{scratch.name}/embeddings",
    output_format="parquet_joint",
    embedding_pooling="cls",
    layers=[-1],
)


def embed() -> Vectors:
    """Embed all tiles, and read the vectors from the file that the task wrote."""
    # Without this line, a second run would look for the parts of the first run.
    task._part_idx, task._part_dir = {"00": None}, {}
    trainer = Trainer(
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        precision="bf16-mixed" if settings.tuned else "32-true",
    )
    trainer.predict(task, loader, return_predictions=False)
    table = pd.read_parquet(Path(scratch.name) / "embeddings" / "layer_00" / "embeddings.parquet")
    places = (tuple(map(int, name.split("_"))) for name in table["file_id"])
    return {place: np.asarray(vector) for place, vector in zip(places, table["embedding"], strict=True)}


# terratorch's DINOv3 wrapper puts the CLS token after the patch tokens, but its pooling `cls` takes the first token.
note = "the token of the first patch, which its pooling `cls` takes for the CLS token"
serve(("torch", "terratorch", "torchgeo", "lightning", "transformers"), {"embed": embed}, note)
