"""Measure the speed of the model and of copies to a GPU, and compare the model with a matrix product.

python benchmarks/gpu.py [--shape s|b|l] [--batch 256] [--size 224] [--seconds 5]

The script needs PyTorch, transformers and NumPy. It runs without rasterio and pydantic, because it imports only
modules of the library that do not need these packages.

The script prints one JSON object with medians of interleaved rounds:

- images per second, for uint8 tiles that are already on the device;
- images per second, for tiles that are copied from ordinary memory through page-locked buffers;
- TFLOP/s of a matrix product in bfloat16.

Without a CUDA device, the script prints an error and exits with status 2.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import DINOv3ViTConfig, DINOv3ViTModel

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))

from rasterembed.model.colours import Colours
from rasterembed.model.cuda import DeviceCopy, Staging
from rasterembed.model.folded_vit import FoldedViT
from rasterembed.model.networks import CompiledNetwork, EagerNetwork, TransformersNetwork

SHAPES: dict[str, dict[str, int]] = {
    "s": {"hidden_size": 384, "intermediate_size": 1536, "num_hidden_layers": 12, "num_attention_heads": 6},
    "b": {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12},
    "l": {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16},
}
"""Configurations with the sizes of DINOv3 ViT-S/16, B/16 and L/16."""

ROUNDS = 5


def measure(shape: str, batch: int, size: int, seconds: float) -> dict[str, Any]:
    """Measure the first CUDA device.

    Args:
        shape: size of the model, a key of `SHAPES`.
        batch: number of images in a batch.
        size: side of an image, px.
        seconds: total time for each case, in all rounds together.
    """
    device = torch.device("cuda", 0)
    torch.manual_seed(0)
    own = DINOv3ViTModel(DINOv3ViTConfig(num_register_tokens=4, **SHAPES[shape])).eval().to(device)
    colours = Colours((0.0,) * 3, (255.0,) * 3, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), device)
    folded = FoldedViT(own, size, patches=False, dtype=torch.bfloat16).to(device)
    networks: dict[str, EagerNetwork | CompiledNetwork] = {
        "transformers autocast": EagerNetwork(TransformersNetwork(own, 5, patches=False, dtype=torch.bfloat16)),
        "folded eager": EagerNetwork(folded),
        "folded compiled": CompiledNetwork(folded, device),
    }
    tiles = np.random.default_rng(0).integers(0, 256, (batch, 3, size, size), dtype=np.uint8)
    on_device = torch.from_numpy(tiles).to(device)
    exact = TransformersNetwork(own, 5, patches=False)(colours.images(on_device[:8], None, size))
    staging = Staging(device)

    def from_device(network: EagerNetwork | CompiledNetwork, count: int) -> None:
        images = (colours.images(on_device, None, size) for _ in range(count))
        for tokens in network.map(images, batch):
            last = tokens
        del last

    def from_host(network: EagerNetwork | CompiledNetwork, count: int) -> None:
        def images() -> Iterator[torch.Tensor]:
            for _ in range(count):
                yield colours.images(staging.upload(tiles), None, size)

        waiting: list[DeviceCopy] = []
        for tokens in network.map(images(), batch):
            waiting.append(DeviceCopy(tokens[:, 0].clone()))
            if len(waiting) > 1:
                waiting.pop(0).result()
        waiting.pop().result()

    matrix = torch.randn(8192, 8192, dtype=torch.bfloat16, device=device)

    def multiply(count: int) -> None:
        for _ in range(count):
            matrix @ matrix

    cases: dict[str, tuple[Callable[[int], None], float]] = {"matmul TFLOP/s": (multiply, 2 * 8192**3 / 1e12)}
    cosines = {}
    for name, network in networks.items():
        found = next(iter(network.map([colours.images(on_device[:8], None, size)], 8)))
        cosines[name] = float(torch.cosine_similarity(found.float(), exact, dim=-1).min())
        cases[f"{name}, from the device, images/s"] = partial(from_device, network), batch
        cases[f"{name}, from memory, images/s"] = partial(from_host, network), batch
    counts = {name: _count(case, seconds / ROUNDS) for name, (case, _) in cases.items()}
    rates: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(ROUNDS):
        for name, (case, worth) in cases.items():
            rates[name].append(counts[name] * worth / _time(case, counts[name]))
    return {
        "device": torch.cuda.get_device_name(device),
        "torch": torch.__version__,
        "shape": shape,
        "batch": batch,
        "size": size,
        "cosine_to_float32": cosines,
        "median": {name: statistics.median(values) for name, values in rates.items()},
        "rounds": rates,
    }


def _count(case: Callable[[int], None], seconds: float) -> int:
    """Return the number of repetitions that take about `seconds`. Compile and warm up the case first."""
    for _ in range(3):
        once = _time(case, 2) / 2
    return max(1, round(seconds / once))


def _time(case: Callable[[int], None], count: int) -> float:
    torch.cuda.synchronize()
    begun = time.perf_counter()
    case(count)
    torch.cuda.synchronize()
    return time.perf_counter() - begun


def main() -> int:
    """Run the benchmark as a command, and return its exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=sorted(SHAPES), default="s")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--seconds", type=float, default=5.0, help="total time for each case, in all rounds together")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        print("benchmarks/gpu.py: PyTorch finds no CUDA device on this machine", file=sys.stderr)
        return 2
    with torch.inference_mode():
        print(json.dumps(measure(options.shape, options.batch, options.size, options.seconds), indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
