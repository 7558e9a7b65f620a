"""The command that a person can paste after a run, to search the new dataset."""

from __future__ import annotations

from shlex import quote

from rasterembed.dataset.dataset import Dataset
from rasterembed.dataset.manifest import Manifest
from rasterembed.store.object_store import ObjectStore


def search_command(store: ObjectStore, manifest: Manifest, block: str | None = None) -> str | None:
    """Return a command that searches a dataset for the tiles most similar to its first tile.

    Args:
        store: store of the dataset.
        manifest: the dataset's manifest.
        block: name of the Prefect block with the credentials of the store. The command then starts the search flow,
            because `rasterembed search` cannot read blocks.

    Returns:
        The command, or None if the dataset has no embedded tile.

    Raises:
        StoreError: if the first shard with a tile cannot be read.
    """
    shard = next((shard for shard in manifest.shards if shard.rows), None)
    if shard is None:
        return None
    dataset = Dataset(store, manifest.model_copy(update={"shards": (shard,)}))
    tile = next(iter(dataset.batches(["tile_id"]))).column(0)[0].as_py()
    program = "rasterembed search" if block is None else f"python -m flows.search_embeddings --store {quote(block)}"
    return f"{program} {manifest.dataset_id} --root {quote(store.root)} --tile {tile}"
