"""Artifacts that describe the dataset at the end of a run."""

from __future__ import annotations

from prefect.artifacts import create_markdown_artifact, create_table_artifact

from rasterembed.artifact_key import artifact_key
from rasterembed.dataset.dataset import Dataset
from rasterembed.dataset.manifest import Manifest
from rasterembed.dataset.plan import Plan
from rasterembed.escape import escape_markdown, escape_terminal, markdown_code
from rasterembed.size_text import size_text
from rasterembed.store.layout import DatasetLayout
from rasterembed.store.object_store import ObjectStore

_SHOWN_LETTERS = 60
"""Largest number of letters of a name in a table. A longer name would make the table wider than Prefect's page."""


def shortened(text: str, length: int = _SHOWN_LETTERS) -> str:
    """Return a text with at most `length` letters. If the text is longer, leave out its middle.

    Example:
        >>> shortened("s3://bucket/2024/05/17/scene.tif", 20)
        's3://bucke…scene.tif'
    """
    if len(text) <= length:
        return text
    tail = (length - 1) // 2
    return f"{text[: length - 1 - tail]}…{text[len(text) - tail :]}"


def search_line(search: str | None, block: str | None) -> dict[str, str]:
    """Return the line of an artifact with the search command: its name and the command. Empty without a command.

    With a block, the command starts a flow. It then runs only in the project's folder, so its name says this.

    Args:
        search: the command, or None.
        block: name of the object-store block in the command, or None.

    Example:
        >>> search_line("rasterembed search scene", None)
        {'search': 'rasterembed search scene'}
        >>> list(search_line("python -m flows.search_embeddings --store s3 scene", "s3"))
        ["search, in the project's folder with its environment active"]
        >>> search_line(None, None)
        {}
    """
    if search is None:
        return {}
    return {"search" if block is None else "search, in the project's folder with its environment active": search}


def publish_summary(
    store: ObjectStore, plan: Plan, manifest: Manifest, search: str | None, block: str | None = None
) -> None:
    """Create two artifacts: a description of the dataset for people, and a table with the manifest's URI for programs.

    Args:
        store: store of the dataset.
        plan: plan of the dataset.
        manifest: the dataset's manifest.
        search: command that searches the dataset. None if it cannot be searched.
        block: name of the object-store block in this command, or None.
    """
    model, grid, layout = plan.model, plan.sharding.grid, DatasetLayout(manifest.dataset_id)
    computed = "; ".join(map(str, manifest.computations)) or "not recorded"
    skipped = escape_markdown(Dataset(store, manifest).skipped_text())
    tiles = f"{manifest.rows:,} embedded, {skipped} skipped, of {manifest.tiles:,}"
    # Show long texts in a code block. It does not break their lines, and people can copy them.
    whole = {
        "raster": plan.source.uri,
        "manifest": store.uri(layout.manifest),
        "report": store.uri(layout.qa_report_markdown),
        "fingerprint": manifest.fingerprint,
        **search_line(search, block),
    }
    lines = "\n".join(f"{name}: {escape_terminal(value)}" for name, value in whole.items())
    create_markdown_artifact(
        key=artifact_key("dataset", manifest.dataset_id),
        description=f"Dataset {escape_markdown(manifest.dataset_id)} is {escape_markdown(manifest.state)}; "
        f"tiles: {tiles}",
        markdown=f"""# {escape_markdown(manifest.dataset_id)}: {escape_markdown(manifest.state)}

| | |
|---|---|
| raster | {markdown_code(shortened(plan.source.uri))} |
| tiles | {tiles} |
| grid | {escape_markdown(grid.describe())} |
| model | {escape_markdown(shortened(manifest.model))} |
| vectors | {model.pooling}, {manifest.dimensions} dimensions, computed in {model.dtype} |
| computed by | {escape_markdown(computed)} |
| radiometry | bands {plan.radiometry.bands}, {plan.radiometry.method} |
| shards | {len(manifest.shards)}, {size_text(manifest.bytes)} |

```
{lines}
```
""",
    )
    create_table_artifact(
        key=artifact_key("manifest", manifest.dataset_id),
        description=f"Manifest of dataset {escape_markdown(manifest.dataset_id)}, which is "
        f"{escape_markdown(manifest.state)}",
        table=[{"manifest": store.uri(layout.manifest)}],
    )
