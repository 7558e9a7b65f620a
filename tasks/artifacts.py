"""Artifacts that describe the dataset at the end of a run."""

from __future__ import annotations

from prefect.artifacts import Artifact, create_markdown_artifact

from rasterembed.dataset.manifest import Manifest
from rasterembed.dataset.plan import Plan
from rasterembed.escape import escape_markdown, markdown_code
from rasterembed.store.object_store import ObjectStore
from tasks.policy import artifact_key


def publish_summary(store: ObjectStore, plan: Plan, manifest: Manifest) -> None:
    """Create two artifacts: a table about the dataset for people, and the manifest's URI for programs."""
    model, grid = plan.model, plan.sharding.grid
    size = manifest.bytes / 2**20
    computed = "; ".join(map(str, manifest.computations)) or "not recorded"
    create_markdown_artifact(
        key=artifact_key("dataset", manifest.dataset_id),
        description=f"Dataset {escape_markdown(manifest.dataset_id)}",
        markdown=f"""# {escape_markdown(manifest.dataset_id)}: {manifest.state}

| | |
|---|---|
| raster | {markdown_code(plan.source.uri)} |
| tiles | {manifest.rows} embedded, {manifest.skipped} skipped, of {manifest.tiles} |
| grid | {grid.size} px, stride {grid.step} px, edge {grid.edge} |
| model | {escape_markdown(manifest.model)}, {model.pooling}, {manifest.dimensions} dimensions, {model.dtype} |
| computed by | {escape_markdown(computed)} |
| radiometry | bands {plan.radiometry.bands}, {plan.radiometry.method} |
| shards | {len(manifest.shards)}, {size:.1f} MiB |
| manifest | {markdown_code(store.uri(plan.layout.manifest))} |
| fingerprint | {markdown_code(manifest.fingerprint)} |
""",
    )
    Artifact(
        type="manifest",
        key=artifact_key("manifest", manifest.dataset_id),
        description=f"Manifest of {escape_markdown(manifest.dataset_id)}",
        data=store.uri(plan.layout.manifest),
    ).create()
