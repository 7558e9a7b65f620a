"""Write a file or folder beside its final place, then give it its name in one step.

A reader sees the whole file or none, also if the process is killed at any moment. A file that is not finished has a
unique name that ends with `.part`.
"""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def part_file(folder: Path) -> Iterator[Path]:
    """Yield the path of a new file in `folder`, and remove that file at the end unless it was moved away."""
    path = _part(folder)
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)


def flush_to_disk(file: Path) -> None:
    """Wait until the content of a file is on the disk, so that it survives a power failure."""
    with file.open("rb") as handle:
        os.fsync(handle.fileno())


def link_into_place(part: Path, path: Path) -> bool:
    """Give a finished file the name `path`, unless that name is taken.

    Args:
        part: the finished file, on the same file system. It keeps its old name too.
        path: the final name.

    Returns:
        Whether the file got the name. Of several callers with the same `path`, exactly one gets True.
    """
    try:
        os.link(part, path)
    except FileExistsError:
        return False
    return True


@contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """Yield the path of a file to write, which replaces `path` at the end of the block.

    If the block raises, the new file is removed and `path` stays unchanged.

    Raises:
        OSError: if the file cannot be written.
    """
    with part_file(path.parent) as part:
        yield part
        part.replace(path)


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """Yield a new folder to fill, which gets the name `folder` at the end of the block.

    If several processes make the same folder, the first one that finishes counts, and the others drop theirs.

    Raises:
        OSError: if the folder cannot be made and no other process made it.
    """
    part = _part(folder.parent)
    try:
        part.mkdir(parents=True)
        yield part
        part.rename(folder)
    except OSError:
        if not folder.is_dir():
            raise
    finally:
        shutil.rmtree(part, ignore_errors=True)


def remove_folder(folder: Path) -> None:
    """Remove a folder in one step. Processes that have its files open can go on reading them."""
    part = _part(folder.parent)
    with suppress(OSError):
        folder.rename(part)
        shutil.rmtree(part, ignore_errors=True)


def write_once(path: Path, text: str) -> str:
    """Write a text file unless it exists.

    Returns:
        The content of the file, which may come from another process that was first.

    Raises:
        OSError: if the file can neither be written nor read.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with part_file(path.parent) as part:
        part.write_text(text)
        link_into_place(part, path)
    return path.read_text()


def _part(folder: Path) -> Path:
    return folder / f"{uuid.uuid4().hex}.part"
