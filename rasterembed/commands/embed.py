"""`rasterembed embed`: turn a raster into a dataset of tile embeddings."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rasterembed.command_line.command_app import command_app
from rasterembed.command_line.command_store import open_command_store
from rasterembed.dataset.embedding import Execution
from rasterembed.dataset.selection import Selection
from rasterembed.model.choice import Dinov3
from rasterembed.qa.thresholds import QaThresholds
from rasterembed.raster.grid import Grid
from rasterembed.raster.radiometry import Radiometry
from rasterembed.raster.scene import split_assets
from rasterembed.raster.validity import Validity
from rasterembed.search.index_options import VectorIndexOptions

if TYPE_CHECKING:
    from rasterembed.pipeline import EmbedResult
    from rasterembed.store.object_store import ObjectStore


def embed(
    raster: str,
    root: str | None = None,
    dataset_id: str | None = None,
    assets: str | None = None,
    grid: Grid = Grid(),
    radiometry: Radiometry = Radiometry(),
    validity: Validity = Validity(),
    dinov3: Dinov3 = Dinov3(),
    selection: Selection = Selection(),
    execution: Execution = Execution(),
    qa: QaThresholds = QaThresholds(),
    search: VectorIndexOptions = VectorIndexOptions(),
    replace: bool = False,
) -> str:
    """Embed a raster. Complete shards are never computed again.

    Args:
        raster: Path or s3://bucket/key of a raster or of a STAC Item. Several files, one for each channel, are written
            as red=B04.tif,green=B03.tif,blue=B02.tif.
        root: Folder or s3://bucket/prefix for the dataset. By default the folder rasterembed-store.
        dataset_id: Name of the dataset. By default it is made from the raster's path.
        assets: Keys or common names of a STAC Item's assets, as red,green,blue. By default the asset visual, else red,
            green and blue, else the only data asset.
        grid: The tile grid.
        radiometry: How pixel values become colour.
        validity: Which pixels are valid, if the file does not say this or says it wrongly.
        dinov3: The model.
        selection: Which tiles are embedded, and how their vectors are stored.
        execution: Settings for speed and memory. They change the vectors only by rounding.
        qa: Bounds that the dataset must keep to become ready.
        search: Whether a vector index is built.
        replace: If the dataset exists with another configuration, replace the dataset.
    """
    store = open_command_store(root)
    # These imports take too long for a wrong option.
    from rasterembed.commands.embed_steps import TerminalSteps
    from rasterembed.pipeline import EmbedOptions, embed_raster

    options = EmbedOptions(
        dataset_id=dataset_id,
        assets=split_assets(assets),
        grid=grid,
        radiometry=radiometry,
        validity=validity,
        model=dinov3,
        selection=selection,
        execution=execution,
        qa=qa,
        search=search,
        replace=replace,
    )
    return _summary(store, embed_raster(store, raster, options, steps=TerminalSteps()))


def _summary(store: ObjectStore, result: EmbedResult) -> str:
    """Return the result as text for people, with a command that searches the new dataset."""
    from rasterembed.command_line.this_program import as_typed
    from rasterembed.command_line.wrong_options import in_command_words
    from rasterembed.dataset.dataset import Dataset
    from rasterembed.search.next_search import search_command

    manifest = result.manifest
    # A person who sees this after a second looks for an error, so it is said first.
    lines = ["note: the dataset was already complete, so nothing was computed"] if result.already_complete else []
    lines += [
        f"dataset id: {manifest.dataset_id}",
        f"model: {manifest.model}",
        f"state: {manifest.state}",
        f"manifest: {store.uri(result.plan.layout.manifest)}",
        f"rows: {manifest.rows}",
        f"skipped: {in_command_words(Dataset(store, manifest).skipped_text())}",
    ]
    if result.report is not None:
        lines.append(f"quality: {result.report.summary()}")
    command = search_command(store, manifest)
    if command is None:
        lines.append("note: every tile was skipped, so there is nothing to search")
    else:
        lines.append(f"search: {as_typed(command)}")
    return "\n".join(lines)


app = command_app("embed", embed)
