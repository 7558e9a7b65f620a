"""Arrays to a CUDA device and back without waiting for it. Needs PyTorch and NumPy; untested without a GPU.

Everything here is called from one thread.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_BUFFERS = 3
"""Arrays on their way at once: one that is filled, one that is copied, one that the device computes with."""


def _event() -> torch.cuda.Event:
    return torch.cuda.Event()  # type: ignore[no-untyped-call]


class Staging:
    """Copies arrays through page-locked buffers on a stream of their own, while the device computes."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream: Any = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._buffers: list[tuple[Tensor, torch.cuda.Event]] = []
        self._turn = 0

    def upload(self, array: NDArray[Any]) -> Tensor:
        """The array on the device, for the stream that computes; the caller may change the array at once."""
        buffer, copied = self._buffer(array.nbytes)
        staged = buffer[: array.nbytes].view(torch.from_numpy(array[:0]).dtype).view(array.shape)
        np.copyto(staged.numpy(), array)
        computing = torch.cuda.current_stream(self._device)
        with torch.cuda.stream(self._stream):
            there = staged.to(self._device, non_blocking=True)
            copied.record()
        computing.wait_event(copied)
        there.record_stream(computing)  # or its memory is given to the next copy while it is still read
        return there

    def _buffer(self, size: int) -> tuple[Tensor, torch.cuda.Event]:
        """The buffer whose turn it is, of at least `size` bytes, once its last copy is done."""
        if len(self._buffers) < _BUFFERS:
            self._buffers.append((torch.empty(0, dtype=torch.uint8), _event()))
        buffer, copied = self._buffers[self._turn % len(self._buffers)]
        copied.synchronize()
        if len(buffer) < size:
            buffer = torch.empty(size, dtype=torch.uint8, pin_memory=True)
            self._buffers[self._turn % len(self._buffers)] = buffer, copied
        self._turn += 1
        return buffer, copied


class Download:
    """A tensor on its way from the device."""

    def __init__(self, tensor: Tensor) -> None:
        self._array = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
        self._array.copy_(tensor, non_blocking=True)
        self._copied = _event()
        self._copied.record()

    def result(self) -> NDArray[Any]:
        """The array; waits for it. From any thread."""
        self._copied.synchronize()
        return self._array.numpy()
