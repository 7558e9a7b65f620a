"""`rasterembed embed`: a raster becomes a dataset of tile embeddings."""

from __future__ import annotations

from rasterembed.commands.options import command_app
from rasterembed.dataset.plan import Selection
from rasterembed.model.choice import Dinov3
from rasterembed.pipeline import Execution, embed_raster
from rasterembed.raster.grid import Grid
from rasterembed.raster.radiometry import Radiometry
from rasterembed.store.layout import DatasetLayout
from rasterembed.store.object_store import open_store


def embed(
    raster: str,
    root: str | None = None,
    dataset_id: str | None = None,
    grid: Grid = Grid(),
    radiometry: Radiometry = Radiometry(),
    dinov3: Dinov3 = Dinov3(),
    selection: Selection = Selection(),
    execution: Execution = Execution(),
    replace: bool = False,
) -> str:
    """Embed a raster, once: what is complete already is never computed again.

    Args:
        raster: Path of the raster, or s3://bucket/key.
        root: Folder or s3://bucket/prefix that the dataset goes to; by default rasterembed-store here.
        dataset_id: Name of the dataset; by default made of the raster's key.
        grid: The tile grid.
        radiometry: How pixel values become colour.
        dinov3: The model.
        selection: Which tiles are embedded, and how the vectors are kept.
        execution: How the work is done; changes nothing of the result.
        replace: Embed anew if the dataset exists with another configuration.
    """
    store = open_store(root)
    manifest = embed_raster(
        raster,
        store,
        dataset_id=dataset_id,
        grid=grid,
        radiometry=radiometry,
        model=dinov3,
        selection=selection,
        execution=execution,
        replace=replace,
    )
    return "\n".join(
        [
            f"dataset id: {manifest.dataset_id}",
            f"state: {manifest.state}",
            f"manifest: {store.uri(DatasetLayout(manifest.dataset_id).manifest)}",
            f"rows: {manifest.rows}",
            f"skipped: {manifest.skipped}",
        ]
    )


app = command_app("embed", embed)
