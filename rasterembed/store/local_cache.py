"""The folder in which this library keeps its own files between runs."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """Return the folder `rasterembed` in XDG_CACHE_HOME, or in ~/.cache by default. The folder may not exist yet."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "rasterembed"
