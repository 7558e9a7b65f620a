"""Networks that PyTorch runs, step by step or compiled. The module `openvino` has OpenVINO's network.

This module imports only PyTorch.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Protocol

import torch
from torch import Tensor, nn

SLICE = 8
"""Number of tiles that a network computes together on a CPU. Larger slices were not faster, and took more memory."""


class Network(Protocol):
    """A network turns images into tokens. It computes one slice of a batch after the other."""

    def map(self, slices: Iterable[Tensor], length: int) -> Iterator[Tensor]:
        """Yield the tokens of each slice, in order.

        Args:
            slices: Normalised images, each slice of shape (n, 3, side, side), float32.
            length: Largest n of a slice.

        Yields:
            Tokens [CLS], or [CLS, patches] if the network returns patch tokens. Their shape is (n, tokens, hidden),
            float32. The network may overwrite these tokens when it computes the next slice.
        """


class TransformersNetwork(nn.Module):
    """The unchanged network that transformers loaded. It returns the tokens that `Network` describes.

    Args:
        network: The model that `AutoModel` loaded.
        prefix: Number of CLS and register tokens before the first patch token.
        patches: Whether to return patch tokens.
        dtype: Data type for autocast. With float32, the network runs without autocast.
    """

    def __init__(self, network: Any, prefix: int, *, patches: bool, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self._network = network
        self._prefix = prefix
        self._patches = patches
        self._dtype = dtype

    def forward(self, images: Tensor) -> Tensor:
        """Return the tokens of images. `Network.map` describes the shapes."""
        if self._dtype == torch.float32:
            output = self._network(pixel_values=images)
        else:  # DINOv3 needs the rotary embedding in float32. Autocast keeps it in float32.
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

    def runs(self, module: nn.Module) -> bool:
        """Return whether this network runs the given module."""
        return self._module is module

    def map(self, slices: Iterable[Tensor], length: int) -> Iterator[Tensor]:
        """Yield the tokens of each slice, see `Network.map`."""
        return map(self._module, slices)


class CompiledNetwork:
    """A network that torch.compile compiled for one length of slices. Shorter slices are padded.

    On CUDA, PyTorch replays CUDA graphs. On a CPU, the weights are constants in the compiled code. PyTorch compiles the
    network when the network gets its first slice. The compilation takes long, and each new length needs another one.
    """

    def __init__(self, module: nn.Module, device: torch.device) -> None:
        how: dict[str, Any] = {"mode": "reduce-overhead"} if device.type == "cuda" else {"options": {"freezing": True}}
        self._module = torch.compile(module, dynamic=False, **how)

    def map(self, slices: Iterable[Tensor], length: int) -> Iterator[Tensor]:
        """Yield the tokens of each slice, see `Network.map`."""
        for images in slices:
            yield self._module(pad(images, length))[: len(images)]


def pad(values: Tensor, length: int) -> Tensor:
    """Return the values with zeros added at the end of the first axis. This axis then has at least `length` entries."""
    missing = length - len(values)
    return torch.cat([values, values.new_zeros(missing, *values.shape[1:])]) if missing > 0 else values
