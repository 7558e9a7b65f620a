"""The steps of `rasterembed embed`, with their messages for a terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rasterembed.command_line.wrong_options import in_command_words
from rasterembed.dataset.embedding import Progress
from rasterembed.dataset.plan import Plan
from rasterembed.escape import escape_terminal
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
        print(escape_terminal(message), file=sys.stderr)

    def on_continue(self, message: str) -> None:
        """Print how much of the work an interrupted run has done already."""
        print(escape_terminal(message), file=sys.stderr)

    def on_warning(self, message: str) -> None:
        """Print a warning."""
        print(f"warning: {escape_terminal(in_command_words(message))}", file=sys.stderr)

    def on_indexed(self, result: BuildResult) -> None:
        """Print how the vector index was built, has grown or was removed, if there is or was one."""
        if result.index is not None or result.removed:
            print(f"vector index: {escape_terminal(result.describe())}", file=sys.stderr)
