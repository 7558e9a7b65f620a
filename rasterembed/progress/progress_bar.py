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

_WITH_PARTS = "{l_bar}{bar}| {n:.1f}/{total_fmt} [{elapsed}<{remaining}, {rate_fmt}{postfix}]"
"""The usual format of tqdm, with one decimal for units of which a part is finished."""


@contextmanager
def progress_bar(progress: Progress, unit: str = "tile") -> Iterator[None]:
    """Show a progress bar on standard error until the end of the block, if standard error is a terminal.

    The bar moves after each batch of tiles. Meanwhile, each line that something writes to `sys.stderr` is printed above
    the bar. A logging handler that keeps its own reference to the stream is not redirected; see `tasks.progress`.
    """
    with terminal_bar(progress.total, unit) as bar, _lines_above(bar):
        progress.on_change = bar.update
        yield


@contextmanager
def scene_bar(scenes: int) -> Iterator[tqdm[Never]]:
    """Show a progress bar of scenes during the block. The bar moves within a scene too. See `progress_bar`.

    Args:
        scenes: number of scenes of the run.

    Yields:
        The bar. Its method `update` takes a number of scenes, such as 0.25. One thread at a time may call it.
    """
    with terminal_bar(scenes, "scene", _WITH_PARTS) as bar, _lines_above(bar):
        yield bar


def terminal_bar(total: int | None, unit: str, bar_format: str | None = None) -> tqdm[Never]:
    """Return a progress bar on standard error. It prints nothing if standard error is not a terminal.

    Args:
        total: number of units at the end. None if it is not known.
        unit: word for one unit, such as `tile`.
        bar_format: text of the bar, in the format of tqdm. None: the usual one.
    """
    # disable=None: tqdm prints nothing if standard error is not a terminal.
    return tqdm(total=total, unit=unit, smoothing=0.1, disable=None, file=sys.stderr, bar_format=bar_format, **_size())


@contextmanager
def _lines_above(bar: tqdm[Never]) -> Iterator[None]:
    """Print each line that something writes to `sys.stderr` above a bar, until the end of the block."""
    if bar.disable:
        yield
        return
    with redirect_stderr(DummyTqdmFile(sys.stderr)):
        yield


def _size() -> dict[str, int]:
    """Return a size for the bar if the terminal gives its size as 0, else nothing. tqdm then asks the terminal.

    Pseudo-terminals of scripts and of `docker run -t` can have the size 0. tqdm would print blank lines there.
    """
    try:
        columns = os.get_terminal_size(sys.stderr.fileno()).columns
    except (OSError, ValueError):  # Standard error is not a terminal, or is closed.
        return {}
    return {} if columns else {"ncols": 80, "nrows": 24}
