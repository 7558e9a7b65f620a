"""The explorer as an ASGI application."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from rasterembed.explorer.dependencies import Explorer
from rasterembed.explorer.limits import WorkLimits
from rasterembed.explorer.problems import add_handlers, responses
from rasterembed.explorer.routes import exports, imagery, images, qa, search, store, tiles
from rasterembed.explorer.settings import ExplorerSettings
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
        lifespan=running,
        # FastAPI's documentation pages load scripts from other hosts.
        docs_url=None,
        redoc_url=None,
        openapi_url="/api/openapi.json",
        responses=responses(),
    )
    app.state.explorer = Explorer(settings, settings.store, views, WorkLimits(settings.limits))
    add_handlers(app)
    for module in (store, qa, tiles, imagery, search, images, exports):
        app.include_router(module.router)
    return app
