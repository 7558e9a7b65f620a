"""The steps of a collection that a command runs: they report on standard error."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING

from rasterembed.collection.comparison import Comparison
from rasterembed.collection.found_scene import FoundScene, Listing
from rasterembed.collection.scene_row import SceneRow, SceneState
from rasterembed.collection_pipeline import CollectionResult, CollectionSteps
from rasterembed.command_line.outputs import print_message
from rasterembed.command_line.wrong_options import in_command_words
from rasterembed.commands.words_of_embed import in_words_of_embed
from rasterembed.dataset.embedding import Progress
from rasterembed.progress.progress_bar import scene_bar
from rasterembed.progress.progress_lines import progress_lines
from rasterembed.progress.scene_progress import SceneProgress
from rasterembed.scene_pipeline import SceneJob
from rasterembed.store.lease import Lease
from rasterembed.store.object_store import ObjectStore

if TYPE_CHECKING:
    from rasterembed.search.index.building import BuildResult


class QuietSteps(CollectionSteps):
    """Runs the steps in this process, and prints messages on standard error."""

    def on_wait(self, message: str) -> None:
        """Print that the run waits for another run of the same collection, or that the wait has ended."""
        self._print(message)

    def on_continue(self, message: str) -> None:
        """Print how much of the work an interrupted run has done already."""
        self._print(message)

    def on_warning(self, message: str) -> None:
        """Print a warning."""
        self._print(f"warning: {message}")

    def _print(self, message: str) -> None:
        """Print a line. If a progress bar is shown, the line is above it."""
        print_message(in_command_words(in_words_of_embed(message)))


class TerminalCollectionSteps(QuietSteps):
    """Shows the progress too, with the number of failed scenes. The summary at the end has the reasons.

    Args:
        stack: ends the progress at its end.
    """

    result: CollectionResult | None = None
    """Result of the run, also if too many scenes failed. None until the run has ended."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self._progress = SceneProgress(0)

    def on_compared(self, comparison: Comparison, listing: Listing) -> None:
        """Show a progress bar if standard error is a terminal. Otherwise, print a line about once a minute."""
        scenes = comparison.to_embed_count
        self._bar = self._stack.enter_context(scene_bar(scenes))
        self._progress = SceneProgress(scenes, self._bar.update)

    def embed_scenes(
        self, store: ObjectStore, job: SceneJob, scenes: Sequence[FoundScene], lease: Lease, hub_token: str | None
    ) -> Iterator[SceneRow]:
        """Embed the scenes, and show the progress meanwhile."""
        with progress_lines(self._progress.describe):
            yield from super().embed_scenes(store, job, scenes, lease, hub_token)

    def on_scene_begin(self, dataset_id: str, progress: Progress) -> None:
        """Follow the tiles of the scene."""
        self._progress.begin(dataset_id, progress)

    def on_scene(self, row: SceneRow) -> None:
        """Move the progress, and show the number of failed scenes in it."""
        self._progress.end(row.id, failed=row.state is SceneState.FAILED)
        if self._progress.failed:
            self._bar.set_postfix_str(f"{self._progress.failed:,} failed", refresh=False)

    def on_indexed(self, result: BuildResult) -> None:
        """Print how the vector index was built, has grown or was removed, if there is or was one."""
        if result.index is not None or result.removed:
            self._print(f"vector index: {result.describe()}")

    def on_end(self, result: CollectionResult) -> None:
        """Keep the result."""
        self.result = result
