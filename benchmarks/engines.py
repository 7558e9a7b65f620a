"""Compare engines, dtypes and batch sizes on the CPU with each other and with the speed of a matrix product.

Every case normalises and embeds the same uint8 tiles from memory. The cases take turns. Before a case is timed, its
vectors are compared with the vectors of plain transformers in float32.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.harness import (
    RESULTS,
    TINY,
    VIT_S16,
    Figure,
    figure,
    load,
    make_checkpoint,
    run,
    save,
    speed,
    spread,
    table,
    take_turns,
    where,
)
from examples.landscape import make_scene
from rasterembed.model.choice import ComputeDtype, Dinov3, ResolvedEngine, resolve_model
from rasterembed.model.embedder import Embedder
from rasterembed.model.engines import MIN_COSINE
from rasterembed.raster.radiometry import ResolvedRadiometry

NAME = "engines"

PLAIN = "transformers"
"""Name of the reference case: transformers' `AutoModel`, with autocast for bfloat16."""

_AS_IT_IS = ResolvedRadiometry(bands=(1, 2, 3), low=(0.0,) * 3, high=(255.0,) * 3, method="uint8")


def measure(
    *,
    size: int = 224,
    tiles: int = 32,
    batches: tuple[int, ...] = (1, 8, 32),
    dtypes: tuple[ComputeDtype, ...] = ("float32", "bfloat16"),
    engines: tuple[ResolvedEngine, ...] = ("eager", "openvino"),
    matmul: int = 2048,
    rounds: int = 3,
    tiny: bool = False,
    results: Path = RESULTS,
) -> dict[str, Any]:
    """Compare the engines.

    Args:
        size: Side of a tile, px.
        tiles: Number of tiles that a case embeds.
        batches: Batch sizes to compare.
        dtypes: Dtypes of the model's computation.
        engines: Engines to compare. `compile` needs a minute or more for each dtype before the first measurement.
        matmul: Side of two square matrices. The speed of their product is the limit of the machine.
        rounds: Number of measurements of each case.
        tiny: Use a tiny model, not a model of ViT-S/16's size, for a quick trial of the script.
        results: Folder for the result file.
    """
    parameters = dict(locals())
    from transformers import AutoModel  # Its import takes seconds, and the tests import this module in each process.

    load_before = load()
    threads = torch.get_num_threads()
    shape = TINY if tiny else VIT_S16
    pixels = _tiles(size, tiles)
    cases: dict[str, Callable[[], object]] = {}
    loaded: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as scratch:
        weights = make_checkpoint(Path(scratch) / "model", **shape)
        plain = partial(_plain, AutoModel.from_pretrained(weights).eval(), pixels)
        exact = plain(max(batches), "float32")
        for dtype in dtypes:
            _agree(plain(max(batches), dtype), exact, dtype)
            for batch in batches:
                cases[f"{PLAIN} {dtype} {batch}"] = partial(plain, batch, dtype)
            for engine in engines:
                begun = time.perf_counter()
                model = resolve_model(Dinov3(model=str(weights), dtype=dtype, device="cpu"), size)
                embedder = Embedder(model, "cpu", engine=engine)
                loaded[f"{engine} {dtype}"] = time.perf_counter() - begun
                _agree(_embed(embedder, pixels, max(batches)), exact, dtype)
                for batch in batches:
                    cases[f"{engine} {dtype} {batch}"] = partial(_embed, embedder, pixels, batch)
            cases[f"matmul {dtype}"] = partial(_multiply, torch.ones(matmul, matmul, dtype=getattr(torch, dtype)))
        times = take_turns(cases, rounds)
    work = flops(size=size, registers=4, **shape)
    limits: dict[str, Figure] = {
        dtype: speed(times.pop(f"matmul {dtype}"), _PRODUCTS * 2 * matmul**3 / work) for dtype in dtypes
    }
    speeds = {name: speed(turns, tiles) for name, turns in times.items()}
    return save(
        NAME,
        parameters,
        load_before,
        {
            "threads": threads,
            "gflop_per_tile": work / 1e9,
            "limit_tiles_per_s": limits,
            "tiles_per_s": speeds,
            "cpu_ms_per_tile": {n: figure([t.cpu / tiles * 1e3 for t in turns]) for n, turns in times.items()},
            "load_s": loaded,
            "share_of_limit": {n: s.median / limits[n.split()[1]].median for n, s in speeds.items()},
        },
        results,
    )


