"""Which DINOv3 a run uses, and how its tokens become a vector: the choice, and what it resolves to.

PyTorch is asked only what devices there are, so that a process without it can plan a run for others.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from rasterembed.errors import UsageError
from rasterembed.model.checkpoints import DEMO, find_checkpoint

Pooling = Literal["cls", "mean", "cls+mean"]
Device = Literal["auto", "cpu", "cuda", "mps"]
ComputeDtype = Literal["float32", "bfloat16", "float16"]
"""float16 is checked when the model is loaded, for some DINOv3 checkpoints are reported to give wrong vectors in it."""

LoadedEngine = Literal["eager", "compile", "openvino"]
"""What computes a model: PyTorch step by step, PyTorch compiled by torch.compile, or OpenVINO."""

Engine = Literal["auto", LoadedEngine]
"""Engine that a user asks for. `auto` takes one that suits the device and the number of tiles."""

ResolvedEngine = Literal[LoadedEngine, "measure"]
"""Engine name, or `measure`: load the model first, then pick the fastest engine."""

AUTO_TILES = 1000
"""Number of planned tiles from which `auto` measures other engines than eager on a CPU.

Exporting and measuring a ViT-S takes as long as some hundred tiles, and saves a tenth to a half of the time of each.
"""

AUTO_TILES_CUDA = 50_000
"""Number of planned tiles from which `auto` compiles on CUDA.

Compiling takes minutes, and saves less than half of the time of each tile.
"""


class Dinov3(BaseModel):
    """Which DINOv3, and how its tokens become a vector."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str = Field(
        default=DEMO,
        min_length=1,
        description="Hub id of a DINOv3 checkpoint, a local folder, or demo (small and untrained).",
    )
    revision: str | None = Field(default=None, description="Branch, tag or commit on the hub.")
    pooling: Pooling = Field(
        default="cls",
        description="The CLS token, the mean of the patch tokens weighted by valid pixels, or both.",
    )
    input_size: int | None = Field(
        default=None,
        ge=16,
        le=4096,
        multiple_of=16,
        description="Side in px that tiles are resized to before the model; by default the tile's own.",
    )
    device: Device = Field(default="auto", description="Where the model runs.")
    dtype: Literal["auto", ComputeDtype] = Field(
        default="auto",
        description="Type the model computes in; auto: bfloat16 on CUDA, float32 elsewhere.",
    )


class ResolvedModel(BaseModel):
    """The model as it stands in fingerprints and receipts."""

    model_config = ConfigDict(frozen=True)

    id: str
    """Hub id, absolute path of a folder, or `demo`."""
    name: str
    """What reports call it: the id, or `demo (untrained)`."""
    revision: str | None
    weights_sha256: str
    pooling: Pooling
    dtype: ComputeDtype
    """Type the model computes in."""
    input_size: int
    """Side in px of the model's input."""
    dimensions: int
    """Length of a vector."""
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


def resolve_device(device: Device) -> str:
    """The device's name in PyTorch.

    Raises:
        UsageError: if it is not there.
    """
    there = {"cpu": True, "cuda": False, "mps": False}
    if device != "cpu" and find_spec("torch"):
        import torch

        there["cuda"] = torch.cuda.is_available()
        there["mps"] = torch.backends.mps.is_available()
    if device == "auto":
        return next(name for name in ("cuda", "mps", "cpu") if there[name])
    if not there[device]:
        raise UsageError(f"device {device!r} is not available to PyTorch here: use auto or cpu")
    return device


def resolve_model(asked: Dinov3, tile_size: int, token: str | None = None) -> ResolvedModel:
    """Find the checkpoint and settle every choice, without loading the weights.

    Raises:
        UsageError: if the input side does not fit the model, or the device is not there.
        DataError: if the checkpoint cannot be had.
    """
    device = resolve_device(asked.device)
    dtype: ComputeDtype = "float32"
    if asked.dtype != "auto":
        dtype = asked.dtype
    elif device == "cuda":
        dtype = "bfloat16"
    checkpoint = find_checkpoint(asked.model, asked.revision, token)
    side = asked.input_size or tile_size
    if side % checkpoint.token_side:
        raise UsageError(
            f"the model's input is {side} px a side, but {asked.model} takes multiples of "
            f"{checkpoint.token_side}: set the tile size or input_size to one"
        )
    dimensions = checkpoint.hidden_size * (2 if asked.pooling == "cls+mean" else 1)
    return ResolvedModel(
        id=checkpoint.name,
        name="demo (untrained)" if checkpoint.name == DEMO else checkpoint.name,
        revision=checkpoint.revision,
        weights_sha256=checkpoint.weights_sha256,
        pooling=asked.pooling,
        dtype=dtype,
        input_size=side,
        dimensions=dimensions,
        mean=checkpoint.mean,
        std=checkpoint.std,
    )


def has_openvino() -> bool:
    """Return whether OpenVINO is installed, without importing it."""
    return find_spec("openvino") is not None


def resolve_engine(engine: Engine, device: str, dtype: ComputeDtype, tiles: int) -> ResolvedEngine:
    """Resolve the engine as far as possible before a model is loaded.

    Args:
        engine: The engine that the user asked for.
        device: Name of the device in PyTorch.
        dtype: Type the model computes in.
        tiles: Number of tiles planned in the whole dataset. It is not the number still to compute, because a run that
            resumes another must resolve to the same engine.

    Raises:
        UsageError: If the engine is not installed, or does not support the device or the dtype.
    """
    if engine == "openvino":
        if device != "cpu":
            raise UsageError(f"engine openvino runs on the CPU, not on {device}: use eager or compile")
        if dtype == "float16":
            raise UsageError("engine openvino does not compute in float16: use another dtype, or eager")
        if not has_openvino():
            raise UsageError("engine openvino needs OpenVINO: pip install 'raster-embeddings[openvino]'")
    if engine != "auto":
        return engine
    if device == "cpu":
        return "measure" if dtype != "float16" and tiles >= AUTO_TILES and has_openvino() else "eager"
    return "compile" if device == "cuda" and tiles >= AUTO_TILES_CUDA else "eager"
