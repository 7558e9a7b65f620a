"""A Prefect block for DINOv3 weights, with the access token that gated weights need."""

from __future__ import annotations

from pydantic import Field, SecretStr

from blocks.loading import load_block
from blocks.settings_block import SettingsBlock
from rasterembed.model.choice import Dinov3


class Dinov3Weights(SettingsBlock):
    """A DINOv3 checkpoint on the hub or in a folder, and the access token for it."""

    _block_type_name = "DINOv3 Weights"
    _block_type_slug = "dinov3-weights"
    _description = "A DINOv3 checkpoint by hub id or folder, with the access token that gated weights need."

    model: str = Field(description="Hub id, for example facebook/dinov3-vits16-pretrain-lvd1689m, or a folder.")
    revision: str | None = Field(default=None, description="Branch, tag or commit on the hub.")
    token: SecretStr | None = Field(default=None, description="Access token of an account that accepted the licence.")


def choose_weights(dinov3: Dinov3, block: str | None) -> tuple[Dinov3, str | None]:
    """Return the model that a flow's parameters name, and the access token for its weights.

    Args:
        dinov3: the model and its settings. A block replaces the model's id and revision.
        block: name of a dinov3-weights block.

    Raises:
        UsageError: if the block does not exist, or if one of its values is wrong.
    """
    if block is None:
        return dinov3, None
    weights = load_block(Dinov3Weights, block, "weights block")
    chosen = dinov3.model_copy(update={"model": weights.model, "revision": weights.revision})
    return chosen, weights.token.get_secret_value() if weights.token else None
