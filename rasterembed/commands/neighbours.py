"""`rasterembed neighbours`: find the nearest tiles of every tile."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter
from pydantic import Field

from rasterembed.command_line.command_app import POSITIONAL, command_app
from rasterembed.commands.all_tiles import ask
from rasterembed.search.batch.limits import DEFAULT_NEIGHBOURS, MAX_NEIGHBOURS


def neighbours(
    dataset: Annotated[str | None, POSITIONAL] = None,
    collection: str | None = None,
    root: str | None = None,
    *,
    out: str,
    k: Annotated[int, Field(ge=1, le=MAX_NEIGHBOURS), Parameter(alias="-k")] = DEFAULT_NEIGHBOURS,
    picture: str | None = None,
) -> str:
    """Find the nearest other tiles of every tile, and write them to a Parquet file with a row for each pair.

    Args:
        dataset: Name of the dataset.
        collection: Name of a collection, in place of a dataset. All tiles of its table are used.
        root: Folder or s3://bucket/prefix of the datasets and collections. The default is the folder rasterembed-store.
        out: File for the pairs: .parquet. store:KEY is an object of the store.
        k: Number of neighbours of a tile.
        picture: File for a histogram of the distances and examples: .png. store:KEY is an object of the store.
    """
    return ask(dataset, collection, root, lambda owner: owner.neighbours(out, k, picture=picture))


app = command_app("neighbours", neighbours, keeps_work=False)
