"""`rasterembed search`: find the tiles that are most similar to a tile, a place or an image."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from pydantic import Field

from rasterembed.commands.command_app import command_app
from rasterembed.model.choice import Device
from rasterembed.search.query import DEFAULT_K, MAX_K, EngineChoice, Query, Where
from rasterembed.store.object_store import open_store


def search(
    dataset: str,
    root: str | None = None,
    query: Query = Query(),
    where: Where = Where(),
    k: Annotated[int, Field(ge=1, le=MAX_K), Parameter(alias="-k")] = DEFAULT_K,
    out: Path | None = None,
    sheet: Path | None = None,
    engine: EngineChoice = "auto",
    ef_search: Annotated[int, Field(ge=8, le=4096)] | None = None,
    device: Device = "auto",
) -> str:
    """Find the tiles that are most similar to an example.

    Args:
        dataset: Name of the dataset, or names of several datasets, separated by commas.
        root: Folder or s3://bucket/prefix of the dataset. The default is the folder rasterembed-store.
        query: The example to look for.
        where: Which tiles may be in the answer.
        k: Number of tiles.
        out: File for the tiles: .geojson, .parquet or .csv.
        sheet: File for a contact sheet of the query and the tiles: .png.
        engine: Search engine. auto uses a vector index if the dataset has one. scan reads every vector.
        ef_search: Number of candidates in a search of the vector index. More candidates find better tiles, but take
            longer.
        device: Device that runs the model, if the example is an image.
    """
    # DuckDB and pyarrow take too long to import for a command that only prints its help or a usage error.
    from rasterembed.search.contact_sheet import write_sheet
    from rasterembed.search.output import check_outputs, write_answer
    from rasterembed.search.searcher import Searcher

    check_outputs(out, sheet)
    names = [name.strip() for name in dataset.split(",") if name.strip()]
    with Searcher(open_store(root), names, engine=engine, ef_search=ef_search, device=device) as searcher:
        answer = searcher.ask(query, where, k)
        if out is not None:
            write_answer(answer, out)
        if sheet is not None:
            write_sheet(answer, searcher.datasets, sheet)
    return str(answer)


app = command_app("search", search)
