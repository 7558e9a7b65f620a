"""The configuration of a deployment, as Prefect blocks.

To register the blocks with the Prefect server, run `python -m prefect block register -m blocks` in the repository root.
"""

from blocks.object_store import ObjectStoreBlock
from blocks.source_store import SourceStoreBlock
from blocks.weights import Dinov3Weights

__all__ = ["Dinov3Weights", "ObjectStoreBlock", "SourceStoreBlock"]
