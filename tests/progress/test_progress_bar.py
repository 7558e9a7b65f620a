"""The progress bar on a terminal."""

from __future__ import annotations

import os
import pty
import sys

import pytest

from rasterembed.dataset.embedding import Progress
from rasterembed.progress.progress_bar import progress_bar


def test_a_terminal_without_a_width_gets_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    screen, terminal = pty.openpty()  # A new pseudo-terminal has the size 0 x 0.
    with os.fdopen(terminal, "w") as stream:
        assert os.get_terminal_size(terminal).columns == 0
        monkeypatch.setattr(sys, "stderr", stream)
        progress = Progress(total=8)
        with progress_bar(progress):
            assert b"| 0/8 [" in os.read(screen, 1000)
            progress.add(8)
    assert b"| 8/8 [" in os.read(screen, 1000)
    os.close(screen)
