"""Replace the GitHub repository of DINOv3's code. terratorch and geoai then work offline and with any weights.

Both packages load DINOv3 with `torch.hub` from that repository. PyTorch looks into its own hub folder first. If this
file is in the hub folder, both packages get transformers' network with the weights from the folder PEER_WEIGHTS.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

import torch
from transformers import AutoModel


class Stand(torch.nn.Module):
    """transformers' network, with the attributes and methods of Facebook's network that the two packages use."""

    def __init__(self) -> None:
        super().__init__()
        self.network = AutoModel.from_pretrained(os.environ["PEER_WEIGHTS"], dtype=torch.float32).eval()
        self.blocks = range(self.network.config.num_hidden_layers)
        self.patch_size = self.network.config.patch_size
        self.embed_dim = self.network.config.hidden_size

    def get_intermediate_layers(
        self,
        x: torch.Tensor,
        *,
        n: int | Sequence[int] = 1,
        reshape: bool = False,
        return_class_token: bool = False,
        norm: bool = True,
    ) -> tuple[object, ...]:
        """Return the patch tokens of some layers.

        Args:
            x: images, shape (batch, 3, rows, columns).
            n: number of last layers, or numbers of the layers.
            reshape: whether patch tokens get the shape (batch, d, rows, columns) instead of (batch, patches, d).
            return_class_token: whether each item is a pair of patch tokens and CLS token.
            norm: whether to apply the network's final normalisation.
        """
        states = self.network(x, output_hidden_states=True).hidden_states[1:]
        chosen = states[-n:] if isinstance(n, int) else [states[number] for number in n]
        found: list[object] = []
        for state in chosen:
            tokens = self.network.norm(state) if norm else state
            patches = tokens[:, 1 + self.network.config.num_register_tokens :]
            if reshape:
                side = (x.shape[2] // self.patch_size, x.shape[3] // self.patch_size)
                patches = patches.transpose(1, 2).unflatten(2, side)
            found.append((patches, tokens[:, 0]) if return_class_token else patches)
        return tuple(found)


def dinov3_vits16(**_: object) -> Stand:
    """Return the model. The weights in the arguments are ignored."""
    return Stand()
