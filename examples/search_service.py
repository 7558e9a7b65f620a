"""Answer searches over HTTP with a process for each core.

    ROOT=embeddings DATASETS=scene uvicorn examples.search_service:app --workers 2

Threads of one Python process share the interpreter, so ten clients get hardly more answers from one process than one
client does. Each process here opens its own searcher. The system maps the files of the vector index into memory once
for all processes.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI, HTTPException, Request

from rasterembed import ObjectStore
from rasterembed.errors import RasterEmbedError
from rasterembed.search.query import Query
from rasterembed.search.searcher import Searcher


@asynccontextmanager
async def _searcher(app: FastAPI) -> AsyncIterator[None]:
    """Open the searcher of this process, and close it at the end."""
    with Searcher(ObjectStore(root=os.environ["ROOT"]), os.environ["DATASETS"].split(",")) as searcher:
        app.state.searcher = searcher
        yield


app = FastAPI(lifespan=_searcher)


@app.get("/similar/{tile}")
def similar(request: Request, tile: str, k: int = 10) -> dict[str, float]:
    """Return the most similar tiles with their distances, the nearest first."""
    try:
        answer = request.app.state.searcher.ask(Query(tile=tile), k=k)
    except RasterEmbedError as error:
        raise HTTPException(422, str(error)) from error
    return {f"{hit.dataset_id}/{hit.tile_id}": hit.distance for hit in answer.hits}
