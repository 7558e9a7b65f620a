"""DINOv3 as a function from tiles to vectors, by Hugging Face transformers."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import torch
import transformers
from numpy.typing import NDArray
from torch.nn import functional

from rasterembed.checkpoints import Checkpoint, find_checkpoint
from rasterembed.errors import DataError
from rasterembed.model import ResolvedModel
from rasterembed.radiometry import ResolvedRadiometry

_ON_DEVICE = {np.dtype(name) for name in ("uint8", "int8", "uint16", "int16", "float32")}
"""Pixel types sent as they are; wider ones are scaled first, in double precision."""

MIN_COSINE = 0.999
"""Cosine to the float32 vector below which float16 is refused."""


class Embedder:
    """A loaded model. Threads may share it: one at a time holds the device.

    Args:
        model: what to load; the weights must have the digest it says.
        device: name in PyTorch.
        token: access token for gated weights.

    Raises:
        DataError: if the weights are others than the model says, do not load, or do not bear the dtype.
    """

    def __init__(self, model: ResolvedModel, device: str, token: str | None = None) -> None:
        checkpoint = find_checkpoint(model.id, model.revision, token)
        if checkpoint.weights_sha256 != model.weights_sha256:
            raise DataError(
                f"model {model.id!r} has other weights here ({checkpoint.weights_sha256[:12]}) than the "
                f"dataset was planned with ({model.weights_sha256[:12]})"
            )
        self.model = model
        self._checkpoint = checkpoint
        self._device = torch.device(device)
        self._network = _load(checkpoint).to(self._device)
        self._mean = self._channels(model.mean)
        self._std = self._channels(model.std)
        self._lock = threading.Lock()
        if model.dtype == "float16":
            self._check_float16()

    def _check_float16(self) -> None:
        """Compare the vectors of noise with those in float32: activations may leave float16's range."""
        side = self.model.input_size
        noise = torch.randn((2, 3, side, side), generator=torch.Generator().manual_seed(0)).to(self._device)
        valid = np.ones((2, side, side), dtype=bool)
        with torch.inference_mode():
            half, exact = (self._vectors(noise, valid, dtype) for dtype in ("float16", "float32"))
        cosine = float(functional.cosine_similarity(half, exact).min())
        if not cosine >= MIN_COSINE:  # NaN too
            raise DataError(
                f"model {self.model.name!r} gives other vectors in float16 than in float32 (cosine {cosine:.4f}): "
                "use dtype bfloat16 or float32"
            )

    def _channels(self, values: tuple[float, ...]) -> torch.Tensor:
        return torch.tensor(values, dtype=torch.float32, device=self._device).view(1, -1, 1, 1)

    def embed(
        self,
        pixels: NDArray[np.generic],
        valid: NDArray[np.bool_],
        radiometry: ResolvedRadiometry,
    ) -> NDArray[np.float32]:
        """Vectors of tiles.

        Args:
            pixels: source values, shape (n, 1 or 3, size, size).
            valid: valid pixels, shape (n, size, size). The others are painted with the checkpoint's mean colour.
            radiometry: how values become colour.

        Returns:
            Shape (n, dimensions), not normalised.
        """
        with self._lock, torch.inference_mode():
            images = self._images(pixels, valid, radiometry)
            vectors: NDArray[np.float32] = self._vectors(images, valid, self.model.dtype).cpu().numpy()
        return vectors

    def _vectors(self, images: torch.Tensor, valid: NDArray[np.bool_], dtype: str) -> torch.Tensor:
        """Pooled tokens of normalised images, computed in `dtype`, shape (n, dimensions), float32."""
        autocast = torch.autocast(self._device.type, dtype=getattr(torch, dtype), enabled=dtype != "float32")
        with autocast:  # keeps the rotary embedding in float32, which DINOv3 needs
            output = self._network(pixel_values=images)
        parts = []
        if self.model.pooling != "mean":
            parts.append(output.pooler_output.float())
        if self.model.pooling != "cls":
            tokens = output.last_hidden_state[:, self._checkpoint.prefix_tokens :].float()
            parts.append(self._mean_token(tokens, valid))
        return torch.cat(parts, dim=1)

    def _images(
        self,
        pixels: NDArray[np.generic],
        valid: NDArray[np.bool_],
        radiometry: ResolvedRadiometry,
    ) -> torch.Tensor:
        """Normalised images on the device, shape (n, 3, side, side)."""
        low = np.array(radiometry.low).reshape(1, 3, 1, 1)
        span = np.array(radiometry.high).reshape(1, 3, 1, 1) - low
        if pixels.dtype in _ON_DEVICE:
            images = torch.from_numpy(pixels).to(self._device, non_blocking=True).float()
            images = (images - self._channels(tuple(low.ravel()))) / self._channels(tuple(span.ravel()))
        else:
            with np.errstate(over="ignore", invalid="ignore"):  # values of invalid pixels may be anything
                scaled = ((pixels - low) / span).astype(np.float32)
            images = torch.from_numpy(scaled).to(self._device)
        images = (images.clamp_(0.0, 1.0) - self._mean) / self._std
        if not valid.all():
            mask = torch.from_numpy(valid).to(self._device)[:, None]
            images = torch.where(mask, images, 0.0)
        side = self.model.input_size
        if images.shape[-1] != side:
            # after normalising, which is linear: the same as the processor's order, and invalid pixels stay neutral
            images = functional.interpolate(
                images, size=(side, side), mode="bilinear", align_corners=False, antialias=True
            )
        return images

    def _mean_token(self, tokens: torch.Tensor, valid: NDArray[np.bool_]) -> torch.Tensor:
        """Mean of patch tokens, shape (n, patches, d), weighted by the valid share of each patch."""
        side = self.model.input_size // self._checkpoint.token_side
        share = torch.from_numpy(valid).to(self._device)[:, None].float()
        weights = functional.adaptive_avg_pool2d(share, (side, side)).flatten(1)[:, :, None]
        return (tokens * weights).sum(dim=1) / weights.sum(dim=1)


def _load(checkpoint: Checkpoint) -> Any:
    transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # it would break up the run's own
    try:
        network, report = transformers.AutoModel.from_pretrained(
            checkpoint.folder,
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
            dtype=torch.float32,
            output_loading_info=True,
        )
    except Exception as error:  # transformers and safetensors raise many kinds for a damaged file
        raise DataError(
            f"model {checkpoint.name!r} does not load from {checkpoint.folder}: {' '.join(str(error).split())[:300]}"
        ) from error
    missing = sorted(key for key in report["missing_keys"] if "mask_token" not in key)
    if missing:  # transformers would draw them at random
        raise DataError(
            f"model {checkpoint.name!r}: the weights in {checkpoint.folder} lack {len(missing)} tensors of the model "
            f"that config.json describes (as {missing[0]}): get the checkpoint anew"
        )
    return network.eval()  # in training mode the rotary positions are jittered


_loaded: dict[tuple[str, str], Embedder] = {}
_loading = threading.Lock()


def load_embedder(model: ResolvedModel, device: str, token: str | None = None) -> Embedder:
    """The process's one embedder for a model on a device, loaded on first use; see `Embedder`."""
    key = (model.model_dump_json(), device)
    with _loading:
        if key not in _loaded:
            _loaded.clear()  # one model a process: the last dataset's makes room
            _loaded[key] = Embedder(model, device, token)
        return _loaded[key]
