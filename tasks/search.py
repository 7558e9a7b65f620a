"""Steps of a search: find the tiles, show the answer as an artifact, and write files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from prefect import get_run_logger, task
from prefect.artifacts import create_markdown_artifact

from rasterembed.artifact_key import artifact_key
from rasterembed.escape import escape_markdown
from rasterembed.model.choice import Device
from rasterembed.number_text import counted
from rasterembed.search.answer import Answer
from rasterembed.search.answer_markdown import answer_markdown
from rasterembed.search.contact_sheet import shown_datasets, write_sheet
from rasterembed.search.open_searcher import open_searcher
from rasterembed.search.output import write_answer
from rasterembed.search.output_file import OutputFile
from rasterembed.search.query import EngineChoice, Query, Where
from rasterembed.store.object_store import ObjectStore
from tasks.policy import STEP


@dataclass(frozen=True)
class SearchRequest:
    """A query, the datasets or the collection to search, and how to search them."""

    dataset_ids: Sequence[str]
    """Names of the datasets, and patterns such as `incoming-*`. Empty if a collection is searched."""
    collection: str | None
    """Name of the collection to search. None if datasets are searched."""
    query: Query
    """The example to look for."""
    where: Where
    """Which tiles may be in the answer."""
    k: int
    """Number of tiles."""
    engine: EngineChoice
    """Search engine."""
    ef_search: int | None
    """Number of candidates in a search with the engine `vss`. None: the number with which the index was built."""
    device: Device
    """Device that runs the model, if the example is an image."""
    hub_token: str | None = field(repr=False)
    """Access token for gated weights."""


@task(name="search", **STEP)
def search_datasets(store: ObjectStore, request: SearchRequest) -> Answer:
    """Search, and show the answer as an artifact of the run. See `open_searcher` of the library."""
    with open_searcher(
        store,
        request.dataset_ids,
        request.collection,
        engine=request.engine,
        ef_search=request.ef_search,
        device=request.device,
        hub_token=request.hub_token,
        model_of=request.query.dataset_of_example,
    ) as searcher:
        answer = searcher.ask(request.query, request.where, request.k)
        markdown = answer_markdown(answer, searcher.datasets_of(answer))
    create_markdown_artifact(
        key=artifact_key("search", request.collection or request.dataset_ids[0]),
        description=f"{counted(len(answer.hits), 'tile')} most similar to {escape_markdown(answer.summary())}",
        markdown=markdown,
    )
    return answer


@task(name="write-results", **STEP)
def write_results(store: ObjectStore, answer: Answer, out: OutputFile | None, sheet: OutputFile | None) -> None:
    """Write the tiles and the contact sheet to files; see `rasterembed.search.output` and `.contact_sheet`."""
    if out is not None:
        write_answer(answer, out)
        get_run_logger().info("%d tiles in %s", len(answer.hits), out)
    if sheet is not None:
        write_sheet(answer, shown_datasets(store, answer), sheet)
        get_run_logger().info("contact sheet in %s", sheet)
