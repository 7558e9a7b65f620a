"""The embedder: a loaded DINOv3 model that turns tiles into vectors."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache
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
from rasterembed.model.cuda import DeviceCopy, Staging
from rasterembed.model.engines import engine_threads, load_network
from rasterembed.model.networks import SLICE, Network
from rasterembed.model.openvino import OpenVinoNetwork
from rasterembed.model.processor import processor_name
from rasterembed.raster.radiometry import ResolvedRadiometry

_SCALED_ON_DEVICE = {np.dtype(name) for name in ("uint8", "int8", "uint16", "int16", "float32")}
"""Pixel types that the device scales in float32. Pixels of wider types are scaled in float64 before the upload."""

CUDA_BATCH = 256
"""Largest number of tiles that the network computes together on CUDA."""

_BYTES_PER_TOKEN_VALUE, _BYTES_PER_CHANNEL_PIXEL = 40, 24
"""Estimated working memory on CUDA: bytes for each number in a token, and bytes for each pixel of a channel."""

_FREE_SHARE = 0.5
"""Share of a CUDA device's free memory that the model may use."""


@cache
def _cuda_thread() -> ThreadPoolExecutor:
    """Return the thread that loads all models of this process on CUDA, and computes their vectors.

    Only the thread that compiled a model can replay its CUDA graphs, and after the first model, PyTorch compiles for
    no other thread.
    """
    return ThreadPoolExecutor(1, thread_name_prefix="model")


class Pending:
    """Vectors that are being computed. `Embedder.submit` returns this object."""

    def __init__(self, future: Future[NDArray[np.float32] | DeviceCopy | _StartedSlices]) -> None:
        self._future = future

    def result(self) -> NDArray[np.float32]:
        """Wait for the vectors and return them, shape (n, dimensions), not normalised.

        Raises:
            Exception: The exception that the computation raised, if it failed.
        """
        computed = self._future.result()
        return computed if isinstance(computed, np.ndarray) else computed.result()


class _StartedSlices:
    """Vectors of slices that OpenVINO is computing.

    Args:
        slices: One pair for each slice: a future of the tokens, and a mask that is True where a pixel is valid. The
            mask is None if all pixels of the slice are valid.
        pool: Function that turns the tokens and the mask of a slice into vectors.
    """

    def __init__(
        self,
        slices: list[tuple[Future[Tensor], Tensor | None]],
        pool: Callable[[Tensor, Tensor | None], Tensor],
    ) -> None:
        self._slices = slices
        self._pool = pool

    @torch.inference_mode()
    def result(self) -> NDArray[np.float32]:
        """Wait for the vectors and return them, shape (n, dimensions)."""
        return torch.cat([self._pool(tokens.result(), mask) for tokens, mask in self._slices]).numpy()


def _cpu_name() -> str:
    """Return the CPU's name and the instruction set that PyTorch uses, such as `AMD EPYC (AVX512)`.

    A virtual machine often hides the CPU's full name. The instruction set can then still show a difference.
    """
    return f"{processor_name()} ({torch.backends.cpu.get_cpu_capability()})"


