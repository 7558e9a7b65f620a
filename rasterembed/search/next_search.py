"""The command that a person can paste after a run, to search the new dataset."""

from __future__ import annotations

from shlex import quote

from rasterembed.collection.collection import Collection
from rasterembed.collection.scene_row import SceneState
from rasterembed.dataset.dataset import Dataset
from rasterembed.dataset.manifest import Manifest
from rasterembed.store.object_store import ObjectStore


def search_command(store: ObjectStore, manifest: Manifest, block: str | None = None) -> str | None:
    """Return a command that searches a dataset for the tiles most similar to its first tile.

    Readers on any machine see it. For a person at the terminal of this process, `as_typed` names the program here.

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
    tile = _first_tile(Dataset(store, manifest))
    if tile is None:
        return None
    return f"{_search(block)} {manifest.dataset_id} --root {quote(store.root)} --tile {tile}"


def collection_search_command(collection: Collection, block: str | None = None) -> str | None:
    """Return a command that searches a collection for the tiles most similar to the first tile of a ready scene.

    Args:
        collection: the collection.
        block: name of the Prefect block with the credentials of the store. See `search_command`.

    Returns:
        The command, or None if no scene is ready, or no tile was embedded.

    Raises:
        StoreError: if the first shard with a tile cannot be read.
    """
    ready = collection.catalogue.filter(states=[SceneState.READY]).table.select(["id", "rows"]).to_pylist()
    dataset_id = next((row["id"] for row in ready if row["rows"]), None)
    if dataset_id is None:
        return None
    tile = _first_tile(Dataset.open(collection.store, dataset_id))
    # Without a table, the datasets are searched one by one.
    wanted = f"--collection {collection.id}" if collection.table else quote(f"{collection.layout.member_prefix}*")
    return f"{_search(block)} {wanted} --root {quote(collection.store.root)} --tile {dataset_id}/{tile}"


def _search(block: str | None) -> str:
    """Return the beginning of a command that searches a store."""
    return "rasterembed search" if block is None else f"python -m flows.search_embeddings --store {quote(block)}"


def _first_tile(dataset: Dataset) -> str | None:
    """Return the id of the first embedded tile of a dataset, or None if every tile was skipped."""
    shard = next((shard for shard in dataset.manifest.shards if shard.rows), None)
    if shard is None:
        return None
    first = Dataset(dataset.store, dataset.manifest.model_copy(update={"shards": (shard,)}))
    return str(next(iter(first.batches(["tile_id"]))).column(0)[0].as_py())
