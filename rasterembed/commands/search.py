"""`rasterembed search`: find the tiles that are most similar to a tile, a place or an image."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter
from pydantic import Field

from rasterembed.command_line.command_app import POSITIONAL, command_app
from rasterembed.command_line.command_store import open_command_store
from rasterembed.command_line.wrong_options import in_command_words
from rasterembed.errors import RasterEmbedError, told_when_interrupted
from rasterembed.escape import escape_lines
from rasterembed.model.choice import Device
from rasterembed.search.output_file import find_outputs, picture_after
from rasterembed.search.query import DEFAULT_K, MAX_K, EngineChoice, Query, Where, dataset_names
from rasterembed.store.known_collections import check_known_collection
from rasterembed.store.known_datasets import check_known
from rasterembed.store.layout import is_pattern


def search(
    dataset: Annotated[str | None, POSITIONAL] = None,
    all_datasets: Annotated[bool, Parameter(name="--all", negative=())] = False,
    collection: str | None = None,
    root: str | None = None,
    *,
    query: Query,
    where: Where = Where(),
    k: Annotated[int, Field(ge=1, le=MAX_K), Parameter(alias="-k")] = DEFAULT_K,
    out: str | None = None,
    sheet: str | None = None,
    engine: EngineChoice = "auto",
    ef_search: Annotated[int, Field(ge=8, le=4096)] | None = None,
    device: Device = "auto",
) -> str:
    """Find the tiles that are most similar to an example.

    Args:
        dataset: Name of the dataset, or a pattern such as 'incoming-*'. Commas separate several names and patterns. A
            dataset that only a pattern names is left out if it cannot be searched, and the answer says so.
        all_datasets: Search all datasets of the store.
        collection: Search the table of this collection: the vectors of all its scenes.
        root: Folder or s3://bucket/prefix of the datasets and collections. The default is the folder rasterembed-store.
        query: The example to look for.
        where: Which tiles may be in the answer.
        k: Number of tiles.
        out: File for the tiles: .geojson, .parquet or .csv. store:KEY is an object of the store.
        sheet: File for a contact sheet of the query and the tiles: .png. store:KEY is an object of the store.
        engine: Search engine. auto uses a vector index if there is one. scan reads every vector. flat, ivf and vss use
            only a vector index that was built for this engine. Without one, scan answers, and the answer says so.
        ef_search: Number of candidates in a search with the engine vss. More candidates find better tiles, but take
            longer.
        device: Device that runs the model, if the example is an image.
    """
    names, store = dataset_names(dataset, all_datasets, collection), open_command_store(root)
    tiles, picture = find_outputs(store, out, sheet, inputs=(query.image, where.within, where.class_file))
    if collection is None:
        check_known(store, [name for name in names if not is_pattern(name)])
    else:
        check_known_collection(store, collection)
    # Import the searcher only when the command runs. It imports pyarrow, which would delay the help.
    from rasterembed.search.open_searcher import open_searcher

    model_of = query.dataset_of_example
    with (
        told_when_interrupted(lambda: None if tiles is None and picture is None else "no file was written"),
        open_searcher(
            store, names, collection, engine=engine, ef_search=ef_search, device=device, model_of=model_of
        ) as searcher,
    ):
        answer = searcher.ask(query, where, k)
        try:
            if tiles is not None:
                from rasterembed.search.output import write_answer

                write_answer(answer, tiles)
            if picture is not None:
                from rasterembed.search.contact_sheet import write_sheet

                with picture_after(tiles):
                    write_sheet(answer, searcher.datasets_of(answer), picture)
        except RasterEmbedError:
            # The answer is complete without the files. A sheet fails, for example, if a raster is away.
            print(escape_lines(in_command_words(str(answer))))
            raise
    written = [f"written: {file}" for file in (tiles, picture) if file is not None]
    return "\n".join([str(answer), *written])


app = command_app("search", search, keeps_work=False)