class Embedder:
    """A loaded model that turns tiles into vectors.

    Several threads may share an embedder. All batches are computed one after the other in one thread.

    Args:
        model: The model to load. See `resolve_model`. The weights must have the digest `model.weights_sha256`.
        device: Name of the device in PyTorch. See `resolve_device`.
        token: Access token for gated weights.
        engine: The engine that runs the model, or `measure` to use the fastest engine.

    Raises:
        DataError: If the weights are missing, do not load or have another digest, or if the engine's vectors differ
            from the vectors of transformers' network in float32.

    Example:
        >>> import numpy as np
        >>> from rasterembed.model.choice import Dinov3, resolve_model
        >>> from rasterembed.raster.radiometry import ResolvedRadiometry
        >>> radiometry = ResolvedRadiometry(bands=(1, 2, 3), low=(0, 0, 0), high=(255, 255, 255), method="uint8")
        >>> embedder = Embedder(resolve_model(Dinov3(device="cpu"), tile_size=64), "cpu")
        >>> pixels = np.zeros((2, 3, 64, 64), dtype=np.uint8)
        >>> valid = np.ones((2, 64, 64), dtype=bool)
        >>> embedder.embed(pixels, valid, radiometry).shape
        (2, 192)
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
        """The model that is loaded."""
        self._checkpoint = checkpoint
        self._device = torch.device(device)
        self._staging = Staging(self._device) if self._device.type == "cuda" else None
        self._colours: dict[ResolvedRadiometry | None, Colours] = {}
        # One thread loads the model and computes everything. If several threads called PyTorch, each of them would get
        # its own pool of threads.
        self._thread = _cuda_thread() if self._staging else ThreadPoolExecutor(1, thread_name_prefix="model")
        loaded_engine, self._network = self._thread.submit(self._load, engine).result()
        self.computation = Computation(
            engine=loaded_engine,
            device=self._device.type,
            threads=engine_threads(),
            processor=_cpu_name() if self._staging is None else torch.cuda.get_device_name(self._device),
        )
        """The engine, the device, the threads and the processor that compute the vectors."""
        self._slice = self._slice_length()
        """Number of tiles that the network computes together."""

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
        """Compute the vectors of tiles.

        Args:
            pixels: Pixel values as in the raster, shape (n, 1 or 3, size, size), any real dtype. A single channel is
                used for red, green and blue.
            valid: Whether each pixel is valid, shape (n, size, size). Invalid pixels get the checkpoint's mean colour.
            radiometry: How pixel values become colours.

        Returns:
            Vectors, shape (n, dimensions), float32, not normalised.
        """
        return self.submit(pixels, valid, radiometry).result()

    def submit(self, pixels: NDArray[np.generic], valid: NDArray[np.bool_], radiometry: ResolvedRadiometry) -> Pending:
        """Start to compute the vectors of tiles, and return without waiting for the vectors.

        The arguments are those of `embed`. The caller must not change the arrays before the vectors are computed.
        """
        return Pending(self._thread.submit(self._embed, pixels, valid, radiometry))

    @torch.inference_mode()
    def _embed(
        self, pixels: NDArray[np.generic], valid: NDArray[np.bool_], radiometry: ResolvedRadiometry
    ) -> NDArray[np.float32] | DeviceCopy | _StartedSlices:
        if pixels.dtype in _SCALED_ON_DEVICE:
            colours = self._colours_of(radiometry)
        else:
            pixels, colours = radiometry.scaled(pixels).astype(np.float32), self._colours_of(None)
        try:
            values = self._upload(pixels)
            mask = None if valid.all() else self._upload(valid)
        except torch.OutOfMemoryError as error:
            raise DataError(
                f"{self._device} has no memory for the pixels of {len(pixels)} tiles: take a smaller `batch_size` or "
                "`shard_threads`, or stop other programs on the device"
            ) from error
        if isinstance(self._network, OpenVinoNetwork):
            return self._start(self._network, values, mask, colours)
        vectors: list[Tensor] = []
        done = 0
        while done < len(pixels):
            try:
                for tokens in self._network.map(self._images(values, mask, colours, done), self._slice):
                    count = len(tokens)
                    vectors.append(self._pool(tokens, None if mask is None else mask[done : done + count]))
                    done += count
            except torch.OutOfMemoryError as error:
                self._halve_slices(error)
        together = torch.cat(vectors)
        return DeviceCopy(together) if self._staging else together.cpu().numpy()

    def _start(self, network: OpenVinoNetwork, values: Tensor, mask: Tensor | None, colours: Colours) -> _StartedSlices:
        """Start all slices of a batch. OpenVINO can then start the next batch before this batch is finished."""
        firsts = range(0, len(values), self._slice)
        masks = [None if mask is None else mask[first : first + self._slice] for first in firsts]
        images = self._images(values, mask, colours, 0)
        return _StartedSlices(list(zip(map(network.start, images), masks, strict=True)), self._pool)

    def _upload(self, array: NDArray[Any]) -> Tensor:
        return self._staging.upload(array) if self._staging else torch.from_numpy(array).to(self._device)

    def _images(self, values: Tensor, mask: Tensor | None, colours: Colours, first: int) -> Iterator[Tensor]:
        """Yield the images for the network in slices. The first slice begins with tile number `first`."""
        for begin in range(first, len(values), self._slice):
            tiles = slice(begin, begin + self._slice)
            yield colours.images(values[tiles], None if mask is None else mask[tiles], self.model.input_size)

    def _pool(self, tokens: Tensor, mask: Tensor | None) -> Tensor:
        """Turn tokens into vectors, shape (n, dimensions).

        For the mean, the weight of a patch token is the share of valid pixels in its patch.

        Args:
            tokens: Tokens [CLS] or [CLS, patches], shape (n, tokens, hidden).
            mask: Whether each pixel is valid, shape (n, size, size). None if all pixels are valid.
        """
        cls, patches = tokens[:, 0], tokens[:, 1:]
        if self.model.pooling == "cls":
            return cls.clone()  # The network may overwrite the tokens in its next step.
        if mask is None:
            mean = patches.mean(dim=1)
        else:
            side = self.model.input_size // self._checkpoint.token_side
            share = functional.adaptive_avg_pool2d(mask[:, None].float(), (side, side)).flatten(1)[:, :, None]
            mean = (patches * share).sum(dim=1) / share.sum(dim=1)
        return mean if self.model.pooling == "mean" else torch.cat([cls, mean], dim=1)

    def _colours_of(self, radiometry: ResolvedRadiometry | None) -> Colours:
        """Return the `Colours` of a radiometry. None stands for values that are already scaled to 0..1."""
        if radiometry not in self._colours:
            # Keep the object, so that its numbers are uploaded only once. Each small upload interrupts the device.
            low, high = (radiometry.low, radiometry.high) if radiometry else ((0.0,) * 3, (1.0,) * 3)
            self._colours[radiometry] = Colours(low, high, self.model.mean, self.model.std, self._device)
        return self._colours[radiometry]

    def _slice_length(self) -> int:
        """Return the number of tiles that the network computes together.

        On CUDA, an estimate of the working memory limits this number. On a CPU, the number is small, so that the data
        fit into the CPU's caches.
        """
        if self._device.type != "cuda":
            return SLICE
        free, _ = torch.cuda.mem_get_info(self._device)
        side = self.model.input_size
        tokens = (side // self._checkpoint.token_side) ** 2 + self._checkpoint.prefix_tokens
        tile = (
            tokens * self._checkpoint.hidden_size * _BYTES_PER_TOKEN_VALUE + 3 * side * side * _BYTES_PER_CHANNEL_PIXEL
        )
        return max(1, min(CUDA_BATCH, int(free * _FREE_SHARE) // tile))

    def _halve_slices(self, error: torch.OutOfMemoryError) -> None:
        """Halve the number of tiles that the network computes together.

        Raises:
            DataError: If this number is already 1.
        """
        if self._slice == 1:
            raise DataError(
                f"model {self.model.name!r} needs more memory than {self._device} has free for one tile of "
                f"{self.model.input_size} px: take a smaller `input_size` or `model`, or stop other programs "
                "on the device"
            ) from error
        self._slice //= 2
        if self._device.type == "cuda":
            torch.cuda.empty_cache()


_loaded: dict[tuple[str, str, str], Embedder] = {}
"""The only embedder of the process. The key holds the model, the device and the resolved engine."""
_loading = threading.Lock()


def load_embedder(
    model: ResolvedModel, device: str, token: str | None = None, *, engine: Engine = "eager", tiles: int = 0
) -> Embedder:
    """Return the process's embedder for a model on a device. The first call loads the model.

    A process keeps only one embedder. Before it loads another model, it frees the previous model.

    Args:
        model: The model to load. See `resolve_model`.
        device: Name of the device in PyTorch. See `resolve_device`.
        token: Access token for gated weights.
        engine: The engine that runs the model.
        tiles: Number of planned tiles in the whole dataset. With few tiles, `auto` always uses eager.

    Raises:
        UsageError: If the engine is not installed, or if it does not support the device or the dtype.
        DataError: See `Embedder`.

    Example:
        >>> from rasterembed.model.choice import Dinov3, resolve_model
        >>> model = resolve_model(Dinov3(device="cpu"), tile_size=64)
        >>> load_embedder(model, "cpu") is load_embedder(model, "cpu")
        True
    """
    resolved = resolve_engine(engine, device, model.dtype, tiles)
    key = (model.model_dump_json(), device, resolved)
    with _loading:
        if key not in _loaded:
            _loaded.clear()  # Free the previous model first. Two models are then never in memory together.
            _loaded[key] = Embedder(model, device, token, resolved)
        return _loaded[key]
