"""`rasterembed diversify`: choose tiles that differ as much as possible."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter
from pydantic import Field

from rasterembed.command_line.command_app import POSITIONAL, command_app
from rasterembed.commands.all_tiles import ask
from rasterembed.search.batch.limits import DEFAULT_SAMPLE, DEFAULT_VALID_FRACTION, MAX_SAMPLE


def diversify(
    dataset: Annotated[str | None, POSITIONAL] = None,
    collection: str | None = None,
    root: str | None = None,
    *,
    out: str,
    count: Annotated[int, Field(ge=1, le=MAX_SAMPLE), Parameter(alias="-n")] = DEFAULT_SAMPLE,
    min_valid_fraction: Annotated[float, Field(ge=0.0, le=1.0)] = DEFAULT_VALID_FRACTION,
    seed: Annotated[int, Field(ge=0)] | None = None,
    picture: str | None = None,
) -> str:
    """Choose tiles that differ as much as possible, for example to label them.

    Args:
        dataset: Name of the dataset.
        collection: Name of a collection, in place of a dataset. All tiles of its table are used.
        root: Folder or s3://bucket/prefix of the datasets and collections. The default is the folder rasterembed-store.
        out: File for the tiles: .geojson, .parquet or .csv. store:KEY is an object of the store.
        count: Number of tiles.
        min_valid_fraction: Smallest share of valid pixels of a chosen tile.
        seed: Begin with a random tile, chosen by this seed. By default, the tile nearest to the mean is the first.
        picture: File for a sheet with the chosen tiles: .png. store:KEY is an object of the store.
    """
    return ask(
        dataset,
        collection,
        root,
        lambda owner: owner.diversify(out, count, min_valid_fraction=min_valid_fraction, seed=seed, picture=picture),
    )


app = command_app("diversify", diversify, keeps_work=False)
