"""The steps of `rasterembed embed`, with their messages for a terminal."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rasterembed.command_line.outputs import print_message
from rasterembed.command_line.wrong_options import in_command_words
from rasterembed.dataset.embedding import Progress
from rasterembed.dataset.plan import Plan
from rasterembed.pipeline import Steps
from rasterembed.progress.pace import Pace
from rasterembed.progress.progress_bar import progress_bar
from rasterembed.progress.progress_lines import progress_lines

if TYPE_CHECKING:
    from rasterembed.search.index.building import BuildResult


class TerminalSteps(Steps):
    """Runs the steps in this process, and reports on standard error."""

    @contextmanager
    def show_progress(self, plan: Plan, progress: Progress) -> Iterator[None]:
        """Show a progress bar if standard error is a terminal. Otherwise, print a line about once a minute."""
        pace = Pace()
        with progress_bar(progress), progress_lines(lambda now: pace.describe(progress, now)):
            yield

    def on_wait(self, message: str) -> None:
        """Print that the run waits for another run of the same dataset, or that the wait has ended."""
        print_message(message)

    def on_continue(self, message: str) -> None:
        """Print how much of the work an interrupted run has done already."""
        print_message(message)

    def on_warning(self, message: str) -> None:
        """Print a warning."""
        print_message(f"warning: {in_command_words(message)}")

    def on_indexed(self, result: BuildResult) -> None:
        """Print how the vector index was built, has grown or was removed, if there is or was one."""
        if result.index is not None or result.removed:
            print_message(f"vector index: {result.describe()}")
