"""Open the searcher of a collection, or of datasets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rasterembed.model.choice import Device
from rasterembed.search.query import EngineChoice
from rasterembed.slow_imports import collector_paused
from rasterembed.store.object_store import ObjectStore

if TYPE_CHECKING:
    from rasterembed.search.collection_searcher import CollectionSearcher
    from rasterembed.search.searcher import Searcher


def open_searcher(
    store: ObjectStore,
    dataset_ids: Sequence[str],
    collection_id: str | None,
    *,
    engine: EngineChoice = "auto",
    ef_search: int | None = None,
    device: Device = "auto",
    hub_token: str | None = None,
    model_of: str | None = None,
) -> Searcher | CollectionSearcher:
    """Return a searcher of a collection, or of datasets if `collection_id` is None.

    See `CollectionSearcher` and `Searcher` for the parameters.
    """
    # Only the needed class is imported. The searcher of a collection imports DuckDB and rasterio, which take long.
    if collection_id is None:
        with collector_paused():
            from rasterembed.search.searcher import Searcher

        return Searcher(
            store,
            dataset_ids,
            engine=engine,
            ef_search=ef_search,
            device=device,
            hub_token=hub_token,
            model_of=model_of,
        )
    with collector_paused():
        from rasterembed.search.collection_searcher import CollectionSearcher

    return CollectionSearcher(
        store, collection_id, engine=engine, ef_search=ef_search, device=device, hub_token=hub_token
    )
