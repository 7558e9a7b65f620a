"""The explorer as an ASGI application."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version

from fastapi import FastAPI

from rasterembed.explorer.answer_limit import AnswerLimit
from rasterembed.explorer.body_limit import BodyLimit
from rasterembed.explorer.cards import Cards
from rasterembed.explorer.dependencies import Explorer
from rasterembed.explorer.headers import CheckedSender, SecurityHeaders
from rasterembed.explorer.limits import WorkLimits
from rasterembed.explorer.page_files import PageFiles
from rasterembed.explorer.problems import add_handlers, responses
from rasterembed.explorer.routes import exports, imagery, images, page, qa, search, store, tiles
from rasterembed.explorer.settings import ExplorerSettings
from rasterembed.explorer.sign_in import SignedIn, SignIn
from rasterembed.explorer.views import Views


def create_app(settings: ExplorerSettings) -> FastAPI:
    """Return the service as an ASGI application.

    Args:
        settings: the store, the token, and the limits.
    """
    views = Views(settings.store, settings.limits, settings.device)

    @asynccontextmanager
    async def running(app: FastAPI) -> AsyncIterator[None]:
        yield
        views.close()

    app = FastAPI(
        title="Explorer",
        summary="Look at the datasets and collections of a store, and search them by looking.",
        version=version("raster-embeddings"),
        lifespan=running,
        # FastAPI's documentation pages load scripts from other hosts.
        docs_url=None,
        redoc_url=None,
        openapi_url="/api/openapi.json",
        responses=responses(),
        # Many programs do not follow a redirect, and would show an empty answer.
        redirect_slashes=False,
    )
    sign_in = SignIn(settings)
    app.state.explorer = Explorer(
        settings=settings,
        store=settings.store,
        views=views,
        cards=Cards(settings.store),
        work=WorkLimits(settings.limits),
        page_files=PageFiles(),
        sign_in=sign_in,
    )
    add_handlers(app, settings.store)
    # The last one that is added gets a request first.
    app.add_middleware(BodyLimit, limits=settings.limits)
    app.add_middleware(AnswerLimit, limits=settings.limits)
    app.add_middleware(SignedIn, sign_in=sign_in)
    app.add_middleware(CheckedSender, settings=settings)
    app.add_middleware(SecurityHeaders, settings=settings)
    for module in (page, store, qa, tiles, imagery, search, images, exports):
        app.include_router(module.router)
    return app
