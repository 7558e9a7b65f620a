"""`rasterembed deduplicate`: find groups of tiles that are almost equal."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from rasterembed.command_line.command_app import POSITIONAL, command_app
from rasterembed.commands.all_tiles import ask
from rasterembed.search.batch.limits import DEFAULT_THRESHOLD


def deduplicate(
    dataset: Annotated[str | None, POSITIONAL] = None,
    collection: str | None = None,
    root: str | None = None,
    *,
    out: str,
    threshold: Annotated[float, Field(ge=0.0, lt=1.0)] = DEFAULT_THRESHOLD,
    picture: str | None = None,
) -> str:
    """Find groups of tiles that are almost equal, and write the group of every tile to a Parquet file.

    One tile of each group is kept: the one with the most valid pixels, and then the first by its id.

    Args:
        dataset: Name of the dataset.
        collection: Name of a collection, in place of a dataset. All tiles of its table are used.
        root: Folder or s3://bucket/prefix of the datasets and collections. The default is the folder rasterembed-store.
        out: File for the groups: .parquet. store:KEY is an object of the store.
        threshold: Largest cosine distance between a tile and the kept tile of its group.
        picture: File for the largest groups as rows of thumbnails: .png. store:KEY is an object of the store.
    """
    return ask(dataset, collection, root, lambda owner: owner.deduplicate(out, threshold, picture=picture))


app = command_app("deduplicate", deduplicate, keeps_work=False)
