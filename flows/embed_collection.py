"""Embed many scenes as a collection: everything that is new or changed, or that failed before.

python -m flows.embed_collection COLLECTION SCENES [--root URI] [--model ID] ...
"""

from __future__ import annotations

if __name__ == "__main__":
    from flows.fast_start import import_prefect

    import_prefect()

import time
from typing import Annotated, Any

from prefect import flow
from prefect.runtime import flow_run
from pydantic import BaseModel, Field

from blocks.object_store import open_store
from blocks.weights import choose_weights
from flows.command import command
from rasterembed.collection.collection import settings_for
from rasterembed.collection.scene_row import SceneState
from rasterembed.collection.shared_texts import nothing_to_embed
from rasterembed.collection.stac_search import parse_search
from rasterembed.collection_pipeline import CollectionOptions, embed_collection
from rasterembed.dataset.embedding import Execution
from rasterembed.dataset.plan import PlanSettings
from rasterembed.dataset.selection import Selection
from rasterembed.model.choice import Dinov3
from rasterembed.qa.collection_thresholds import CollectionThresholds
from rasterembed.qa.thresholds import QaThresholds
from rasterembed.raster.grid import Grid
from rasterembed.raster.radiometry import Radiometry
from rasterembed.raster.scene import split_assets
from rasterembed.raster.validity import Validity
from rasterembed.search.index_options import TableIndexOptions
from rasterembed.search.next_search import collection_search_command
from rasterembed.store.layout import check_collection_id
from tasks.collection import PrefectCollectionSteps
from tasks.policy import log_expected_errors_in_one_line
from tasks.scene_batches import SceneFleet


class CollectionSummary(BaseModel):
    """The result of a run."""

    collection: str
    state: str
    catalogue: str
    """URI of the catalogue."""
    scenes: int
    """Number of scenes in the collection."""
    ready: int
    """Scenes that passed their quality checks."""
    failed_qa: int
    """Scenes that did not pass them."""
    failed: int
    """Scenes of the listing that could not be embedded."""
    embedded: int
    """Scenes that this run embedded."""
    rows: int
    """Vectors of all scenes together."""
    seconds: float
    """Duration of the whole run."""
    search: str | None = None
    """Command that searches the collection. None if no scene is ready."""
    note: str | None = None
    """A sentence if there was no scene to embed."""


@flow(name="embed-collection", flow_run_name="{collection}")
def embed_collection_flow(
    collection: str,
    scenes: str,
    root: str | None = None,
    store: str | None = None,
    source_store: str | None = None,
    search: dict[str, Any] | None = None,
    assets: list[str] | None = None,
    grid: Grid = Grid(),
    radiometry: Radiometry = Radiometry(),
    validity: Validity = Validity(),
    dinov3: Dinov3 = Dinov3(),
    weights: str | None = None,
    selection: Selection = Selection(),
    execution: Execution = Execution(),
    qa: QaThresholds = QaThresholds(),
    collection_thresholds: CollectionThresholds = CollectionThresholds(),
    max_failed_fraction: Annotated[float, Field(ge=0.0, le=1.0)] = 0.1,
    prune: bool = False,
    table: bool = True,
    vector_index: TableIndexOptions = TableIndexOptions(),
    workers: Annotated[int, Field(ge=1, le=1000)] = 1,
    worker_deployment: str = "embed-scenes/embed-batch-docker",
) -> CollectionSummary:
    """Embed all scenes that are new or changed, or that failed before. Unchanged scenes are not read.

    An existing collection gives its own settings, so leave them out. Other settings are refused.

    Args:
        collection: Name of the collection. A collection that does not exist is made.
        scenes: A folder or s3://bucket/prefix/, a pattern such as 2026/**/*.tif, a list of paths (.txt), a STAC
            document (.json, .geojson), a stac-geoparquet file (.parquet), the URL of a STAC API, or one raster.
        root: Folder or s3://bucket/prefix for the collection. By default the folder rasterembed-store.
        store: Name of an object-store block, for a bucket with its own endpoint and keys.
        source_store: Name of a source-store block, if scenes are read from another server, or over https.
        search: Search of a STAC API as JSON, with collections, bbox, datetime, query or filter.
        assets: Keys or common names of a STAC Item's assets, such as red, green and blue. By default those of the run
            that made the collection, or else the asset visual, else red, green and blue, else the only data asset.
        grid: The tile grid.
        radiometry: How pixel values become colour.
        validity: Which pixels are valid, if the files do not say this or say it wrongly.
        dinov3: The model.
        weights: Name of a dinov3-weights block, instead of the model's id and revision.
        selection: Which tiles are embedded, and how their vectors are stored.
        execution: Settings for speed and memory. They change the vectors only by rounding.
        qa: Bounds that each scene must keep to become ready.
        collection_thresholds: Bounds for the collection as a whole. A breach is shown, and fails no run.
        max_failed_fraction: Largest share of failed scenes with which the run succeeds. The other scenes are embedded
            in any case.
        prune: Delete the datasets of scenes that are gone.
        table: Write the table with the vectors of all ready scenes. Searches of the collection need it.
        vector_index: Whether a vector index of the table is built.
        workers: Number of child runs that share the scenes. With 1, this run embeds all scenes.
        worker_deployment: Deployment of the child runs. Its work pool decides where they run.
    """
    log_expected_errors_in_one_line()
    started = time.monotonic()
    check_collection_id(collection)
    target = open_store(root, store, source_store)
    model, hub_token = choose_weights(dinov3, weights)
    settings = PlanSettings(grid=grid, radiometry=radiometry, validity=validity, model=model, selection=selection)
    options = CollectionOptions(
        settings=settings_for(target, collection, settings),
        assets=split_assets(",".join(assets or ())),
        search=parse_search(search),
        execution=execution,
        qa=qa,
        collection_qa=collection_thresholds,
        max_failed_fraction=max_failed_fraction,
        table=table,
        vector_index=vector_index,
        prune=prune,
    )
    fleet = None
    if workers > 1:
        fleet = SceneFleet(workers, worker_deployment, store, source_store, weights)
    with PrefectCollectionSteps(target, store, fleet) as steps:
        result = embed_collection(
            target, collection, scenes, options, steps=steps, hub_token=hub_token, run_id=str(flow_run.id)
        )
    catalogue = result.collection.catalogue
    states = catalogue.counts()
    return CollectionSummary(
        collection=collection,
        state=result.collection.state.value,
        catalogue=target.uri(result.collection.layout.catalogue),
        scenes=catalogue.count,
        ready=states.get(SceneState.READY, 0),
        failed_qa=states.get(SceneState.FAILED_QA, 0),
        failed=len(result.failed),
        embedded=steps.embedded,
        rows=catalogue.vectors,
        seconds=round(time.monotonic() - started, 2),
        search=collection_search_command(result.collection, store),
        note=nothing_to_embed(result.comparison),
    )


if __name__ == "__main__":
    command(embed_collection_flow)
