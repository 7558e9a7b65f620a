"""The command that a person can paste after a run, to search the new dataset."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from shlex import quote

from rasterembed.dataset.dataset import Dataset
from rasterembed.dataset.manifest import Manifest
from rasterembed.store.object_store import ObjectStore


def search_command(
    store: ObjectStore, manifest: Manifest, block: str | None = None, *, program: str = "rasterembed"
) -> str | None:
    """Return a command that searches a dataset for the tiles most similar to its first tile.

    Args:
        store: store of the dataset.
        manifest: the dataset's manifest.
        block: name of the Prefect block with the credentials of the store. The command then starts the search flow,
            because `rasterembed search` cannot read blocks.
        program: how a shell starts `rasterembed`. The default suits readers on any machine. For a reader at the
            terminal of this process, give `this_program()`.

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
    search = f"{program} search" if block is None else f"python -m flows.search_embeddings --store {quote(block)}"
    return f"{search} {manifest.dataset_id} --root {quote(store.root)} --tile {tile}"


def this_program() -> str:
    """Return how a shell in the current folder starts the `rasterembed` of this Python environment.

    It is the plain name if the shell finds this program by its name. Otherwise it is a path, relative to the current
    folder if the program is inside it.
    """
    path = Path(sys.executable).with_name("rasterembed")
    if not path.is_file():
        return f"{quote(sys.executable)} -m rasterembed"
    found = shutil.which("rasterembed")
    if found and os.path.samefile(found, path):
        return "rasterembed"
    return quote(str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path))
