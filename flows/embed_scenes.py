"""Embed a batch of scenes of a collection.

The flow `embed-collection` starts runs of this flow if the parameter `workers` is above 1.
"""

from __future__ import annotations

import sys
from functools import partial
from typing import Annotated

from prefect import flow
from prefect.runtime import flow_run
from pydantic import BaseModel, Field

from blocks.object_store import open_store
from blocks.weights import choose_weights
from flows.child_flow import explain
from rasterembed.collection.scene_row import SceneState
from rasterembed.model.choice import Dinov3
from rasterembed.scene_batches import Batch, read_batch, write_rows
from rasterembed.store.layout import CollectionLayout
from rasterembed.store.lease import Lease
from tasks.policy import log_expected_errors_in_one_line
from tasks.progress import shown
from tasks.scene_batches import CountedScenes, embed_batch, embed_counted


class BatchSummary(BaseModel):
    """The result of a run of `embed-scenes`."""

    collection: str
    first: int
    stop: int
    embedded: int
    """Scenes that are embedded."""
    failed: int
    """Scenes that could not be embedded."""
    rows: int
    """Vectors of these scenes."""


@flow(name="embed-scenes", flow_run_name="{collection}-{first:06d}-{stop:06d}")
def embed_scenes_flow(
    collection: str,
    lease: Annotated[int, Field(ge=1)],
    first: Annotated[int, Field(ge=0)],
    stop: Annotated[int, Field(ge=1)],
    sha256: str,
    root: str | None = None,
    store: str | None = None,
    source_store: str | None = None,
    weights: str | None = None,
) -> BatchSummary:
    """Embed the incomplete scenes of a batch. The file of the batch in the store has all settings.

    Args:
        collection: Name of the collection.
        lease: Number of the lease that the parent run holds on the collection.
        first: Number of the batch's first scene in the parent run.
        stop: Number after the last scene.
        sha256: SHA-256 digest of the batch that the parent run wrote into the store.
        root: Folder or s3://bucket/prefix of the collection.
        store: Name of an object-store block, for a bucket with its own endpoint and keys.
        source_store: Name of a source-store block, if scenes are read from another server than the store's.
        weights: Name of a dinov3-weights block, for weights that need a token.
    """
    log_expected_errors_in_one_line()
    target = open_store(root, store, source_store)
    _, hub_token = choose_weights(Dinov3(), weights)
    layout, batch = CollectionLayout(collection), Batch(lease, first, stop, sha256)
    job, scenes = read_batch(target, layout, batch)
    borrowed = Lease(target, layout, lease, str(flow_run.id), borrowed=True)
    borrowed.check()
    counted = CountedScenes(len(scenes))
    with shown(counted.progress, f"{collection}-{first}-{stop}", "scene"):
        rows = embed_batch(first, partial(embed_counted, target, job, scenes, borrowed, hub_token, counted))
    borrowed.check()
    write_rows(target, layout, batch, rows)
    failed = sum(row.state is SceneState.FAILED for row in rows)
    return BatchSummary(
        collection=collection,
        first=first,
        stop=stop,
        embedded=len(rows) - failed,
        failed=failed,
        rows=sum(row.rows for row in rows),
    )


EXPLANATION = (
    "This flow is not a command. It embeds a batch of scenes of a collection. A run of embed-collection starts it "
    "through its deployment, if the parameter workers is above 1: see docs/scaling.md.\n"
    "To embed a collection: python -m flows.embed_collection --help"
)
"""Text that a person sees who starts this flow as a command."""


if __name__ == "__main__":
    explain(sys.argv[1:], EXPLANATION)
