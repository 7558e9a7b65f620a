"""Networks that OpenVINO runs, exported once and kept in the user's cache folder."""

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

from rasterembed.model.networks import padded
from rasterembed.store.write_aside import new_folder, remove_folder

SLICE = 8
"""Tiles that the network takes at a time: more were no faster, and take more memory."""

_FILE = "network.xml"


def _openvino() -> Any:
    # On import and at each conversion OpenVINO reports to its maker's analytics, if this package of its can be imported
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    import openvino  # type: ignore[import-untyped]

    return openvino


class Exported:
    """A network for slices of `SLICE` images on the CPU; shorter ones are padded.

    Args:
        module: the network in PyTorch, float32.
        side: of the images, in px.
        dtype: what OpenVINO computes in.
        threads: that it may use.
        kept: folder of the export: read if it is there, else made. What cannot be read is made anew; one that cannot
            be written is done without.
    """

    def __init__(
        self, module: nn.Module, side: int, dtype: Literal["float32", "bfloat16"], threads: int, kept: Path
    ) -> None:
        try:
            compiled = _compile(kept / _FILE, dtype, threads)
        except RuntimeError:  # not there, or broken
            remove_folder(kept)
            compiled = _compile(_export(module, side, kept), dtype, threads)
        self.at_once: int = compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS")
        """Slices that are worked on at once."""
        # more than that, so that one waits when another is done
        self._free: SimpleQueue[Any] = SimpleQueue()
        for _ in range(2 * self.at_once):
            self._free.put(compiled.create_infer_request())
        self._finisher = ThreadPoolExecutor(1, thread_name_prefix="openvino")

    def map(self, slices: Iterable[Tensor], length: int) -> Iterator[Tensor]:
        """See `inference.networks.Network`; `length` is `SLICE`."""
        return (tokens.result() for tokens in [self.start(images) for images in slices])

    def start(self, images: Tensor) -> Future[Tensor]:
        """Begin with a slice, as soon as one before it is done if many are begun; its tokens come later.

        Args:
            images: shape (at most `SLICE`, 3, side, side), float32; must stay as they are until the tokens are there.
        """
        whole = padded(images, SLICE).contiguous()
        request = self._free.get()
        try:
            request.start_async([whole.numpy()], share_inputs=True)
        except BaseException:
            self._free.put(request)
            raise
        return self._finisher.submit(self._finish, request, whole, len(images))

    def _finish(self, request: Any, _images: Tensor, count: int) -> Tensor:
        try:
            request.wait()
            return torch.from_numpy(request.get_output_tensor().data[:count].copy())
        finally:
            self._free.put(request)


def _export(module: nn.Module, side: int, kept: Path) -> Any:
    """The network in OpenVINO's terms, also kept as files, where that can be."""
    openvino = _openvino()
    shape = (SLICE, 3, side, side)
    example = torch.zeros(shape)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that tracing is deprecated; exporting takes twice as long
        traced = torch.jit.trace(module, example, check_trace=False)  # type: ignore[no-untyped-call]
        network = openvino.convert_model(traced, example_input=example, input=[shape])
    with suppress(OSError, RuntimeError), new_folder(kept) as aside:
        openvino.save_model(network, aside / _FILE, compress_to_fp16=False)
    return network


def _compile(network: Any, dtype: str, threads: int) -> Any:
    openvino = _openvino()
    precision = {"float32": "f32", "bfloat16": "bf16"}[dtype]
    return openvino.Core().compile_model(
        network,
        "CPU",
        {
            "PERFORMANCE_HINT": "THROUGHPUT",
            "INFERENCE_PRECISION_HINT": precision,
            "INFERENCE_NUM_THREADS": threads,
            # pinned threads wait for the reading threads of their core while another core is idle
            "ENABLE_CPU_PINNING": False,
        },
    )
