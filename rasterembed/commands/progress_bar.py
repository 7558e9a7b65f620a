"""The progress bar of a terminal."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from typing import Never

from tqdm import tqdm
from tqdm.contrib import DummyTqdmFile

from rasterembed.dataset.embedding import Progress


@contextmanager
def progress_bar(progress: Progress, unit: str = "tile") -> Iterator[None]:
    """Show a progress bar on standard error until the end of the block, if standard error is a terminal.

    The bar moves after each batch of tiles. Meanwhile, each line that something writes to `sys.stderr` is printed above
    the bar. A logging handler that keeps its own reference to the stream is not redirected; see `tasks.progress`.
    """
    with terminal_bar(progress.total, unit) as bar:
        progress.on_change = bar.update
        if bar.disable:
            yield
        else:
            with redirect_stderr(DummyTqdmFile(sys.stderr)):
                yield


def terminal_bar(total: int | None, unit: str) -> tqdm[Never]:
    """Return a progress bar on standard error. It prints nothing if standard error is not a terminal.

    Args:
        total: number of units at the end. None if it is not known.
        unit: word for one unit, such as `tile`.
    """
    # disable=None: tqdm prints nothing if standard error is not a terminal.
    return tqdm(total=total, unit=unit, smoothing=0.1, disable=None, file=sys.stderr, **_size())


def _size() -> dict[str, int]:
    """Return a size for the bar if the terminal gives its size as 0, else nothing. tqdm then asks the terminal.

    Pseudo-terminals of scripts and of `docker run -t` can have the size 0. tqdm would print blank lines there.
    """
    try:
        columns = os.get_terminal_size(sys.stderr.fileno()).columns
    except (OSError, ValueError):  # Standard error is not a terminal, or is closed.
        return {}
    return {} if columns else {"ncols": 80, "nrows": 24}
