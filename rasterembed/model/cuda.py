"""Copy arrays to a CUDA device and back while the device computes.

This module imports only PyTorch and NumPy. Its tests need a GPU. Only one thread may use this module, but any thread
may call `DeviceCopy.result`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_BUFFERS = 3
"""Number of page-locked buffers. While the thread fills the first buffer, the second buffer is being copied to the
device, and the device computes with the copy of the third buffer."""


def _event() -> torch.cuda.Event:
    return torch.cuda.Event()  # type: ignore[no-untyped-call]


class Staging:
    """Uploads arrays while the device computes. It uses page-locked buffers and a separate CUDA stream.

    Args:
        device: The CUDA device.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream: Any = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._buffers: list[tuple[Tensor, torch.cuda.Event]] = []
        self._next = 0

    def upload(self, array: NDArray[Any]) -> Tensor:
        """Return a copy of the array on the device, for use on the current stream.

        The caller may change the array as soon as this method returns.
        """
        buffer, copied = self._next_buffer(array.nbytes)
        staged = buffer[: array.nbytes].view(torch.from_numpy(array[:0]).dtype).view(array.shape)
        np.copyto(staged.numpy(), array)
        computing = torch.cuda.current_stream(self._device)
        with torch.cuda.stream(self._stream):
            uploaded = staged.to(self._device, non_blocking=True)
            copied.record()
        computing.wait_event(copied)
        # Without this call, PyTorch could overwrite `uploaded` with the next upload while the device still reads it.
        uploaded.record_stream(computing)
        return uploaded

    def _next_buffer(self, size: int) -> tuple[Tensor, torch.cuda.Event]:
        """Return the next buffer and its event. If a copy from this buffer is still running, wait for its end.

        The buffer has at least `size` bytes.
        """
        if len(self._buffers) < _BUFFERS:
            self._buffers.append((torch.empty(0, dtype=torch.uint8), _event()))
        turn = self._next % len(self._buffers)
        buffer, copied = self._buffers[turn]
        copied.synchronize()
        if len(buffer) < size:
            buffer = torch.empty(size, dtype=torch.uint8, pin_memory=True)
            self._buffers[turn] = buffer, copied
        self._next += 1
        return buffer, copied


class DeviceCopy:
    """A tensor that is being copied from the device.

    Args:
        tensor: The tensor on the device, computed on the current stream.
    """

    def __init__(self, tensor: Tensor) -> None:
        self._array = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
        self._array.copy_(tensor, non_blocking=True)
        self._copied = _event()
        self._copied.record()

    def result(self) -> NDArray[Any]:
        """Wait for the copy and return the array. Any thread may call this method."""
        self._copied.synchronize()
        return self._array.numpy()
