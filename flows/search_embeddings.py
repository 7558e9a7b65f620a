"""Find the tiles that are most similar to a tile, a place or an image.

python -m flows.search_embeddings DATASET [--root URI] --tile r000012_c000034 [-k 12] [--out FILE] [--sheet FILE] ...
"""

from __future__ import annotations

if __name__ == "__main__":
    from flows.fast_start import import_prefect

    import_prefect()

import sys
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from prefect import flow
from pydantic import Field

from blocks.object_store import open_store
from blocks.weights import choose_weights
from flows.command import run
from rasterembed.escape import escape_lines
from rasterembed.model.choice import Device, Dinov3
from rasterembed.search.answer import Answer
from rasterembed.search.output import check_outputs
from rasterembed.search.query import DEFAULT_K, MAX_K, EngineChoice, Query, Where
from tasks.policy import log_expected_errors_in_one_line
from tasks.search import SearchRequest, search_datasets, write_results


@flow(name="search-embeddings", flow_run_name="{dataset}")
def search_embeddings(
    dataset: str,
    root: str | None = None,
    store: str | None = None,
    query: Query = Query(),
    where: Where = Where(),
    k: Annotated[int, Field(ge=1, le=MAX_K), Parameter(alias="-k")] = DEFAULT_K,
    out: Path | None = None,
    sheet: Path | None = None,
    engine: EngineChoice = "auto",
    ef_search: Annotated[int, Field(ge=8, le=4096)] | None = None,
    device: Device = "auto",
    weights: str | None = None,
) -> Answer:
    """Find the tiles that are most similar to an example.

    Args:
        dataset: Name of the dataset, or names of several datasets, separated by commas.
        root: Folder or s3://bucket/prefix of the dataset. By default the folder rasterembed-store.
        store: Name of an object-store block, for a bucket with its own endpoint and keys.
        query: The example to look for.
        where: Which tiles may be in the answer.
        k: Number of tiles.
        out: File for the tiles: .geojson, .parquet or .csv.
        sheet: File for a contact sheet of the query and the tiles: .png.
        engine: Search engine. auto uses a vector index if the dataset has one. scan reads every vector.
        ef_search: Number of candidates in a search of the vector index. More candidates find better tiles, but take
            longer.
        device: Device that runs the model, if the example is an image.
        weights: Name of a dinov3-weights block, if the example is an image and the weights are gated.
    """
    log_expected_errors_in_one_line()
    check_outputs(out, sheet)
    target, names = open_store(root, store), [name.strip() for name in dataset.split(",") if name.strip()]
    _, hub_token = choose_weights(Dinov3(), weights)
    answer = search_datasets(target, SearchRequest(names, query, where, k, engine, ef_search, device, hub_token))
    if out or sheet:
        write_results(target, answer, names, out, sheet)
    return answer


if __name__ == "__main__":
    print(escape_lines(run(search_embeddings, sys.argv[1:])))
