"""`rasterembed embed`: turn a raster into a dataset of tile embeddings."""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from rasterembed.commands.command_app import command_app
from rasterembed.commands.command_store import open_command_store
from rasterembed.commands.next_search import search_command, this_program
from rasterembed.commands.progress_bar import progress_bar
from rasterembed.commands.wrong_options import in_command_words
from rasterembed.dataset.embedding import Execution, Progress
from rasterembed.dataset.plan import Plan
from rasterembed.dataset.selection import Selection
from rasterembed.escape import escape_terminal
from rasterembed.model.choice import Dinov3
from rasterembed.pipeline import EmbedOptions, EmbedResult, Steps, embed_raster
from rasterembed.qa.thresholds import QaThresholds
from rasterembed.raster.grid import Grid
from rasterembed.raster.radiometry import Radiometry
from rasterembed.raster.scene import split_assets
from rasterembed.raster.validity import Validity
from rasterembed.search.index_options import VectorIndexOptions
from rasterembed.store.object_store import ObjectStore

if TYPE_CHECKING:
    from rasterembed.search.index.building import BuildResult


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
    manifest = result.manifest
    # A person who sees this after a second looks for an error, so it is said first.
    lines = ["note: the dataset was already complete, so nothing was computed"] if result.already_complete else []
    lines += [
        f"dataset id: {manifest.dataset_id}",
        f"model: {manifest.model}",
        f"state: {manifest.state}",
        f"manifest: {store.uri(result.plan.layout.manifest)}",
        f"rows: {manifest.rows}",
        f"skipped: {manifest.skipped}",
    ]
    if result.report is not None:
        lines.append(f"quality: {result.report.summary()}")
    command = search_command(store, manifest, program=this_program())
    if command is None:
        lines.append("note: every tile was skipped, so there is nothing to search")
    else:
        lines.append(f"search: {command}")
    return "\n".join(lines)


class TerminalSteps(Steps):
    """Runs the steps in this process, and reports on standard error."""

    def show_progress(self, plan: Plan, progress: Progress) -> AbstractContextManager[object]:
        """Show a progress bar, if standard error is a terminal."""
        return progress_bar(progress)

    def on_wait(self, message: str) -> None:
        """Print that the run waits for another run of the same dataset."""
        print(escape_terminal(message), file=sys.stderr)

    def on_warning(self, message: str) -> None:
        """Print a warning."""
        print(f"warning: {escape_terminal(in_command_words(message))}", file=sys.stderr)

    def on_indexed(self, result: BuildResult) -> None:
        """Print how the vector index was built, has grown or was removed, if there is or was one."""
        if result.index is not None or result.removed:
            print(f"vector index: {escape_terminal(result.describe())}", file=sys.stderr)


app = command_app("embed", embed)
