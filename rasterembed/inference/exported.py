"""Networks that OpenVINO runs, exported once and kept in the user's cache folder."""

from __future__ import annotations

import sys
import warnings
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from rasterembed.cache import discard, made_aside
from rasterembed.inference.networks import padded

SLICE = 8
"""Tiles that the network takes at a time: more were no faster, and take more memory."""

_FILE = "network.xml"


def has_openvino() -> bool:
    """Whether OpenVINO is installed; it is not imported."""
    return find_spec("openvino") is not None


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
            discard(kept)
            compiled = _compile(_export(module, side, kept), dtype, threads)
        self.at_once: int = compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS")
        """Slices that are worked on at once."""
        self._requests = deque(compiled.create_infer_request() for _ in range(self.at_once))

    def map(self, slices: Iterable[Tensor], length: int) -> Iterator[Tensor]:
        """See `inference.networks.Network`; several slices are worked on at once, and `length` is `SLICE`."""
        running: deque[tuple[Any, Tensor, int]] = deque()
        try:
            for images in slices:
                if not self._requests:
                    yield self._finish(*running.popleft())
                request = self._requests.popleft()
                whole = padded(images, SLICE).contiguous()
                request.start_async([whole.numpy()], share_inputs=True)
                running.append((request, whole, len(images)))
            while running:
                yield self._finish(*running.popleft())
        finally:
            for request, _, _ in running:
                request.cancel()
                with suppress(RuntimeError):  # that it was cancelled
                    request.wait()
                self._requests.append(request)

    def _finish(self, request: Any, _images: Tensor, count: int) -> Tensor:
        request.wait()
        tokens = torch.from_numpy(request.get_output_tensor().data[:count].copy())
        self._requests.append(request)
        return tokens


def _export(module: nn.Module, side: int, kept: Path) -> Any:
    """The network in OpenVINO's terms, also kept as files, where that can be."""
    openvino = _openvino()
    shape = (SLICE, 3, side, side)
    example = torch.zeros(shape)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that tracing is deprecated; exporting takes twice as long
        traced = torch.jit.trace(module, example, check_trace=False)  # type: ignore[no-untyped-call]
        network = openvino.convert_model(traced, example_input=example, input=[shape])
    with suppress(OSError, RuntimeError), made_aside(kept) as aside:
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
