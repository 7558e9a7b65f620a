"""terratorch: EmbeddingGenerationTask under Lightning's Trainer, fed with TorchGeo's dataset, sampler and DataLoader.

It reads and normalises as that pipeline does, pools a token, and writes one GeoParquet file. As shipped: float32.
Tuned: bfloat16 by autocast, for it cannot write what a model wholly in bfloat16 gives, and a worker process that reads
ahead.
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

asked = options()
os.environ["PEER_WEIGHTS"] = str(asked.weights)

import pandas as pd  # noqa: E402
import torch  # noqa: E402
from lightning.pytorch import Trainer  # noqa: E402
from terratorch.tasks import EmbeddingGenerationTask  # noqa: E402
from torch.utils.data import DataLoader  # noqa: E402
from torchgeo.datasets import RasterDataset, stack_samples  # noqa: E402
from torchgeo.samplers import GridGeoSampler  # noqa: E402

scratch = tempfile.TemporaryDirectory()
torch.hub.set_dir(scratch.name)  # where a repository of this name is taken for one fetched before
(Path(scratch.name) / "facebookresearch_dinov3_main").symlink_to(Path(__file__).parent / "stand_in")
torch.set_num_threads(asked.threads)
preprocessor = json.loads((asked.weights / "preprocessor_config.json").read_text())
mean = 255 * torch.tensor(preprocessor["image_mean"]).view(3, 1, 1)
std = 255 * torch.tensor(preprocessor["image_std"]).view(3, 1, 1)


class Scene(RasterDataset):
    """The one file, with the place of each tile as its name."""

    filename_glob = asked.raster.name

    def __getitem__(self, query: Any) -> dict[str, Any]:
        west, _, _, north = self.index.total_bounds
        extent = asked.tile * self.res[0]
        x, y, _ = query
        image = super().__getitem__(query)["image"]
        name = f"{round((north - y.stop) / extent)}_{round((x.start - west) / extent)}"
        return {"image": (image - mean) / std, "filename": name}


dataset = Scene(asked.raster.parent)
loader = DataLoader(
    dataset,
    batch_size=asked.batch,
    sampler=GridGeoSampler(dataset, size=asked.tile),
    collate_fn=stack_samples,
    num_workers=1 if asked.tuned else 0,
    persistent_workers=asked.tuned,
)
task = EmbeddingGenerationTask(
    {"backbone": "dinov3_vits16", "backbone_ckpt_path": str(asked.weights)},
    output_dir=f"{scratch.name}/embeddings",
    output_format="parquet_joint",
    embedding_pooling="cls",
    layers=[-1],
)


def embed() -> Vectors:
    """Vectors of all tiles, from the file that it wrote."""
    task._part_idx, task._part_dir = {"00": None}, {}  # else a second run would look for the first's parts
    trainer = Trainer(
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        precision="bf16-mixed" if asked.tuned else "32-true",
    )
    trainer.predict(task, loader, return_predictions=False)
    table = pd.read_parquet(Path(scratch.name) / "embeddings" / "layer_00" / "embeddings.parquet")
    places = (tuple(map(int, name.split("_"))) for name in table["file_id"])
    return {place: np.asarray(vector) for place, vector in zip(places, table["embedding"], strict=True)}


# its wrapper of DINOv3 puts the CLS token behind the patch tokens, where its pooling `cls` takes the first of all
note = "the token of the first patch, which its pooling `cls` takes for the CLS token"
serve(("torch", "terratorch", "torchgeo", "lightning", "transformers"), {"embed": embed}, note)
