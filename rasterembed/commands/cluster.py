"""`rasterembed cluster`: divide the tiles into classes."""

from __future__ import annotations

from shlex import quote
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from pydantic import Field

from rasterembed.command_line.command_app import POSITIONAL, command_app
from rasterembed.commands.all_tiles import ask
from rasterembed.search.batch.limits import DEFAULT_CLASSES, MAX_CLASSES

if TYPE_CHECKING:
    from rasterembed.collection.collection import Collection
    from rasterembed.dataset.dataset import Dataset


def cluster(
    dataset: Annotated[str | None, POSITIONAL] = None,
    collection: str | None = None,
    root: str | None = None,
    *,
    out: str,
    classes: Annotated[int, Field(ge=2, le=MAX_CLASSES), Parameter(alias="-k")] = DEFAULT_CLASSES,
    seed: Annotated[int, Field(ge=0)] = 0,
    picture: str | None = None,
) -> str:
    """Divide the tiles into classes by k-means, and write the class of every tile to a Parquet file.

    Args:
        dataset: Name of the dataset.
        collection: Name of a collection, in place of a dataset. All tiles of its table are used.
        root: Folder or s3://bucket/prefix of the datasets and collections. The default is the folder rasterembed-store.
        out: File for the classes: .parquet. store:KEY is an object of the store.
        classes: Number of classes.
        seed: Seed of the first centres.
        picture: File for a map of the classes and examples: .png. store:KEY is an object of the store.
    """

    def told(owner: Dataset | Collection) -> str:
        result = owner.cluster(out, classes, seed=seed, picture=picture)
        return f"{result}\nsearch: {_search_of(owner)} --class-file {quote(out)} --classes 0"

    return ask(dataset, collection, root, told)


def _search_of(owner: Dataset | Collection) -> str:
    """Return the command that searches a dataset or a collection whose tiles have classes."""
    # These imports take too long for a command that only prints its help.
    from rasterembed.command_line.this_program import as_typed
    from rasterembed.dataset.dataset import Dataset
    from rasterembed.search.next_search import collection_search_command, search_command

    if isinstance(owner, Dataset):
        command = search_command(owner.store, owner.manifest)
    else:
        command = collection_search_command(owner)
    assert command is not None  # It has vectors, or there would be no classes.
    return as_typed(command)


app = command_app("cluster", cluster, keeps_work=False)
