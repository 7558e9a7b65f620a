"""`rasterembed cluster`: divide the tiles into classes."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter
from pydantic import Field

from rasterembed.command_line.command_app import POSITIONAL, command_app
from rasterembed.commands.all_tiles import ask
from rasterembed.search.batch.limits import DEFAULT_CLASSES, MAX_CLASSES


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
    return ask(dataset, collection, root, lambda owner: owner.cluster(out, classes, seed=seed, picture=picture))


app = command_app("cluster", cluster, keeps_work=False)
