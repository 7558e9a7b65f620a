"""The main flow: a raster becomes a searchable dataset of DINOv3 tile embeddings.

python -m flows.raster_embeddings RASTER [--root URI] [--model ID] [--dataset-id ID] ...
"""

from __future__ import annotations

if __name__ == "__main__":
    from flows.fast_start import import_prefect

    import_prefect()

import time
from typing import Annotated

from prefect import flow, get_run_logger
from prefect.runtime import flow_run
from pydantic import BaseModel, Field

from blocks.object_store import open_store
from blocks.weights import choose_weights
from flows.command import command
from rasterembed.dataset.manifest import set_state, standing
from rasterembed.dataset.plan import Selection
from rasterembed.model.choice import Dinov3
from rasterembed.pipeline import Execution
from rasterembed.qa.report import QaReport
from rasterembed.qa.thresholds import QaThresholds
from rasterembed.raster.grid import Grid
from rasterembed.raster.radiometry import Radiometry
from rasterembed.raster.source import default_dataset_id
from rasterembed.search.options import VectorIndexOptions
from rasterembed.store.layout import check_dataset_id
from rasterembed.store.lease import hold_lease
from tasks.commit import commit_dataset, publish_summary
from tasks.embed import embed_shards
from tasks.index import build_search_index
from tasks.inspect import inspect_raster
from tasks.plan import plan_tiles, write_tile_index
from tasks.policy import log_expected_errors_in_one_line
from tasks.qa import qa_metrics
from tasks.register import register_raster
from tasks.workers import Fleet, embed_on_workers


class Summary(BaseModel):
    """What a run ends with."""

    dataset_id: str
    state: str
    manifest: str
    rows: int
    skipped: int
    seconds: float
    """Of the whole run."""
    tiles_per_second: float
    """While shards were computed; 0 if none was."""


@flow(name="raster-embeddings", flow_run_name="{raster}")
def raster_embeddings(
    raster: str,
    root: str | None = None,
    store: str | None = None,
    dataset_id: str | None = None,
    grid: Grid = Grid(),
    radiometry: Radiometry = Radiometry(),
    dinov3: Dinov3 = Dinov3(),
    weights: str | None = None,
    selection: Selection = Selection(),
    execution: Execution = Execution(),
    qa: QaThresholds = QaThresholds(),
    search: VectorIndexOptions = VectorIndexOptions(),
    replace: bool = False,
    workers: Annotated[int, Field(ge=0, le=1000)] = 0,
    worker_deployment: str = "embed-shards/docker",
) -> Summary:
    """Embed a raster, once: what is complete already is never computed again.

    Args:
        raster: Path of the raster, or s3://bucket/key.
        root: Folder or s3://bucket/prefix that the dataset goes to; by default rasterembed-store here.
        store: Name of an object-store block, for a bucket with its own endpoint and keys.
        dataset_id: Name of the dataset; by default made of the raster's key.
        grid: The tile grid.
        radiometry: How pixel values become colour.
        dinov3: The model.
        weights: Name of a dinov3-weights block, instead of the model's id and revision.
        selection: Which tiles are embedded, and how the vectors are kept.
        execution: How the work is done; changes nothing of the result.
        qa: What the dataset must hold to become ready.
        search: Whether a search index is built.
        replace: Embed anew if the dataset exists with another configuration.
        workers: Number of child runs that the shards are dealt to; 0 embeds in this run.
        worker_deployment: Deployment that the child runs are of; its work pool says where they run.
    """
    log_expected_errors_in_one_line()
    started, embedding, log = time.monotonic(), 0.0, get_run_logger()
    report: QaReport | None = None
    if dataset_id is not None:
        check_dataset_id(dataset_id)
    target = open_store(root, store)
    model, hub_token = choose_weights(dinov3, weights)

    source = register_raster(target, raster)
    profile = inspect_raster(target, source, allow_no_crs=selection.allow_no_crs)
    plan = plan_tiles(
        target,
        source,
        dataset_id or default_dataset_id(source.uri),
        profile,
        grid,
        radiometry,
        model,
        selection,
        hub_token,
    )
    run_id = str(flow_run.id)
    with hold_lease(target, plan.layout, run_id, wait_s=execution.lease_wait, on_wait=log.info) as lease:
        manifest = standing(plan, target, replace=replace)
        if manifest is None:
            write_tile_index(plan, target)
            begun = time.monotonic()
            if workers:
                fleet = Fleet(workers, worker_deployment, store, weights, execution, model.device)
                shards = embed_on_workers(plan, target, fleet)
            else:
                shards = embed_shards(plan, target, execution, model.device, hub_token)
            embedding = time.monotonic() - begun
            manifest = commit_dataset(plan, target, shards, lease)
            report = qa_metrics(target, manifest, qa)
            if report.passed:
                build_search_index(target, manifest, search)
            manifest = set_state(target, manifest, "ready" if report.passed else "failed_qa")
    publish_summary(manifest, plan, target)
    if report is not None:
        report.check()

    return Summary(
        dataset_id=manifest.dataset_id,
        state=manifest.state,
        manifest=target.uri(plan.layout.manifest),
        rows=manifest.rows,
        skipped=manifest.skipped,
        seconds=round(time.monotonic() - started, 2),
        tiles_per_second=round(manifest.tiles / embedding, 2) if embedding else 0.0,
    )


if __name__ == "__main__":
    command(raster_embeddings)
