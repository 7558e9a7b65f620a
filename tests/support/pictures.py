"""Replace the pictures of the quality report by plain ones, for tests that do not look at the pictures.

Matplotlib's drawing takes three quarters of the time of a small run.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from PIL import Image

from rasterembed.qa import pictures

DRAWING_FUNCTIONS = ("draw_coverage", "draw_pca", "draw_norms")


def draw_plain_picture(*_: Any) -> bytes:
    """Return a small grey PNG, whatever the picture should show."""
    out = io.BytesIO()
    Image.new("RGB", (64, 48), (128, 128, 128)).save(out, "PNG")
    return out.getvalue()


@contextmanager
def plain_pictures() -> Iterator[None]:
    """Draw plain pictures within a `with` block. The fixture of this name does the same for a test."""
    with pytest.MonkeyPatch.context() as patch:
        for name in DRAWING_FUNCTIONS:
            patch.setattr(pictures, name, draw_plain_picture)
        yield


def draw_plain_pictures() -> None:
    """Make this process draw plain pictures from now on."""
    for name in DRAWING_FUNCTIONS:
        assert hasattr(pictures, name)
        setattr(pictures, name, draw_plain_picture)
