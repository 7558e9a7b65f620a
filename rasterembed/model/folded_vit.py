"""DINOv3's ViT with folded weights. It computes the same tokens as transformers' network in fewer and larger steps.

Folding multiplies constant scales into the weights. It is exact algebra: in float32, the tokens differ from those of
transformers only by rounding. This module needs only PyTorch.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from rasterembed.model.networks import SLICE, pad


class FoldedViT(nn.Module):
    """DINOv3's ViT, built from the network that transformers loaded. Images and tokens are float32.

    It has four differences from transformers' network:

    - Each LayerScale is multiplied into the weights of the projection before it. The scale of the attention is
      multiplied into the weights of the query's projection.
    - The patch convolution is a matrix product.
    - The rotary embedding rotates CLS and register tokens by the angle 0. These tokens therefore need no separate
      treatment.
    - If only the CLS token is needed, the last layer computes a single query.

    Matrix products are computed in `dtype`. The rotary embedding, the norms and the sum over layers are computed in
    float32.

    Args:
        network: A `DINOv3ViTModel`. It is not changed.
        side: Side of the images in px.
        patches: True to return [CLS, patches], False to return [CLS]. Register tokens are never returned.
        dtype: float32, bfloat16 or float16.

    Raises:
        AttributeError: If the network has another structure than DINOv3's ViT.
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
        """Return the tokens of normalised images.

        Args:
            images: Shape (n, 3, side, side), float32.

        Returns:
            Shape (n, tokens, hidden), float32.
        """
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
    """One transformer layer: attention, then the MLP.

    With `cls_only`, the layer returns only the CLS token. The layer's matrix products then have one row for each image.
    In such small products, the order of the additions depends on the number of rows. In the attention of a single
    query, this order depends on the position of the image in the batch. Both effects change the last bits of a vector.
    The rows are therefore padded to `SLICE`, and the query is repeated `SLICE` times. The vector of a tile then does
    not depend on the other tiles in the batch.
    """

    def __init__(self, layer: Any, config: Any, dtype: torch.dtype, *, cls_only: bool) -> None:
        super().__init__()
        self._heads = config.num_attention_heads
        self._cls_only = cls_only
        self._dtype = dtype
        attention, mlp = layer.attention, layer.mlp
        self.norm1, self.norm2 = _norm(layer.norm1), _norm(layer.norm2)
        # Query, key and value are computed by three products. If one product computed all three, OpenVINO would have to
        # copy each of them out of the result.
        self.query = _fold_scale(attention.q_proj, attention.scaling, dtype)
        self.key = _linear(attention.k_proj.weight, attention.k_proj.bias, dtype)
        self.value = _linear(attention.v_proj.weight, attention.v_proj.bias, dtype)
        self.out = _fold_scale(attention.o_proj, layer.layer_scale1.lambda1, dtype)
        self.gate = _linear(mlp.gate_proj.weight, mlp.gate_proj.bias, dtype) if config.use_gated_mlp else None
        self.up = _linear(mlp.up_proj.weight, mlp.up_proj.bias, dtype)
        self.act = mlp.act_fn
        self.down = _fold_scale(mlp.down_proj, layer.layer_scale2.lambda1, dtype)
        # OpenVINO runs the rotary embedding as one step only if -1 is a constant in its graph. A buffer becomes such a
        # constant.
        self.minus = nn.Buffer(torch.tensor([-1.0]))

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        y = self.norm1(x).to(self._dtype)
        key, value = self._rotate(self._split_heads(self.key(y)), cos, sin), self._split_heads(self.value(y))
        n = len(x)
        if self._cls_only:
            x, y = pad(x[:, :1], SLICE).contiguous(), pad(y[:, :1], SLICE).contiguous()
            query = self._split_heads(self.query(y))[:n]  # The rotary embedding does not change the CLS token.
            query = query.expand(-1, -1, SLICE, -1).contiguous()
        else:
            query = self._rotate(self._split_heads(self.query(y)), cos, sin)
        mixed = functional.scaled_dot_product_attention(query, key, value, scale=1.0)
        if self._cls_only:
            mixed = pad(mixed[:, :, :1], SLICE)
        x = x + self.out(mixed.transpose(1, 2).flatten(2))
        y = self.norm2(x).to(self._dtype)
        y = self.act(self.up(y)) if self.gate is None else self.act(self.gate(y)) * self.up(y)
        tokens: Tensor = (x + self.down(y))[:n]
        return tokens

    def _split_heads(self, x: Tensor) -> Tensor:
        """Reshape (n, tokens, hidden) to (n, heads, tokens, head size)."""
        return x.view(*x.shape[:2], self._heads, -1).transpose(1, 2)

    def _rotate(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Apply the rotary position embedding.

        Element i of a head's first half and element i of its second half are a pair. Each pair is rotated by the angle
        that `cos` and `sin` give.
        """
        half = x.shape[-1] // 2
        other = torch.cat([x[..., half:] * self.minus, x[..., :half]], dim=-1)
        return (x * cos + other * sin).to(self._dtype)


def _linear(weight: Tensor, bias: Tensor | None, dtype: torch.dtype) -> nn.Linear:
    """Return a projection with copies of the weights in `dtype`."""
    linear = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, device="meta")
    linear.weight = nn.Parameter(weight.detach().to(dtype).clone())
    if bias is not None:
        linear.bias = nn.Parameter(bias.detach().to(dtype).clone())
    return linear


def _fold_scale(linear: nn.Linear, scale: Tensor | float, dtype: torch.dtype) -> nn.Linear:
    """Multiply a scale into the weights of a projection. The scale is one number, or one for each output feature."""
    bias = None if linear.bias is None else linear.bias * scale
    by_row = torch.as_tensor(scale, device=linear.weight.device).reshape(-1, 1)
    return _linear(linear.weight * by_row, bias, dtype)


def _norm(norm: nn.LayerNorm) -> nn.LayerNorm:
    """Return a copy of a norm in float32."""
    copy = nn.LayerNorm(norm.normalized_shape, eps=norm.eps, device="meta")
    copy.weight = nn.Parameter(norm.weight.detach().float().clone())
    copy.bias = nn.Parameter(norm.bias.detach().float().clone())
    return copy


def _rotation(config: Any, side: int, prefix: int) -> tuple[Tensor, Tensor]:
    """Return cosine and sine of the rotary embedding's angles, each of shape (1, 1, tokens, head size), float32.

    The centre of a patch is (y, x), both in -1..1. For the frequency f, the angle of the patch is 2 pi f y in the first
    quarter of the head, and 2 pi f x in the second quarter. The second half of the head repeats the first half. The
    source is the DINOv3 paper, https://arxiv.org/abs/2508.10104, as implemented in transformers.

    Args:
        config: The network's configuration.
        side: Side of the images in px.
        prefix: Number of CLS and register tokens, whose angle is 0.
    """
    head = config.hidden_size // config.num_attention_heads
    count = side // config.patch_size
    frequencies = 1 / config.rope_theta ** torch.arange(0, 1, 4 / head, dtype=torch.float32)
    centres = 2 * (torch.arange(0.5, count) / count) - 1
    positions = torch.stack(torch.meshgrid(centres, centres, indexing="ij"), dim=-1).flatten(0, 1)
    angles = (2 * math.pi * positions[:, :, None] * frequencies).flatten(1, 2)
    cos = torch.cat([torch.ones(prefix, head), angles.cos().tile(2)])
    sin = torch.cat([torch.zeros(prefix, head), angles.sin().tile(2)])
    return cos[None, None], sin[None, None]
