"""Compute some shards of a dataset.

The flow `raster-embeddings` starts runs of this flow if the parameter `workers` is above 0.
"""

from __future__ import annotations

import sys
from typing import Annotated

from prefect import flow
from prefect.runtime import flow_run
from pydantic import BaseModel, Field

from blocks.object_store import open_store
from blocks.weights import choose_weights
from flows.child_flow import explain
from rasterembed.dataset.embedding import EmbeddingJob, Execution, Progress
from rasterembed.dataset.plan import Plan
from rasterembed.model.choice import Device, Dinov3, resolve_device
from rasterembed.store.layout import check_dataset_id
from rasterembed.store.object_store import locate
from tasks.embed import embed_shards
from tasks.policy import log_expected_errors_in_one_line
from tasks.progress import shown


class Share(BaseModel):
    """The result of a run of `embed-shards`."""

    dataset_id: str
    first: int
    stop: int
    rows: int
    """Tiles embedded."""
    skipped: int
    """Tiles skipped."""


@flow(name="embed-shards", flow_run_name="{dataset_id}-{first:05d}-{stop:05d}")
def embed_share(
    dataset_id: str,
    fingerprint: str,
    first: Annotated[int, Field(ge=0)],
    stop: Annotated[int, Field(ge=1)],
    rasters: tuple[str, ...] = (),
    root: str | None = None,
    store: str | None = None,
    source_store: str | None = None,
    weights: str | None = None,
    execution: Execution = Execution(),
    device: Device = "auto",
) -> Share:
    """Compute the incomplete shards of a range. The plan in the store has all settings that determine the vectors.

    Args:
        dataset_id: Name of the dataset.
        fingerprint: Fingerprint of the plan that the parent run wrote into the store.
        first: Number of the first shard.
        stop: Number after the last shard.
        rasters: Files that the parent run was given. If the store is on S3, this run may read these local files.
        root: Folder or s3://bucket/prefix of the dataset.
        store: Name of an object-store block, for a bucket with its own endpoint and keys.
        source_store: Name of a source-store block, if rasters are read from another server, or over https.
        weights: Name of a dinov3-weights block, for weights that need a token.
        execution: Settings for speed and memory. They change the vectors only by rounding.
        device: Where the model runs.
    """
    log_expected_errors_in_one_line()
    target = open_store(root, store, source_store)
    target = target.allowing(*map(locate, rasters))
    _, hub_token = choose_weights(Dinov3(), weights)
    plan = Plan.read(target, check_dataset_id(dataset_id), fingerprint)
    numbers = range(first, min(stop, plan.sharding.count))
    job = EmbeddingJob(execution, resolve_device(device), hub_token, str(flow_run.id))
    progress = Progress(sum(map(plan.sharding.planned, numbers)))
    with shown(progress, f"{plan.dataset_id}-{numbers.start}-{numbers.stop}"):
        shards = embed_shards(target, plan, job, progress, numbers)
    return Share(
        dataset_id=dataset_id,
        first=first,
        stop=stop,
        rows=sum(shard.rows for shard in shards),
        skipped=sum(shard.skipped for shard in shards),
    )


EXPLANATION = (
    "This flow is not a command. It computes some shards of a dataset. A run of raster-embeddings starts it "
    "through its deployment, if the parameter workers is above 0: see docs/scaling.md.\n"
    "To compute a dataset: python -m flows.raster_embeddings --help"
)
"""Text that a person sees who starts this flow as a command."""


if __name__ == "__main__":
    explain(sys.argv[1:], EXPLANATION)
