"""The local folders of this library: a cache folder that later runs use again, and a folder for unfinished files."""

from __future__ import annotations

import atexit
import fcntl
import logging
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from rasterembed.errors import Access, os_errors

_log = logging.getLogger(__name__)

_WRITABLE_BY_OTHERS = stat.S_IWGRP | stat.S_IWOTH


def cache_folder() -> Path:
    """Return the folder `rasterembed` in XDG_CACHE_HOME, or in ~/.cache by default. The folder may not exist yet."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "rasterembed"


def is_private(folder: Path) -> bool:
    """Return whether a folder belongs to this user, and no other user can write to it."""
    status = folder.lstat()
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid() and not status.st_mode & _WRITABLE_BY_OTHERS


def without_local_folders(text: str) -> str:
    """Return a text without the paths of the cache folder and of the folder for unfinished files.

    A person at another machine cannot use these paths, and they tell the name of the user.

    Example:
        >>> without_local_folders(f"{cache_folder()}/explorer: the disk is full")
        '<cache folder>/explorer: the disk is full'
    """
    shown = text.replace(str(cache_folder()), "<cache folder>")
    return shown.replace(str(_usual_scratch_folder()), "<temporary folder>")


def _usual_scratch_folder() -> Path:
    return Path(tempfile.gettempdir()) / f"rasterembed-{os.getuid()}"


def scratch_folder() -> Path:
    """Return the folder for unfinished files, and create it if necessary. Only this user can read and write it.

    The folder is `rasterembed-{user id}` in the system's temporary folder, so a later run of the same user finds it
    again. If the name is taken by a file, by another user's folder, or by a folder that other users can write to, a
    warning is logged and a new folder with a random name is returned. The new folder is removed when the process ends.

    Raises:
        StoreError: if the folder cannot be created.
    """
    path = _usual_scratch_folder()
    with os_errors(str(path), Access.WRITE):
        try:
            path.mkdir(mode=0o700)
        except FileExistsError:
            # Use `lstat`, which does not follow a link. Another user may have made a link to some folder of this user,
            # and `chmod` below would change that folder.
            found = path.lstat()
            own = stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid()
            if not own or found.st_mode & _WRITABLE_BY_OTHERS:
                return _random_folder(path)
            # Version 0.1 let other users read the folder, but not write to it. Its content can therefore be trusted,
            # and only the permissions are changed.
            path.chmod(0o700)
    return path


@cache
def _random_folder(instead_of: Path) -> Path:
    """Create a folder with a random name for this process. Every call returns the same folder."""
    _log.warning(
        "%s is not a folder that only this user can write to, so it is not used: remove it, or set TMPDIR", instead_of
    )
    path = Path(tempfile.mkdtemp(prefix=f"{instead_of.name}-"))
    atexit.register(shutil.rmtree, path, ignore_errors=True)
    return path


@contextmanager
def temporary_folder(kind: str) -> Iterator[Path]:
    """Create an empty folder in the scratch folder, and remove it at the end of the block.

    A killed process cannot remove its folder. Each call therefore first removes the folders of this kind whose process
    has ended. A process holds a lock on its folder, and the system releases the lock when the process ends.

    Args:
        kind: first part of the folder's name, such as `table`.

    Raises:
        StoreError: if the folder cannot be created.
    """
    parent = scratch_folder()
    for folder in parent.glob(f"{kind}-*"):
        held = None if folder.is_symlink() else _lock(folder)
        if held is not None:
            shutil.rmtree(folder, ignore_errors=True)
            os.close(held)
    path, held = None, None
    with os_errors(str(parent), Access.WRITE):
        while path is None or held is None:
            path = Path(tempfile.mkdtemp(prefix=f"{kind}-", dir=parent))
            held = _lock(path)
            # Between the two calls, another process may have taken the new folder for a dead one.
            if held is not None and not path.exists():
                os.close(held)
                held = None
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
        os.close(held)


def _lock(folder: Path) -> int | None:
    """Lock a folder, and return the file descriptor that holds the lock. None if another process holds it."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor
