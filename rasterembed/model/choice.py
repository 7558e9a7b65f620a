"""The choice of model, device, dtype and engine. Functions replace each `auto` by an actual value.

This module uses PyTorch only to find devices. A process without PyTorch can therefore plan a run for other processes.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from rasterembed.errors import UsageError
from rasterembed.model.checkpoints import DEMO, find_checkpoint
from rasterembed.model.normalisation import Deviation, Mean, StoredDeviation, StoredMean
from rasterembed.options_model import OptionsModel
from rasterembed.slow_imports import collector_paused

Pooling = Literal["cls", "mean", "cls+mean"]
"""How tokens become a vector.

`cls` takes the CLS token. `mean` takes the mean of the patch tokens, weighted by valid pixels. `cls+mean` takes both,
one after the other.
"""

Device = Literal["auto", "cpu", "cuda", "mps"]
"""Device that a user chooses. `auto` uses CUDA or MPS if PyTorch finds one of them, else the CPU."""

ComputeDtype = Literal["float32", "bfloat16", "float16"]
"""Data type of a model's computation.

Users reported that some DINOv3 checkpoints give wrong vectors in float16. Vectors are therefore checked when a model is
loaded.
"""

LoadedEngine = Literal["eager", "compile", "openvino"]
"""Engine that runs a model: PyTorch step by step, PyTorch with torch.compile, or OpenVINO."""

Engine = Literal["auto", LoadedEngine]
"""Engine that a user chooses. `auto` selects an engine by the device and the number of tiles."""

ResolvedEngine = Literal[LoadedEngine, "measure"]
"""Engine name, or `measure`: load the model first, then pick the fastest engine."""

AUTO_TILES = 1000
"""Smallest number of planned tiles for which `auto`, on a CPU, measures whether OpenVINO is faster than eager.

Exporting and measuring a ViT-S takes as long as embedding a few hundred tiles. After that, OpenVINO saves between a
tenth and a half of the time.
"""

AUTO_TILES_CUDA = 200_000
"""Smallest number of planned tiles for which `auto` uses torch.compile on CUDA.

On an H100, the compilation took 32 s for ViT-S and 35 s for ViT-L. The compiled model saved 0.05 and 0.2 ms a tile.
"""


class Dinov3(OptionsModel):
    """Options for the DINOv3 model, and for how the model's tokens become a vector.

    Example:
        >>> Dinov3(model="facebook/dinov3-vits16-pretrain-lvd1689m", pooling="cls+mean").device
        'auto'
    """

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
        description="Side in px of the model's input. Tiles are resized to this side. The default is the tile's side.",
    )
    device: Device = Field(
        default="auto", description="Device that runs the model; auto: CUDA or MPS if present, else the CPU."
    )
    dtype: Literal["auto", ComputeDtype] = Field(
        default="auto",
        description="Data type of the model's computation; auto: bfloat16 on CUDA, float32 on other devices.",
    )
    mean: Mean | None = Field(
        default=None,
        description="Mean of red, green and blue for normalising colours from 0 to 1, such as 0.430,0.411,0.296. "
        "The default is the checkpoint's mean.",
    )
    std: Deviation | None = Field(
        default=None,
        description="Standard deviation of red, green and blue for normalising colours from 0 to 1, such as "
        "0.213,0.156,0.143. The default is the checkpoint's standard deviation.",
    )


class ResolvedModel(BaseModel):
    """The model of a plan, with all its settings that change the vectors. Fingerprint and receipts contain them."""

    model_config = ConfigDict(frozen=True)

    id: str
    """Hub id, absolute path of a folder, or `demo`."""
    name: str
    """Name in reports: the id, or `demo (untrained)`."""
    revision: str | None
    """Commit of the hub's repository; None for folders and the demo model."""
    weights_sha256: str
    """SHA-256 digest of the weights. See `Checkpoint.weights_sha256`."""
    pooling: Pooling
    """How tokens become a vector."""
    dtype: ComputeDtype
    """Data type of the model's computation."""
    input_size: int
    """Side of the model's input in px."""
    dimensions: int
    """Length of a vector."""
    mean: tuple[StoredMean, StoredMean, StoredMean]
    """Mean of red, green and blue in 0..1, for normalising images."""
    std: tuple[StoredDeviation, StoredDeviation, StoredDeviation]
    """Standard deviation of red, green and blue in 0..1, for normalising images."""


