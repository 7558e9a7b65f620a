"""The main flow: compute a DINOv3 vector for each tile of a raster, and write a dataset that can be searched.

python -m flows.raster_embeddings RASTER [--root URI] [--model ID] [--dataset-id ID] ...
"""

from __future__ import annotations

if __name__ == "__main__":
    from flows.fast_start import import_prefect

    import_prefect()

import time
from typing import Annotated

from prefect import flow
from prefect.runtime import flow_run
from pydantic import BaseModel, Field

from blocks.object_store import open_store
from blocks.weights import choose_weights
from flows.command import command
from rasterembed.dataset.embedding import Execution
from rasterembed.dataset.selection import Selection
from rasterembed.model.choice import Dinov3
from rasterembed.pipeline import EmbedOptions, embed_raster
from rasterembed.qa.thresholds import QaThresholds
from rasterembed.raster.grid import Grid
from rasterembed.raster.radiometry import Radiometry
from rasterembed.raster.scene import split_assets
from rasterembed.raster.validity import Validity
from rasterembed.search.index_options import VectorIndexOptions
from rasterembed.search.next_search import search_command
from tasks.policy import log_expected_errors_in_one_line
from tasks.steps import PrefectSteps
from tasks.workers import Fleet


class Summary(BaseModel):
    """The result of a run."""

    dataset_id: str
    state: str
    manifest: str
    """URI of the manifest."""
    rows: int
    """Tiles embedded."""
    skipped: int
    """Tiles skipped."""
    seconds: float
    """Duration of the whole run."""
    tiles_per_second: float
    """Speed while shards were computed. 0 if no shard was computed."""
    search: str | None = None
    """Command that searches the dataset. None if no tile was embedded."""
    note: str | None = None
    """A sentence if the dataset was complete before this run. Nothing was computed then."""


@flow(name="raster-embeddings", flow_run_name="{raster}")
def raster_embeddings(
    raster: str,
    root: str | None = None,
    store: str | None = None,
    source_store: str | None = None,
    dataset_id: str | None = None,
    assets: str | None = None,
    grid: Grid = Grid(),
    radiometry: Radiometry = Radiometry(),
    validity: Validity = Validity(),
    dinov3: Dinov3 = Dinov3(),
    weights: str | None = None,
    selection: Selection = Selection(),
    execution: Execution = Execution(),
    qa: QaThresholds = QaThresholds(),
    search: VectorIndexOptions = VectorIndexOptions(),
    replace: bool = False,
    workers: Annotated[int, Field(ge=0, le=1000)] = 0,
    worker_deployment: str = "embed-shards/embed-share-docker",
) -> Summary:
    """Embed a raster. Work that is complete is never done again.

    Args:
        raster: Path or s3://bucket/key of a raster or of a STAC Item. Several files, one for each channel, are written
            as red=B04.tif,green=B03.tif,blue=B02.tif.
        root: Folder or s3://bucket/prefix for the dataset. By default the folder rasterembed-store.
        store: Name of an object-store block, for a bucket with its own endpoint and keys.
        source_store: Name of a source-store block, if rasters are read from another server, or over https.
        dataset_id: Name of the dataset. By default it is made from the raster's path.
        assets: Keys or common names of a STAC Item's assets, as red,green,blue. By default the asset visual, else red,
            green and blue, else the only data asset.
        grid: The tile grid.
        radiometry: How pixel values become colour.
        validity: Which pixels are valid, if the file does not say this or says it wrongly.
        dinov3: The model.
        weights: Name of a dinov3-weights block, instead of the model's id and revision.
        selection: Which tiles are embedded, and how their vectors are stored.
        execution: Settings for speed and memory. They change the vectors only by rounding.
        qa: Bounds that the dataset must keep to become ready.
        search: Whether a vector index is built.
        replace: If the dataset exists with another configuration, replace the dataset.
        workers: Number of child runs that share the work. With 0, this run computes all shards.
        worker_deployment: Deployment of the child runs. Its work pool decides where they run.
    """
    log_expected_errors_in_one_line()
    started = time.monotonic()
    target = open_store(root, store, source_store)
    model, hub_token = choose_weights(dinov3, weights)
    options = EmbedOptions(
        dataset_id=dataset_id,
        assets=split_assets(assets),
        grid=grid,
        radiometry=radiometry,
        validity=validity,
        model=model,
        selection=selection,
        execution=execution,
        qa=qa,
        search=search,
        replace=replace,
    )
    fleet = None
    if workers:
        fleet = Fleet(workers, worker_deployment, store, source_store, weights, execution, model.device)
    result = embed_raster(
        target, raster, options, steps=PrefectSteps(fleet, store), hub_token=hub_token, run_id=str(flow_run.id)
    )
    manifest, seconds = result.manifest, result.embedding_seconds
    return Summary(
        dataset_id=manifest.dataset_id,
        state=manifest.state,
        manifest=target.uri(result.plan.layout.manifest),
        rows=manifest.rows,
        skipped=manifest.skipped,
        seconds=round(time.monotonic() - started, 2),
        tiles_per_second=round(result.computed_tiles / seconds, 2) if seconds else 0.0,
        search=search_command(target, manifest, store),
        note="the dataset was already complete, so nothing was computed" if result.already_complete else None,
    )


if __name__ == "__main__":
    command(raster_embeddings)
