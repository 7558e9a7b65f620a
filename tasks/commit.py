"""Step 5: write the manifest, so that the shards become a dataset."""

from __future__ import annotations

from collections.abc import Sequence

from prefect import get_run_logger, task

from rasterembed.dataset.manifest import Manifest, commit
from rasterembed.dataset.plan import Plan
from rasterembed.dataset.shards import Shard
from rasterembed.store.lease import Lease
from rasterembed.store.object_store import ObjectStore
from tasks.policy import STEP


@task(name="commit", **STEP)
def commit_dataset(store: ObjectStore, plan: Plan, shards: Sequence[Shard], lease: Lease) -> Manifest:
    """Write the tile index, the STAC Item and the manifest; see `rasterembed.dataset.manifest.commit`."""
    manifest = commit(store, plan, shards, lease)
    if len(manifest.computations) > 1:
        get_run_logger().warning(
            "the vectors were computed in %d different ways. They agree within the bounds in docs/models.md: %s",
            len(manifest.computations),
            "; ".join(map(str, manifest.computations)),
        )
    return manifest
