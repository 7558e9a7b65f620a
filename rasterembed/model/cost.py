"""How much longer a large input takes than an input of 224 px."""

from __future__ import annotations

from rasterembed.model.checkpoints import find_checkpoint
from rasterembed.model.choice import ResolvedModel

USUAL_SIDE = 224
"""Side in px of the model's input in DINOv3's training, and by default."""

_ALWAYS_FINE = 1024
"""Side in px up to which no warning is given, with any model. The checkpoint is then not looked at."""

_COSTLY = 100
"""Smallest ratio for a warning."""


def relative_cost(model: ResolvedModel, side: int) -> float:
    """Return how many times as long an image of `side` px takes as one of `USUAL_SIDE` px.

    The ratio counts multiplications. A ViT compares each patch with each other patch, so its cost grows faster than the
    number of pixels.

    Args:
        model: the model. The files of its checkpoint must be on this machine.
        side: side of the image in px.
    """
    architecture = find_checkpoint(model.id, model.revision).architecture
    return architecture.multiplications(side) / architecture.multiplications(USUAL_SIDE)


def costly_input(model: ResolvedModel, tile_size: int) -> str | None:
    """Return a warning if the model's input is so large that one tile takes very long, else None.

    Args:
        model: the model of the plan.
        tile_size: side of the tiles in px.
    """
    side = model.input_size
    if side <= _ALWAYS_FINE:
        return None
    ratio = relative_cost(model, side)
    if ratio < _COSTLY:
        return None
    remedy = "use a smaller `input_size`"
    if tile_size == side:
        remedy = f"use a smaller `size`, or `input_size={USUAL_SIDE}`, which shrinks the tiles for the model"
    return (
        f"the model's input has {side} px a side: one tile takes about {float(f'{ratio:.1g}'):,.0f} times as long as a "
        f"tile of {USUAL_SIDE} px, which can be minutes on a CPU: {remedy}"
    )
