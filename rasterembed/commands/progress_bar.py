"""The progress bar of a terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr

from tqdm import tqdm
from tqdm.contrib import DummyTqdmFile

from rasterembed.dataset.embedding import Progress


@contextmanager
def progress_bar(progress: Progress) -> Iterator[None]:
    """Show a progress bar on standard error until the end of the block, if standard error is a terminal.

    The bar moves after each batch of tiles. Meanwhile, each line that something writes to `sys.stderr` is printed above
    the bar. A logging handler that keeps its own reference to the stream is not redirected; see `tasks.progress`.
    """
    # disable=None: tqdm prints nothing if standard error is not a terminal.
    with tqdm(total=progress.total, unit="tile", smoothing=0.1, disable=None, file=sys.stderr) as bar:
        progress.on_change = bar.update
        if bar.disable:
            yield
        else:
            with redirect_stderr(DummyTqdmFile(sys.stderr)):
                yield
