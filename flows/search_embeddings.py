"""Find the tiles that are most similar to a tile, a place or an image.

python -m flows.search_embeddings DATASET [--root URI] --tile r000012_c000034 [-k 12] [--out FILE] [--sheet FILE] ...
"""

from __future__ import annotations

if __name__ == "__main__":
    from flows.fast_start import import_prefect

    import_prefect()

import sys
from typing import Annotated

from cyclopts import Parameter
from prefect import flow
from prefect.runtime import flow_run
from pydantic import Field

from blocks.object_store import open_store
from blocks.weights import choose_weights
from flows.command import run
from rasterembed.command_line.command_app import POSITIONAL
from rasterembed.escape import escape_lines
from rasterembed.model.choice import Device, Dinov3
from rasterembed.search.answer import Answer
from rasterembed.search.output_file import find_outputs
from rasterembed.search.query import DEFAULT_K, MAX_K, EngineChoice, Query, Where, dataset_names
from tasks.container import is_worker_container
from tasks.policy import log_expected_errors_in_one_line
from tasks.search import SearchRequest, search_datasets, write_results


def _run_name() -> str:
    """Return the name of a run: what it searches."""
    parameters = flow_run.parameters
    return str(parameters.get("collection") or parameters.get("dataset") or "all datasets")


@flow(name="search-embeddings", flow_run_name=_run_name)
def search_embeddings(
    dataset: Annotated[str | None, POSITIONAL] = None,
    all_datasets: Annotated[bool, Parameter(name="--all", negative=())] = False,
    collection: str | None = None,
    root: str | None = None,
    store: str | None = None,
    source_store: str | None = None,
    *,
    query: Query,
    where: Where = Where(),
    k: Annotated[int, Field(ge=1, le=MAX_K), Parameter(alias="-k")] = DEFAULT_K,
    out: str | None = None,
    sheet: str | None = None,
    engine: EngineChoice = "auto",
    ef_search: Annotated[int, Field(ge=8, le=4096)] | None = None,
    device: Device = "auto",
    weights: str | None = None,
) -> Answer:
    """Find the tiles that are most similar to an example.

    Args:
        dataset: Name of the dataset, or a pattern such as 'incoming-*'. Commas separate several names and patterns. Of
            the datasets that only a pattern names, those that cannot be searched are left out. The answer names them.
        all_datasets: Search all datasets of the store.
        collection: Search the table of this collection: the vectors of all its scenes.
        root: Folder or s3://bucket/prefix of the datasets and collections. By default the folder rasterembed-store.
        store: Name of an object-store block, for a bucket with its own endpoint and keys.
        source_store: Name of a source-store block, if rasters are read from another server, or over https.
        query: The example to look for.
        where: Which tiles may be in the answer.
        k: Number of tiles.
        out: File for the tiles: .geojson, .parquet or .csv. store:KEY is an object of the store. In a container, the
            file must be in the store.
        sheet: File for a contact sheet of the query and the tiles: .png. store:KEY is an object of the store. In a
            container, the file must be in the store.
        engine: Search engine. auto uses a vector index if there is one. scan reads every vector. flat, ivf and vss use
            only a vector index that was built for this engine. Without one, scan answers, and the answer says so.
        ef_search: Number of candidates in a search with the engine vss. More candidates find better tiles, but take
            longer.
        device: Device that runs the model, if the example is an image.
        weights: Name of a dinov3-weights block, if the example is an image and the weights are gated.
    """
    log_expected_errors_in_one_line()
    names, target = dataset_names(dataset, all_datasets, collection), open_store(root, store, source_store)
    inputs = (query.image, where.within, where.class_file)
    tiles, picture = find_outputs(target, out, sheet, local=not is_worker_container(), inputs=inputs)
    _, hub_token = choose_weights(Dinov3(), weights)
    answer = search_datasets(
        target, SearchRequest(names, collection, query, where, k, engine, ef_search, device, hub_token)
    )
    if tiles or picture:
        write_results(target, answer, tiles, picture)
    return answer


if __name__ == "__main__":
    print(escape_lines(run(search_embeddings, sys.argv[1:])))
