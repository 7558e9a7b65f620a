"""DINOv3 as a function from tiles to vectors."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from rasterembed.errors import DataError
from rasterembed.model.checkpoints import find_checkpoint
from rasterembed.model.choice import Engine, LoadedEngine, ResolvedEngine, ResolvedModel, resolve_engine
from rasterembed.model.colours import Colours
from rasterembed.model.computation import Computation
from rasterembed.model.cuda import Download, Staging
from rasterembed.model.engines import engine_threads, load_network
from rasterembed.model.networks import Network
from rasterembed.model.openvino import SLICE, Exported
from rasterembed.model.processor import processor_name
from rasterembed.raster.radiometry import ResolvedRadiometry

_ON_DEVICE = {np.dtype(name) for name in ("uint8", "int8", "uint16", "int16", "float32")}
"""Pixel types sent as they are; wider ones are scaled first, in double precision."""

CUDA_BATCH = 256
"""Tiles that the network takes at a time on CUDA, if its memory lets it."""

_BYTES_A_VALUE, _BYTES_A_PIXEL = 40, 24
"""Working memory on CUDA by tokens' values and by pixels of a channel: an estimate, which `_halve` makes good."""

_FREE_SHARE = 0.5
"""Of a CUDA device's free memory, for the model to work in."""


class Pending:
    """Vectors that are being computed."""

    def __init__(self, future: Future[NDArray[np.float32] | Download | _Started]) -> None:
        self._future = future

    def result(self) -> NDArray[np.float32]:
        """Shape (n, dimensions), not normalised. Waits for them; raises what computing raised."""
        there = self._future.result()
        return there if isinstance(there, np.ndarray) else there.result()


class _Started:
    """Vectors of slices that the network has begun with."""

    def __init__(
        self,
        slices: list[tuple[Future[Tensor], Tensor | None]],
        pooled: Callable[[Tensor, Tensor | None], Tensor],
    ) -> None:
        self._slices = slices
        self._pooled = pooled

    @torch.inference_mode()
    def result(self) -> NDArray[np.float32]:
        """Shape (n, dimensions); waits for them."""
        return torch.cat([self._pooled(tokens.result(), mask) for tokens, mask in self._slices]).numpy()


