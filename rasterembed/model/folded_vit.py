"""DINOv3's ViT with its weights folded: the same function as transformers' own module, in fewer and larger steps.

All of it is exact algebra; in float32 the tokens differ from transformers' by rounding alone.
This module needs PyTorch and nothing else, and takes the network that transformers loaded.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


class FoldedViT(nn.Module):
    """Normalised images, shape (n, 3, side, side), to tokens, shape (n, tokens, hidden), both float32.

    What is folded: each LayerScale is in the projection before it, and the scale of the attention in the query's; the
    patch convolution is a product; the rotary embedding leaves CLS and registers alone by turning them by nothing, so
    that the tokens need not be taken apart. If only the CLS token is wanted, the last layer computes one query.

    Products are computed in `dtype`; the rotary embedding, the norms and the sum over layers stay in float32.

    Args:
        network: a `DINOv3ViTModel`; it is left as it is.
        side: of the images, in px.
        patches: whether patch tokens are wanted. The result is [CLS, patches], or [CLS] alone; registers are left out.
        dtype: float32, bfloat16 or float16.

    Raises:
        AttributeError: if the network is not built as DINOv3's ViT is.
    """

    cos: Tensor
    sin: Tensor

    def __init__(self, network: Any, side: int, *, patches: bool, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        config = network.config
        self._patch = config.patch_size
        self._prefix = 1 + config.num_register_tokens
        self._patches = patches
        self._dtype = dtype
        embeddings = network.embeddings
        convolution = embeddings.patch_embeddings
        self.patch = _linear(convolution.weight.flatten(1), convolution.bias, dtype)
        prefix = torch.cat([embeddings.cls_token, embeddings.register_tokens], dim=1).detach()
        self.prefix = nn.Buffer(prefix.float().clone())
        cos, sin = _rotation(config, side, self._prefix)
        self.cos, self.sin = nn.Buffer(cos), nn.Buffer(sin)
        last = len(network.model.layer) - 1
        self.layers = nn.ModuleList(
            _Layer(layer, config, dtype, cls_only=not patches and number == last)
            for number, layer in enumerate(network.model.layer)
        )
        self.norm = _norm(network.norm)
        self.eval().requires_grad_(False)

    def forward(self, images: Tensor) -> Tensor:
        """See the class."""
        n, channels, height, width = images.shape
        rows, columns = height // self._patch, width // self._patch
        squares = images.reshape(n, channels, rows, self._patch, columns, self._patch).permute(0, 2, 4, 1, 3, 5)
        tokens = self.patch(squares.reshape(n, rows * columns, -1).to(self._dtype)).float()
        x = torch.cat([self.prefix.expand(n, -1, -1), tokens], dim=1)
        for layer in self.layers:
            x = layer(x, self.cos, self.sin)
        x = self.norm(x)
        return torch.cat([x[:, :1], x[:, self._prefix :]], dim=1) if self._patches else x


class _Layer(nn.Module):
    def __init__(self, layer: Any, config: Any, dtype: torch.dtype, *, cls_only: bool) -> None:
        super().__init__()
        self._heads = config.num_attention_heads
        self._cls_only = cls_only
        self._dtype = dtype
        attention, mlp = layer.attention, layer.mlp
        self.norm1, self.norm2 = _norm(layer.norm1), _norm(layer.norm2)
        # three products: of one, OpenVINO would have to copy each third out
        self.query = _scaled(attention.q_proj, attention.scaling, dtype)
        self.key = _linear(attention.k_proj.weight, attention.k_proj.bias, dtype)
        self.value = _linear(attention.v_proj.weight, attention.v_proj.bias, dtype)
        self.out = _scaled(attention.o_proj, layer.layer_scale1.lambda1, dtype)
        self.gate = _linear(mlp.gate_proj.weight, mlp.gate_proj.bias, dtype) if config.use_gated_mlp else None
        self.up = _linear(mlp.up_proj.weight, mlp.up_proj.bias, dtype)
        self.act = mlp.act_fn
        self.down = _scaled(mlp.down_proj, layer.layer_scale2.lambda1, dtype)
        # a tensor: OpenVINO takes the rotary embedding for one step only if this is a constant in the graph
        self.minus = nn.Buffer(torch.tensor([-1.0]))

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        y = self.norm1(x).to(self._dtype)
        key, value = self._turned(self._by_head(self.key(y)), cos, sin), self._by_head(self.value(y))
        if self._cls_only:
            x = x[:, :1]
            query = self._by_head(self.query(y[:, :1]))  # CLS is turned by nothing
        else:
            query = self._turned(self._by_head(self.query(y)), cos, sin)
        mixed = functional.scaled_dot_product_attention(query, key, value, scale=1.0)
        x = x + self.out(mixed.transpose(1, 2).flatten(2))
        y = self.norm2(x).to(self._dtype)
        y = self.act(self.up(y)) if self.gate is None else self.act(self.gate(y)) * self.up(y)
        whole: Tensor = x + self.down(y)
        return whole

    def _by_head(self, x: Tensor) -> Tensor:
        """Shape (n, tokens, hidden) to (n, heads, tokens, head size)."""
        return x.view(*x.shape[:2], self._heads, -1).transpose(1, 2)

    def _turned(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """The rotary embedding: half a head turned against the other half."""
        half = x.shape[-1] // 2
        other = torch.cat([x[..., half:] * self.minus, x[..., :half]], dim=-1)
        return (x * cos + other * sin).to(self._dtype)


def _linear(weight: Tensor, bias: Tensor | None, dtype: torch.dtype) -> nn.Linear:
    linear = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, device="meta")
    linear.weight = nn.Parameter(weight.detach().to(dtype).clone())
    if bias is not None:
        linear.bias = nn.Parameter(bias.detach().to(dtype).clone())
    return linear


def _scaled(linear: nn.Linear, scale: Tensor | float, dtype: torch.dtype) -> nn.Linear:
    """A projection with the scale behind it folded in, for all features or one for each."""
    bias = None if linear.bias is None else linear.bias * scale
    by_row = torch.as_tensor(scale, device=linear.weight.device).reshape(-1, 1)
    return _linear(linear.weight * by_row, bias, dtype)


def _norm(norm: nn.LayerNorm) -> nn.LayerNorm:
    copy = nn.LayerNorm(norm.normalized_shape, eps=norm.eps, device="meta")
    copy.weight = nn.Parameter(norm.weight.detach().float().clone())
    copy.bias = nn.Parameter(norm.bias.detach().float().clone())
    return copy


def _rotation(config: Any, side: int, prefix: int) -> tuple[Tensor, Tensor]:
    """Cosine and sine of the rotary embedding, each of shape (1, 1, tokens, head size), float32.

    The angle of frequency f at a patch whose centre is at y, x in -1..1 is 2 pi f y, or 2 pi f x in the second quarter
    (https://arxiv.org/abs/2508.10104, as transformers computes it).
    """
    head = config.hidden_size // config.num_attention_heads
    count = side // config.patch_size
    frequencies = 1 / config.rope_theta ** torch.arange(0, 1, 4 / head, dtype=torch.float32)
    centres = 2 * (torch.arange(0.5, count) / count) - 1
    places = torch.stack(torch.meshgrid(centres, centres, indexing="ij"), dim=-1).flatten(0, 1)
    angles = (2 * math.pi * places[:, :, None] * frequencies).flatten(1, 2)
    cos = torch.cat([torch.ones(prefix, head), angles.cos().tile(2)])
    sin = torch.cat([torch.zeros(prefix, head), angles.sin().tile(2)])
    return cos[None, None], sin[None, None]
