"""Write a file or folder under a temporary name, then rename it in one step.

A reader sees the whole file or no file, even if the process is killed. An unfinished file has a unique name that ends
with `.part`, and is in the folder of the finished file.
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
    """Yield a temporary path for a new file in `folder`. The block renames the file; otherwise it is removed."""
    path = _part(folder)
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)


def flush_to_disk(file: Path) -> None:
    """Wait until the content of a file is on the disk. The content then survives a power failure."""
    with file.open("rb") as handle:
        os.fsync(handle.fileno())


def link_into_place(part: Path, path: Path) -> bool:
    """Give a finished file the name `path` by a hard link, unless that name is taken.

    Args:
        part: the finished file, on the same file system as `path`. The file keeps its old name too.
        path: the final name.

    Returns:
        True if the file got the name. Of several callers with the same `path`, exactly one gets True.
    """
    try:
        os.link(part, path)
    except FileExistsError:
        return False
    return True


@contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """Yield the path for a new file. At the end of the block, the new file replaces `path`.

    If the block raises an exception, the new file is removed and `path` stays unchanged.

    Raises:
        OSError: if the file cannot be written.
    """
    with part_file(path.parent) as part:
        yield part
        part.replace(path)


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """Yield a new, empty folder. At the end of the block, the new folder gets the name `folder`.

    If several processes create the same folder, the folder of the first finished process stays. The other processes
    remove their folders.

    Raises:
        OSError: if the folder cannot be created and no other process created it.
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
    """Remove a folder: rename it in one step, then delete it. A process can still read the files that it has open."""
    part = _part(folder.parent)
    with suppress(OSError):
        folder.rename(part)
        shutil.rmtree(part, ignore_errors=True)


def write_once(path: Path, text: str) -> str:
    """Write a text file unless it exists.

    Returns:
        The content of the file. If another process wrote the file first, the content comes from that process.

    Raises:
        OSError: if the file cannot be written and cannot be read.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with part_file(path.parent) as part:
        part.write_text(text)
        link_into_place(part, path)
    return path.read_text()


def _part(folder: Path) -> Path:
    return folder / f"{uuid.uuid4().hex}.part"
