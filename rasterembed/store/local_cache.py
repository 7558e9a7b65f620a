"""The folder in which this library keeps files of its own between runs."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """Return the folder `rasterembed` in XDG_CACHE_HOME, by default in ~/.cache. It may not exist yet."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "rasterembed"
