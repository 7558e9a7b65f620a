"""What is kept between runs in the user's cache folder."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


def cache_folder() -> Path:
    """`rasterembed` in XDG_CACHE_HOME, by default in ~/.cache; it need not exist."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "rasterembed"


@contextmanager
def made_aside(folder: Path) -> Iterator[Path]:
    """A new folder to fill, which then gets its name in one step; of several processes the first one's counts.

    Raises:
        OSError: if it cannot be made and no other process made it.
    """
    aside = folder.with_name(f"{folder.name}.{uuid.uuid4().hex}")
    try:
        aside.mkdir(parents=True)
        yield aside
        aside.rename(folder)
    except OSError:
        if not folder.is_dir():
            raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def discard(folder: Path) -> None:
    """Remove a folder that turned out to be broken; who has its files open keeps them."""
    aside = folder.with_name(f"{folder.name}.{uuid.uuid4().hex}")
    with suppress(OSError):
        folder.rename(aside)
        shutil.rmtree(aside, ignore_errors=True)


def write_once(file: Path, text: str) -> str:
    """Put a text file in place, whole, unless there is one; returns what the file then says.

    Raises:
        OSError: if it can neither be written nor read.
    """
    aside = file.with_name(f"{file.name}.{uuid.uuid4().hex}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        aside.write_text(text)
        with suppress(FileExistsError):
            os.link(aside, file)
    finally:
        aside.unlink(missing_ok=True)
    return file.read_text()
