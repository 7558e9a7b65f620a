"""What a deployment is configured with, as Prefect blocks; `prefect block register -m blocks` makes them known."""

from blocks.object_store import ObjectStoreBlock
from blocks.weights import Dinov3Weights

__all__ = ["Dinov3Weights", "ObjectStoreBlock"]
