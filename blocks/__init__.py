"""The configuration of a deployment, as Prefect blocks.

`python -m prefect block register -m blocks`, run in the repository root, registers them with the Prefect server.
"""

from blocks.object_store import ObjectStoreBlock
from blocks.weights import Dinov3Weights

__all__ = ["Dinov3Weights", "ObjectStoreBlock"]