def resolve_device(device: Device) -> str:
    """Return the name of the device in PyTorch.

    Raises:
        UsageError: If PyTorch does not find the device.
    """
    available = {"cpu": True, "cuda": False, "mps": False}
    if device != "cpu" and find_spec("torch"):
        with collector_paused():
            import torch

        available["cuda"] = torch.cuda.is_available()
        available["mps"] = torch.backends.mps.is_available()
    if device == "auto":
        return next(name for name in ("cuda", "mps", "cpu") if available[name])
    if not available[device]:
        raise UsageError(f"device {device!r} is not available to PyTorch here: use auto or cpu")
    return device


def resolve_model(choice: Dinov3, tile_size: int, token: str | None = None) -> ResolvedModel:
    """Find the checkpoint, and replace every `auto` and default by an actual value. The weights are not loaded.

    Args:
        choice: The user's options for the model.
        tile_size: Side of the tiles in px. If `choice.input_size` is None, this is also the side of the model's input.
        token: Access token for gated weights. See `find_checkpoint`.

    Raises:
        UsageError: If the input side does not fit the model, or if PyTorch does not find the device.
        DataError: If the checkpoint is missing or broken, or if it cannot be downloaded.

    Example:
        >>> resolve_model(Dinov3(pooling="cls+mean", device="cpu"), tile_size=224).dimensions
        384
    """
    # PyTorch takes seconds to import, and a wrong name or folder is found without it.
    checkpoint = find_checkpoint(choice.model, choice.revision, token)
    device = resolve_device(choice.device)
    dtype: ComputeDtype = "float32"
    if choice.dtype != "auto":
        dtype = choice.dtype
    elif device == "cuda":
        dtype = "bfloat16"
    side = choice.input_size or tile_size
    if side % checkpoint.token_side:
        raise UsageError(
            f"the model's input is {side} px a side, but {choice.model} takes multiples of "
            f"{checkpoint.token_side} px: change the tile size (`size`) or set `input_size`"
        )
    normalisation = checkpoint.normalisation.replaced(choice.mean, choice.std)
    dimensions = checkpoint.hidden_size * (2 if choice.pooling == "cls+mean" else 1)
    return ResolvedModel(
        id=checkpoint.name,
        name="demo (untrained)" if checkpoint.name == DEMO else checkpoint.name,
        revision=checkpoint.revision,
        weights_sha256=checkpoint.weights_sha256,
        pooling=choice.pooling,
        dtype=dtype,
        input_size=side,
        dimensions=dimensions,
        mean=normalisation.mean,
        std=normalisation.std,
    )


def has_openvino() -> bool:
    """Return True if OpenVINO is installed. OpenVINO is not imported."""
    return find_spec("openvino") is not None


def resolve_engine(engine: Engine, device: str, dtype: ComputeDtype, tiles: int) -> ResolvedEngine:
    """Return the engine for a run, or `measure` if only a measurement of the loaded model can tell the fastest engine.

    Args:
        engine: The engine that the user chose.
        device: Name of the device in PyTorch.
        dtype: Data type of the model's computation.
        tiles: Number of planned tiles in the whole dataset. Do not give the number of missing tiles: a resumed run must
            get the same engine as the first run.

    Raises:
        UsageError: If the engine is not installed, or if it does not support the device or the dtype.
    """
    if engine == "openvino":
        if device != "cpu":
            raise UsageError(f"engine openvino runs on the CPU, not on {device}: use eager or compile")
        if dtype == "float16":
            raise UsageError("engine openvino does not compute in float16: use another dtype, or eager")
        if not has_openvino():
            raise UsageError("engine openvino needs OpenVINO, which is not installed: pip install openvino")
    if engine != "auto":
        return engine
    if device == "cpu":
        return "measure" if dtype != "float16" and tiles >= AUTO_TILES and has_openvino() else "eager"
    return "compile" if device == "cuda" and tiles >= AUTO_TILES_CUDA else "eager"
