"""Networks that PyTorch runs, step by step or compiled. OpenVINO's network is in `openvino`.

This module needs PyTorch and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Protocol

import torch
from torch import Tensor, nn

SLICE = 8
"""Number of tiles that a network computes together on a CPU. Larger slices were no faster, and take more memory."""


class Network(Protocol):
    """Anything that turns images into tokens, a slice of a batch at a time."""

    def map(self, slices: Iterable[Tensor], length: int) -> Iterator[Tensor]:
        """Yield the tokens of each slice, in order.

        Args:
            slices: Normalised images, each slice of shape (n, 3, side, side), float32.
            length: Largest n of a slice.

        Yields:
            Tokens [CLS], or [CLS, patches] if the network gives them, shape (n, tokens, hidden), float32. The next step
            may overwrite them.
        """


class TransformersNetwork(nn.Module):
    """The network that transformers loaded, unchanged, with the tokens that `Network` asks for.

    Args:
        network: The model that `AutoModel` loaded.
        prefix: Number of CLS and register tokens before the first patch token.
        patches: Whether to return patch tokens.
        dtype: Type for autocast; float32 runs without autocast.
    """

    def __init__(self, network: Any, prefix: int, *, patches: bool, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self._network = network
        self._prefix = prefix
        self._patches = patches
        self._dtype = dtype

    def forward(self, images: Tensor) -> Tensor:
        """Return the tokens of images, with shapes as in `Network.map`."""
        if self._dtype == torch.float32:
            output = self._network(pixel_values=images)
        else:  # Autocast keeps the rotary embedding in float32, which DINOv3 needs.
            with torch.autocast(images.device.type, dtype=self._dtype):
                output = self._network(pixel_values=images)
        tokens: Tensor = output.pooler_output[:, None]
        if self._patches:
            tokens = torch.cat([tokens, output.last_hidden_state[:, self._prefix :]], dim=1)
        return tokens.float()


class EagerNetwork:
    """A network that PyTorch runs step by step."""

    def __init__(self, module: nn.Module) -> None:
        self._module = module

    def map(self, slices: Iterable[Tensor], length: int) -> Iterator[Tensor]:
        """Yield the tokens of each slice, see `Network.map`."""
        return map(self._module, slices)


class CompiledNetwork:
    """A network that torch.compile made for one length of slices. Shorter slices are padded.

    On CUDA it replays CUDA graphs. On a CPU the weights are frozen into the compiled code. The first slice takes long,
    because PyTorch compiles then; a new length makes PyTorch compile again.
    """

    def __init__(self, module: nn.Module, device: torch.device) -> None:
        how: dict[str, Any] = {"mode": "reduce-overhead"} if device.type == "cuda" else {"options": {"freezing": True}}
        self._module = torch.compile(module, dynamic=False, **how)

    def map(self, slices: Iterable[Tensor], length: int) -> Iterator[Tensor]:
        """Yield the tokens of each slice, see `Network.map`."""
        for images in slices:
            yield self._module(pad(images, length))[: len(images)]


def pad(values: Tensor, length: int) -> Tensor:
    """Return values with zeros after them, so that the first axis has at least `length` entries."""
    missing = length - len(values)
    return torch.cat([values, values.new_zeros(missing, *values.shape[1:])]) if missing > 0 else values
