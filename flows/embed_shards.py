"""A share of a dataset's shards, on a worker: `raster-embeddings` starts these with `workers=N`."""

from __future__ import annotations

from typing import Annotated

from prefect import flow
from pydantic import BaseModel, Field

from blocks.object_store import open_store
from blocks.weights import choose_weights
from rasterembed.dataset.plan import Plan
from rasterembed.model.choice import Device, Dinov3
from rasterembed.pipeline import Execution
from rasterembed.store.layout import check_dataset_id
from tasks.embed import embed_shards
from tasks.policy import log_expected_errors_in_one_line


class Share(BaseModel):
    """What a run ends with."""

    dataset_id: str
    first: int
    stop: int
    rows: int
    """Tiles embedded."""
    skipped: int


@flow(name="embed-shards", flow_run_name="{dataset_id}-{first:05d}-{stop:05d}")
def embed_share(
    dataset_id: str,
    fingerprint: str,
    first: Annotated[int, Field(ge=0)],
    stop: Annotated[int, Field(ge=1)],
    root: str | None = None,
    store: str | None = None,
    weights: str | None = None,
    execution: Execution = Execution(),
    device: Device = "auto",
) -> Share:
    """Compute those of some shards that are not complete; everything else stands in the plan in the store.

    Args:
        dataset_id: Name of the dataset.
        fingerprint: Of the plan, which the parent run put into the store.
        first: Number of the first shard.
        stop: Number after the last shard.
        root: Folder or s3://bucket/prefix of the dataset.
        store: Name of an object-store block, for a bucket with its own endpoint and keys.
        weights: Name of a dinov3-weights block, for weights that ask for a token.
        execution: How the work is done; changes nothing of the result.
        device: Where the model runs.
    """
    log_expected_errors_in_one_line()
    target = open_store(root, store)
    _, hub_token = choose_weights(Dinov3(), weights)
    plan = Plan.read(target, check_dataset_id(dataset_id), fingerprint)
    shards = embed_shards(plan, target, execution, device, hub_token, range(first, min(stop, plan.sharding.count)))
    return Share(
        dataset_id=dataset_id,
        first=first,
        stop=stop,
        rows=sum(shard.rows for shard in shards),
        skipped=sum(shard.skipped for shard in shards),
    )
