"""Networks that turn slices of a batch into tokens: PyTorch's own way, and compiled; OpenVINO's is in `exported`.

Needs PyTorch and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Protocol

import torch
from torch import Tensor, nn


class Network(Protocol):
    """Normalised images, shape (n, 3, side, side), to tokens, shape (n, tokens, hidden), float32.

    The tokens are [CLS], or [CLS, patches].
    """

    def map(self, slices: Iterable[Tensor], length: int) -> Iterator[Tensor]:
        """Tokens of each slice, in order; they hold until the next are asked for. No slice has more than `length`."""


class OwnNetwork(nn.Module):
    """Transformers' own network, as it is.

    Args:
        network: what `AutoModel` loaded.
        prefix: CLS and register tokens before the first patch token.
        patches: whether patch tokens are wanted.
        dtype: of autocast; float32 does without.
    """

    def __init__(self, network: Any, prefix: int, *, patches: bool, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self._network = network
        self._prefix = prefix
        self._patches = patches
        self._dtype = dtype

    def forward(self, images: Tensor) -> Tensor:
        """See `Network`."""
        if self._dtype == torch.float32:
            output = self._network(pixel_values=images)
        else:  # autocast keeps the rotary embedding in float32, which DINOv3 needs
            with torch.autocast(images.device.type, dtype=self._dtype):
                output = self._network(pixel_values=images)
        tokens: Tensor = output.pooler_output[:, None]
        if self._patches:
            tokens = torch.cat([tokens, output.last_hidden_state[:, self._prefix :]], dim=1)
        return tokens.float()


class Eager:
    """Runs a module step by step."""

    def __init__(self, module: nn.Module) -> None:
        self._module = module

    def map(self, slices: Iterable[Tensor], length: int) -> Iterator[Tensor]:
        """See `Network`."""
        return map(self._module, slices)


class Compiled:
    """Runs a module that torch.compile made of another, for one length of slices; shorter ones are padded.

    On CUDA it replays CUDA graphs; on a CPU the weights are frozen into it. It compiles at the first slice, and anew
    for another length.
    """

    def __init__(self, module: nn.Module, device: torch.device) -> None:
        how: dict[str, Any] = {"mode": "reduce-overhead"} if device.type == "cuda" else {"options": {"freezing": True}}
        self._module = torch.compile(module, dynamic=False, **how)

    def map(self, slices: Iterable[Tensor], length: int) -> Iterator[Tensor]:
        """See `Network`."""
        for images in slices:
            yield self._module(padded(images, length))[: len(images)]


def padded(images: Tensor, length: int) -> Tensor:
    """Images and behind them as many black ones as make `length`."""
    missing = length - len(images)
    return torch.cat([images, images.new_zeros(missing, *images.shape[1:])]) if missing > 0 else images
