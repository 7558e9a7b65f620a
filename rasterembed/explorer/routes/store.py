"""The content of the store: cards, details of a view, and progress of runs."""

from __future__ import annotations

from importlib.metadata import version

from fastapi import APIRouter
from pydantic import BaseModel

from rasterembed.explorer.cards import Card, Running
from rasterembed.explorer.dependencies import KNOWN_PARAMETERS, UsedExplorer, UsedView
from rasterembed.explorer.details import ViewDetails, details_of
from rasterembed.explorer.problems import responses
from rasterembed.explorer.views import ViewKind

router = APIRouter(prefix="/api", tags=["store"], dependencies=[KNOWN_PARAMETERS])


class StoreContent(BaseModel):
    """The store with its datasets and collections."""

    root: str
    """Folder or s3://bucket/prefix of the store."""
    version: str
    """Version of this software."""
    prefect_ui: str | None
    """Address of Prefect's pages, if it is configured."""
    basemap: str | None
    """Address of the map tiles of a base map, if it is configured."""
    basemap_attribution: str | None
    """Text that names the owners of the base map, if it is configured."""
    signed_in: bool
    """Whether the service has a token, which the request showed. A person can then sign out."""
    datasets: list[Card]
    """The datasets. Those of a collection are left out."""
    collections: list[Card]


@router.get("/store", responses=responses(502))
async def get_store(explorer: UsedExplorer) -> StoreContent:
    """Return the cards of all datasets and collections."""
    cards, settings = await explorer.work.store.run(explorer.cards.all), explorer.settings
    return StoreContent(
        root=explorer.store.root,
        version=version("raster-embeddings"),
        prefect_ui=settings.prefect_ui,
        basemap=settings.basemap,
        basemap_attribution=settings.basemap_attribution,
        signed_in=settings.token is not None,
        datasets=[card for card in cards if card.kind is ViewKind.DATASETS],
        collections=[card for card in cards if card.kind is ViewKind.COLLECTIONS],
    )


@router.get("/progress", responses=responses(502))
async def get_progress(explorer: UsedExplorer) -> list[Running]:
    """Return the datasets that are unfinished or being replaced, and the collections whose run has not ended."""
    return await explorer.work.store.run(explorer.cards.running)


@router.get("/{kind}/{id}", responses=responses(404, 409, 502))
async def get_view(view: UsedView, explorer: UsedExplorer) -> ViewDetails:
    """Return the details of a dataset or a collection."""
    return await explorer.work.store.run(lambda: details_of(view, explorer.settings.prefect_ui))