class Embedder:
    """A loaded model. Threads may share it: a thread of its own computes, one batch after the other.

    Args:
        model: what to load; the weights must have the digest it says.
        device: name in PyTorch.
        token: access token for gated weights.
        engine: what computes.

    Raises:
        DataError: if the weights are others than the model says, do not load, or do not bear the dtype or engine.
    """

    def __init__(
        self, model: ResolvedModel, device: str, token: str | None = None, engine: ResolvedEngine = "eager"
    ) -> None:
        checkpoint = find_checkpoint(model.id, model.revision, token)
        if checkpoint.weights_sha256 != model.weights_sha256:
            raise DataError(
                f"model {model.id!r} has other weights here ({checkpoint.weights_sha256[:12]}) than the "
                f"dataset was planned with ({model.weights_sha256[:12]})"
            )
        self.model = model
        self._checkpoint = checkpoint
        self._device = torch.device(device)
        self._staging = Staging(self._device) if self._device.type == "cuda" else None
        self._known_colours: dict[ResolvedRadiometry | None, Colours] = {}
        # PyTorch has a pool of threads for each thread that calls it, and CUDA graphs belong to the one that made them
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="model")
        loaded, self._network = self._thread.submit(self._load, engine).result()
        self.computation = Computation(
            engine=loaded,
            device=self._device.type,
            threads=engine_threads(),
            processor=processor_name() if self._staging is None else torch.cuda.get_device_name(self._device),
        )
        """What computes the vectors."""
        self._slice = self._fitting()
        """Tiles that the network takes at a time."""

    @property
    def engine(self) -> LoadedEngine:
        """The engine that runs the model."""
        return self.computation.engine

    @torch.inference_mode()
    def _load(self, engine: ResolvedEngine) -> tuple[LoadedEngine, Network]:
        return load_network(self._checkpoint, self.model, self._device, engine)

    def embed(
        self, pixels: NDArray[np.generic], valid: NDArray[np.bool_], radiometry: ResolvedRadiometry
    ) -> NDArray[np.float32]:
        """Vectors of tiles.

        Args:
            pixels: source values, shape (n, 1 or 3, size, size).
            valid: valid pixels, shape (n, size, size). The others are painted with the checkpoint's mean colour.
            radiometry: how values become colour.

        Returns:
            Shape (n, dimensions), not normalised.
        """
        return self.submit(pixels, valid, radiometry).result()

    def submit(self, pixels: NDArray[np.generic], valid: NDArray[np.bool_], radiometry: ResolvedRadiometry) -> Pending:
        """As `embed`, without waiting; the arrays must stay as they are until the result is there."""
        return Pending(self._thread.submit(self._embed, pixels, valid, radiometry))

    @torch.inference_mode()
    def _embed(
        self, pixels: NDArray[np.generic], valid: NDArray[np.bool_], radiometry: ResolvedRadiometry
    ) -> NDArray[np.float32] | Download | _Started:
        if pixels.dtype in _ON_DEVICE:
            colours = self._colours(radiometry)
        else:
            pixels, colours = radiometry.scaled(pixels).astype(np.float32), self._colours(None)
        values = self._upload(pixels)
        mask = None if valid.all() else self._upload(valid)
        if isinstance(self._network, Exported):  # the next batch is begun with before this one is done
            firsts = range(0, len(values), self._slice)
            masks = [None if mask is None else mask[first : first + self._slice] for first in firsts]
            images = self._images(values, mask, colours, 0)
            return _Started(list(zip(map(self._network.start, images), masks, strict=True)), self._pooled)
        vectors: list[Tensor] = []
        done = 0
        while done < len(pixels):
            try:
                for tokens in self._network.map(self._images(values, mask, colours, done), self._slice):
                    count = len(tokens)
                    vectors.append(self._pooled(tokens, None if mask is None else mask[done : done + count]))
                    done += count
            except torch.OutOfMemoryError as error:
                self._halve(error)
        whole = torch.cat(vectors)
        return Download(whole) if self._staging else whole.cpu().numpy()

    def _upload(self, array: NDArray[Any]) -> Tensor:
        return self._staging.upload(array) if self._staging else torch.from_numpy(array).to(self._device)

    def _images(self, values: Tensor, mask: Tensor | None, colours: Colours, first: int) -> Iterator[Tensor]:
        """Images of the tiles from the `first`, in slices."""
        for begin in range(first, len(values), self._slice):
            here = slice(begin, begin + self._slice)
            yield colours.images(values[here], None if mask is None else mask[here], self.model.input_size)

    def _pooled(self, tokens: Tensor, mask: Tensor | None) -> Tensor:
        """Tokens as the network gives them to vectors, shape (n, dimensions); patches weigh by their valid pixels."""
        cls, patches = tokens[:, 0], tokens[:, 1:]
        if self.model.pooling == "cls":
            return cls.clone()  # the network may use the memory again
        if mask is None:
            mean = patches.mean(dim=1)
        else:
            side = self.model.input_size // self._checkpoint.token_side
            share = functional.adaptive_avg_pool2d(mask[:, None].float(), (side, side)).flatten(1)[:, :, None]
            mean = (patches * share).sum(dim=1) / share.sum(dim=1)
        return mean if self.model.pooling == "mean" else torch.cat([cls, mean], dim=1)

    def _colours(self, radiometry: ResolvedRadiometry | None) -> Colours:
        """For values as the radiometry has them, or scaled already."""
        if radiometry not in self._known_colours:  # copied to the device once, for that waits for it
            low, high = (radiometry.low, radiometry.high) if radiometry else ((0.0,) * 3, (1.0,) * 3)
            self._known_colours[radiometry] = Colours(low, high, self.model.mean, self.model.std, self._device)
        return self._known_colours[radiometry]

    def _fitting(self) -> int:
        """Tiles that the network takes at a time: on CUDA by the memory that is free, elsewhere few, for the caches."""
        if self._device.type != "cuda":
            return SLICE
        free, _ = torch.cuda.mem_get_info(self._device)
        side = self.model.input_size
        tokens = (side // self._checkpoint.token_side) ** 2 + self._checkpoint.prefix_tokens
        tile = tokens * self._checkpoint.hidden_size * _BYTES_A_VALUE + 3 * side * side * _BYTES_A_PIXEL
        return max(1, min(CUDA_BATCH, int(free * _FREE_SHARE) // tile))

    def _halve(self, error: torch.OutOfMemoryError) -> None:
        """Go on with half as many tiles at a time, for good.

        Raises:
            DataError: if one was too many.
        """
        if self._slice == 1:
            raise DataError(
                f"model {self.model.name!r} needs more memory than {self._device} has free for one tile of "
                f"{self.model.input_size} px: take a smaller input_size or model, or end what else uses the device"
            ) from error
        self._slice //= 2
        if self._device.type == "cuda":
            torch.cuda.empty_cache()


_loaded: dict[tuple[str, str, str], Embedder] = {}
_loading = threading.Lock()


def load_embedder(
    model: ResolvedModel, device: str, token: str | None = None, *, engine: Engine = "eager", tiles: int = 0
) -> Embedder:
    """The process's one embedder for a model on a device, loaded on first use.

    Args:
        model: what to load.
        device: name in PyTorch.
        token: access token for gated weights.
        engine: what computes; see `rasterembed.model.choice.resolve_engine`.
        tiles: planned in the whole dataset, which decides whether `auto` looks for more than eager.

    Raises:
        UsageError: if the engine is not there, or not for the device or dtype.
        DataError: see `Embedder`.
    """
    how = resolve_engine(engine, device, model.dtype, tiles)
    key = (model.model_dump_json(), device, how)
    with _loading:
        if key not in _loaded:
            _loaded.clear()  # one model a process: the last dataset's makes room
            _loaded[key] = Embedder(model, device, token, how)
        return _loaded[key]
