"""What the endpoints of all routes take as parameters: the service, a view, and a slot for much work."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Annotated, cast

from fastapi import Depends, Path, Request
from fastapi.concurrency import run_in_threadpool

from rasterembed.explorer.cards import Cards
from rasterembed.explorer.limits import WorkLimits
from rasterembed.explorer.page_files import PageFiles
from rasterembed.explorer.problems import ProblemError, ProblemType
from rasterembed.explorer.settings import ExplorerSettings
from rasterembed.explorer.sign_in import SignIn
from rasterembed.explorer.views import View, ViewKind, Views
from rasterembed.explorer.wrong_requests import wrong_parameter
from rasterembed.store.layout import MAX_ID_LETTERS
from rasterembed.store.object_store import ObjectStore


@dataclass(frozen=True)
class Explorer:
    """The running service."""

    settings: ExplorerSettings
    store: ObjectStore
    views: Views
    cards: Cards
    work: WorkLimits
    page_files: PageFiles
    sign_in: SignIn


async def _explorer(request: Request) -> Explorer:
    # FastAPI calls functions that are not `async` in another thread, which takes longer than this one.
    return cast(Explorer, request.app.state.explorer)


UsedExplorer = Annotated[Explorer, Depends(_explorer)]
"""The running service, as the parameter of an endpoint."""


async def _known_parameters(request: Request) -> None:
    problem = wrong_parameter(request)
    if problem is not None:
        raise ProblemError(422, ProblemType.WRONG_REQUEST, problem)


KNOWN_PARAMETERS = Depends(_known_parameters)
"""For `dependencies=[KNOWN_PARAMETERS]` of a router: an unknown parameter may be a filter that would have no effect."""

Kind = Annotated[ViewKind, Path(description="`datasets` or `collections`.")]
Id = Annotated[
    str,
    Path(
        description="Id of the dataset or collection.",
        min_length=1,
        max_length=MAX_ID_LETTERS,
        json_schema_extra={"pattern": "^[a-z0-9._-]+$"},  # The error of pydantic would show it.
    ),
]


async def _search_slot(request: Request, explorer: UsedExplorer) -> AsyncIterator[None]:
    async with explorer.work.searches.slot(request):
        yield


async def _drawing_slot(request: Request, explorer: UsedExplorer) -> AsyncIterator[None]:
    async with explorer.work.drawings.slot(request):
        yield


# With the scope `function`, a slot is free before the answer is sent. A client that reads slowly holds no slot.
SEARCH_SLOT = Depends(_search_slot, scope="function")
"""For `dependencies=[SEARCH_SLOT]` of an endpoint that compares vectors or runs the model."""

DRAWING_SLOT = Depends(_drawing_slot, scope="function")
"""For `dependencies=[DRAWING_SLOT]` of an endpoint that reads pixels or draws."""


async def _view(kind: Kind, id: Id, explorer: UsedExplorer) -> AsyncIterator[View]:
    used = explorer.views.use(kind, id)
    view = await explorer.work.store.run(used.__enter__)
    try:
        yield view
    finally:
        # To close a view asks the store nothing.
        await run_in_threadpool(used.__exit__, None, None, None)


UsedView = Annotated[View, Depends(_view)]
"""The view that the path names, as the parameter of an endpoint. It stays open until the answer is sent."""
