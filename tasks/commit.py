"""Step 5: the shards become a dataset."""

from __future__ import annotations

from collections.abc import Sequence

from prefect import task
from prefect.artifacts import Artifact, create_markdown_artifact
from prefect.runtime import flow_run

from rasterembed.dataset.manifest import Manifest, commit
from rasterembed.dataset.plan import Plan
from rasterembed.dataset.shards import Shard
from rasterembed.store.lease import Lease
from rasterembed.store.object_store import ObjectStore
from tasks.policy import STEP, artifact_key


@task(name="commit", **STEP)
def commit_dataset(plan: Plan, store: ObjectStore, shards: Sequence[Shard], lease: Lease) -> Manifest:
    """Write index, STAC item and manifest, in state `embedded`; see `rasterembed.dataset.manifest.commit`."""
    return commit(plan, store, shards, str(flow_run.id), lease, state="embedded")


def publish_summary(manifest: Manifest, plan: Plan, store: ObjectStore) -> None:
    """Show what the dataset is as a markdown artifact of the run, and its manifest's URI for programs that ask."""
    model, grid = plan.model, plan.sharding.grid
    size = manifest.bytes / 2**20
    create_markdown_artifact(
        key=artifact_key("dataset", manifest.dataset_id),
        description=f"Dataset {manifest.dataset_id}",
        markdown=f"""# {manifest.dataset_id}: {manifest.state}

| | |
|---|---|
| raster | `{plan.source.uri}` |
| tiles | {manifest.rows} embedded, {manifest.skipped} skipped, of {manifest.tiles} |
| grid | {grid.size} px, stride {grid.step} px, edge {grid.edge} |
| model | {manifest.model}, {model.pooling}, {manifest.dimensions} dimensions, {model.dtype} |
| radiometry | bands {plan.radiometry.bands}, {plan.radiometry.method} |
| shards | {len(manifest.shards)}, {size:.1f} MiB |
| manifest | `{store.uri(plan.layout.manifest)}` |
| fingerprint | `{manifest.fingerprint}` |
""",
    )
    Artifact(
        type="manifest",
        key=artifact_key("manifest", manifest.dataset_id),
        description=f"Manifest of {manifest.dataset_id}",
        data=store.uri(plan.layout.manifest),
    ).create()