def flops(
    *,
    size: int,
    registers: int,
    hidden_size: int,
    intermediate_size: int,
    num_hidden_layers: int,
    num_attention_heads: int,
) -> float:
    """Return the number of additions and multiplications in the matrix products for one image.

    Args:
        size: side of the square image, px. Patches have 16 px.
        registers: number of register tokens.
        hidden_size: length of a token.
        intermediate_size: width of the MLP.
        num_hidden_layers: number of layers.
        num_attention_heads: number of heads. It does not change the result.
    """
    # The heads only divide the products. The number of heads does not change the sum.
    del num_attention_heads
    patches = (size // 16) ** 2
    tokens = patches + 1 + registers
    projections = 2 * tokens * (4 * hidden_size**2 + 2 * hidden_size * intermediate_size)
    attention = 4 * tokens**2 * hidden_size
    return num_hidden_layers * (projections + attention) + 2 * patches * 3 * 16**2 * hidden_size


_PRODUCTS = 4
"""Number of matrix products in one run."""


def _multiply(matrix: torch.Tensor) -> None:
    for _ in range(_PRODUCTS):
        matrix @ matrix


def _tiles(size: int, count: int) -> NDArray[np.uint8]:
    """Return tiles of a generated scene, shape (count, 3, size, size)."""
    import rasterio
    from rasterio.windows import Window

    across = int(np.ceil(count**0.5))
    with tempfile.TemporaryDirectory() as folder:
        raster = make_scene(Path(folder), width=across * size, height=across * size).raster
        with rasterio.open(raster) as dataset:
            corners = [divmod(number, across) for number in range(count)]
            return np.stack(
                [dataset.read((1, 2, 3), window=Window(c * size, r * size, size, size)) for r, c in corners]
            )


@torch.inference_mode()
def _plain(network: Any, pixels: NDArray[np.uint8], batch: int, dtype: str) -> NDArray[np.float32]:
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    vectors = []
    for first in range(0, len(pixels), batch):
        images = (torch.from_numpy(pixels[first : first + batch]).float() / 255 - mean) / std
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == "bfloat16"):
            vectors.append(network(pixel_values=images).pooler_output.float())
    return torch.cat(vectors).numpy()


def _embed(embedder: Embedder, pixels: NDArray[np.uint8], batch: int) -> NDArray[np.float32]:
    valid = np.ones((batch, *pixels.shape[2:]), dtype=bool)
    pending = [
        embedder.submit(part, valid[: len(part)], _AS_IT_IS)
        for part in (pixels[first : first + batch] for first in range(0, len(pixels), batch))
    ]
    return np.concatenate([vectors.result() for vectors in pending])


def _agree(found: NDArray[np.float32], exact: NDArray[np.float32], dtype: ComputeDtype) -> None:
    norms = np.linalg.norm(found, axis=1) * np.linalg.norm(exact, axis=1)
    cosine = ((found * exact).sum(axis=1) / norms).min()
    assert cosine >= MIN_COSINE[dtype], (dtype, cosine)


def markdown(report: dict[str, Any]) -> str:
    """Return the result as a Markdown table."""
    batches = report["parameters"]["batches"]
    kinds = list(dict.fromkeys(name.rsplit(" ", 1)[0] for name in report["tiles_per_s"]))
    rows = []
    for kind in kinds:
        names = [f"{kind} {batch}" for batch in batches]
        best = max(names, key=lambda name: report["tiles_per_s"][name]["median"])
        rows.append(
            [
                kind.replace(" ", ", "),
                *(spread(report["tiles_per_s"][name]) for name in names),
                f"{report['cpu_ms_per_tile'][best]['median']:.1f}",
                f"{report['share_of_limit'][best]:.2f}",
                f"{report['load_s'][kind]:.1f}" if kind in report["load_s"] else "",
            ]
        )
    for dtype, limit in report["limit_tiles_per_s"].items():
        rows.append([f"limit: matmul, {dtype}", *[""] * (len(batches) - 1), spread(limit), "", "1", ""])
    head = [
        "what computes",
        *(f"batch {batch}, tiles/s" for batch in batches),
        "CPU ms a tile",
        "of the limit",
        "load, s",
    ]
    return f"{report['threads']} threads on {where(report)}" + table(head, rows)


if __name__ == "__main__":
    run(measure, markdown)
