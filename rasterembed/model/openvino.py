"""Networks that OpenVINO runs. A network is exported once. The export stays in the user's cache folder."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Literal

import torch
from torch import Tensor, nn

from rasterembed.model.networks import SLICE, pad
from rasterembed.store.write_aside import new_folder, remove_folder

_FILE = "network.xml"


def _openvino() -> Any:
    # Hide this package from OpenVINO. With it, OpenVINO would report every import and conversion to its maker.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    import openvino  # type: ignore[import-untyped]

    return openvino


class OpenVinoNetwork:
    """A network that OpenVINO runs on the CPU, for slices of `SLICE` images. Shorter slices are padded.

    Args:
        module: The network in PyTorch, float32.
        side: Side of the images in px.
        dtype: Data type of OpenVINO's computation.
        threads: Number of threads that OpenVINO may use.
        folder: Folder of the export. If the export is missing or cannot be read, a new export is written. If the folder
            cannot be written, the export stays in memory.
    """

    def __init__(
        self, module: nn.Module, side: int, dtype: Literal["float32", "bfloat16"], threads: int, folder: Path
    ) -> None:
        try:
            compiled = _compile(folder / _FILE, dtype, threads)
        except RuntimeError:  # The export is missing or broken.
            remove_folder(folder)
            compiled = _compile(_export(module, side, folder), dtype, threads)
        self.parallel_slices: int = compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS")
        """Number of slices that OpenVINO computes at the same time."""
        # Two requests exist for each of these slices. When a slice is finished, the next slice already waits.
        self._free_requests: SimpleQueue[Any] = SimpleQueue()
        for _ in range(2 * self.parallel_slices):
            self._free_requests.put(compiled.create_infer_request())
        self._finisher = ThreadPoolExecutor(1, thread_name_prefix="openvino")

    def map(self, slices: Iterable[Tensor], length: int) -> Iterator[Tensor]:
        """Yield the tokens of each slice. See `rasterembed.model.networks.Network.map`. `length` must be `SLICE`."""
        return (tokens.result() for tokens in [self.start(images) for images in slices])

    def start(self, images: Tensor) -> Future[Tensor]:
        """Start to compute a slice, and return a future of the slice's tokens.

        If all requests are in use, this method first waits for a free request.

        Args:
            images: Shape (at most `SLICE`, 3, side, side), float32. The caller must not change the images before the
                tokens are computed.
        """
        whole = pad(images, SLICE).contiguous()
        request = self._free_requests.get()
        try:
            request.start_async([whole.numpy()], share_inputs=True)
        except BaseException:
            self._free_requests.put(request)
            raise
        return self._finisher.submit(self._finish, request, whole, len(images))

    def _finish(self, request: Any, _images: Tensor, count: int) -> Tensor:
        """Wait for a slice and return the tokens of its first `count` images.

        OpenVINO reads the memory of `_images`. The argument keeps this memory alive.
        """
        try:
            request.wait()
            return torch.from_numpy(request.get_output_tensor().data[:count].copy())
        finally:
            self._free_requests.put(request)


def _export(module: nn.Module, side: int, folder: Path) -> Any:
    """Return the network as OpenVINO's model. If the folder can be written, also write the model into the folder."""
    openvino = _openvino()
    shape = (SLICE, 3, side, side)
    example = torch.zeros(shape)
    with torch.no_grad(), warnings.catch_warnings():
        # Hide PyTorch's warning that tracing is deprecated. The recommended torch.export takes twice as long.
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(module, example, check_trace=False)  # type: ignore[no-untyped-call]
        network = openvino.convert_model(traced, example_input=example, input=[shape])
    with suppress(OSError, RuntimeError), new_folder(folder) as aside:
        openvino.save_model(network, aside / _FILE, compress_to_fp16=False)
    return network


def _compile(network: Any, dtype: str, threads: int) -> Any:
    """Compile a network for the CPU.

    Args:
        network: OpenVINO's model, or the path of its file.
        dtype: Data type of OpenVINO's computation.
        threads: Number of threads that OpenVINO may use.
    """
    openvino = _openvino()
    precision = {"float32": "f32", "bfloat16": "bf16"}[dtype]
    return openvino.Core().compile_model(
        network,
        "CPU",
        {
            "PERFORMANCE_HINT": "THROUGHPUT",
            "INFERENCE_PRECISION_HINT": precision,
            "INFERENCE_NUM_THREADS": threads,
            # Turn pinning off. A pinned thread stays on one core. If another thread reads pixels on this core, the
            # pinned thread would wait, even if another core is idle.
            "ENABLE_CPU_PINNING": False,
        },
    )
