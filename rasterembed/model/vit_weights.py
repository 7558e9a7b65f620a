"""The weights of a DINOv3 ViT in the structure of transformers' network, without transformers.

The import of transformers takes more than a second. With this structure, a process can fold the weights of a checkpoint
that transformers has checked before.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from rasterembed.model.config_file import VitArchitecture

_ACTIVATIONS: Mapping[str, Callable[[Tensor], Tensor]] = {"gelu": functional.gelu, "silu": functional.silu}
"""Functions that transformers calls for `hidden_act`. The published checkpoints use only these two."""

_UNUSED = "embeddings.mask_token"
"""Name of the only tensor of a checkpoint that no embedding needs. Only training uses it."""


class VitWeights(nn.Module):
    """The weights of a DINOv3 ViT. Its modules have the names of transformers' `DINOv3ViTModel`.

    It computes nothing: `FoldedViT` reads the weights. Without `fill`, it has only the shapes of the weights.

    Args:
        architecture: The fields of config.json.

    Raises:
        ValueError: If this module does not know the activation.
    """

    def __init__(self, architecture: VitArchitecture) -> None:
        super().__init__()
        if architecture.hidden_act not in _ACTIVATIONS:
            raise ValueError(f"hidden_act {architecture.hidden_act!r} needs transformers")
        self.config = architecture
        with torch.device("meta"):  # Tensors on this device take no memory.
            self.embeddings = _Embeddings(architecture)
            self.model = _Encoder(architecture)
            self.norm = nn.LayerNorm(architecture.hidden_size, eps=architecture.layer_norm_eps)
        self.eval().requires_grad_(False)

    def fill(self, tensors: Mapping[str, Tensor]) -> None:
        """Take the tensors of a checkpoint as float32. Their names are those in the files.

        Raises:
            RuntimeError: If a tensor is missing, is unexpected, or has another shape than the architecture asks for.
        """
        self.load_state_dict(
            {name: tensor.to(torch.float32) for name, tensor in _named(tensors).items()}, assign=True, strict=True
        )
        self.requires_grad_(False)

    def can_replace(self, network: nn.Module, tensors: Mapping[str, Tensor]) -> bool:
        """Return whether this structure, filled with the tensors, folds to the same bits as transformers' network.

        Args:
            network: The network that transformers loaded from the tensors.
            tensors: The tensors of the checkpoint, with the names in the files.
        """
        named, others = _named(tensors), network.state_dict()
        others.pop(_UNUSED, None)
        if not self.state_dict().keys() == named.keys() == others.keys():
            return False
        modules = dict(network.named_modules())
        for name, module in self.named_modules():
            for constant in ("eps", "scaling"):
                if getattr(module, constant, None) != getattr(modules[name], constant, None):
                    return False
            if isinstance(module, _Mlp) and not _same_activation(module.act_fn, modules[name].act_fn):
                return False
        # Compare one tensor after the other. A second copy of all weights may not fit into the memory.
        return all(torch.equal(tensor.to(others[name]), others[name]) for name, tensor in named.items())


def _named(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors that an embedding needs, under the names that transformers' network gives them.

    The published files name the layers `layer.0` and so on. transformers renames them to `model.layer.0`.
    """
    used = {name: tensor for name, tensor in tensors.items() if name != _UNUSED}
    return {f"model.{name}" if name.startswith("layer.") else name: tensor for name, tensor in used.items()}


def _same_activation(own: Any, other: Any) -> bool:
    """Return whether two activations give the same bits for numbers from -12 to 12."""
    numbers = torch.linspace(-12, 12, 4096)
    return torch.equal(own(numbers), other(numbers))


class _Embeddings(nn.Module):
    def __init__(self, architecture: VitArchitecture) -> None:
        super().__init__()
        width, patch = architecture.hidden_size, architecture.patch_size
        self.cls_token = nn.Parameter(torch.empty(1, 1, width))
        self.register_tokens = nn.Parameter(torch.empty(1, architecture.num_register_tokens, width))
        self.patch_embeddings = nn.Conv2d(architecture.num_channels, width, kernel_size=patch, stride=patch)


class _Encoder(nn.Module):
    def __init__(self, architecture: VitArchitecture) -> None:
        super().__init__()
        self.layer = nn.ModuleList(_Layer(architecture) for _ in range(architecture.num_hidden_layers))


class _Layer(nn.Module):
    def __init__(self, architecture: VitArchitecture) -> None:
        super().__init__()
        width, eps = architecture.hidden_size, architecture.layer_norm_eps
        self.norm1, self.norm2 = nn.LayerNorm(width, eps=eps), nn.LayerNorm(width, eps=eps)
        self.attention = _Attention(architecture)
        self.mlp = _Mlp(architecture)
        self.layer_scale1, self.layer_scale2 = _LayerScale(width), _LayerScale(width)


class _Attention(nn.Module):
    def __init__(self, architecture: VitArchitecture) -> None:
        super().__init__()
        width = architecture.hidden_size
        self.scaling = (width // architecture.num_attention_heads) ** -0.5
        self.q_proj = nn.Linear(width, width, bias=architecture.query_bias)
        self.k_proj = nn.Linear(width, width, bias=architecture.key_bias)
        self.v_proj = nn.Linear(width, width, bias=architecture.value_bias)
        self.o_proj = nn.Linear(width, width, bias=architecture.proj_bias)


class _Mlp(nn.Module):
    def __init__(self, architecture: VitArchitecture) -> None:
        super().__init__()
        width, inner, bias = architecture.hidden_size, architecture.intermediate_size, architecture.mlp_bias
        if architecture.use_gated_mlp:
            self.gate_proj = nn.Linear(width, inner, bias=bias)
        self.up_proj = nn.Linear(width, inner, bias=bias)
        self.down_proj = nn.Linear(inner, width, bias=bias)
        self.act_fn = _ACTIVATIONS[architecture.hidden_act]


class _LayerScale(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.lambda1 = nn.Parameter(torch.empty(width))
