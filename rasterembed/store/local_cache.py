"""The folders in which this library keeps its own files: a cache between runs, and a place for unfinished files."""

from __future__ import annotations

import atexit
import logging
import os
import shutil
import stat
import tempfile
from functools import cache
from pathlib import Path

from rasterembed.errors import os_errors

_log = logging.getLogger(__name__)

_WRITABLE_BY_OTHERS = stat.S_IWGRP | stat.S_IWOTH


def cache_folder() -> Path:
    """Return the folder `rasterembed` in XDG_CACHE_HOME, or in ~/.cache by default. The folder may not exist yet."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "rasterembed"


def scratch_folder() -> Path:
    """Return a folder for unfinished files that only this user can read and write. It exists.

    It is `rasterembed-{user id}` in the system's temporary folder, so a later run of the same user finds it again.
    Another user can put something else under this name. Then a warning is logged, and a new folder with a random name
    is returned. That folder is removed when the process ends.

    Raises:
        StoreError: if no folder can be made.
    """
    path = Path(tempfile.gettempdir()) / f"rasterembed-{os.getuid()}"
    with os_errors(str(path)):
        try:
            path.mkdir(mode=0o700)
        except FileExistsError:
            # `lstat` does not follow a link: its target may be a folder of this user where nothing is to be changed.
            found = path.lstat()
            own = stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid()
            if not own or found.st_mode & _WRITABLE_BY_OTHERS:
                return _random_folder(path)
            # Version 0.1 let other users read the folder. They could not put anything into it, so it can be trusted.
            path.chmod(0o700)
    return path


@cache
def _random_folder(instead_of: Path) -> Path:
    """Make a folder for this process. It is the same one for every call."""
    _log.warning(
        "%s is not a folder that only this user can write to, so it is not used: remove it, or set TMPDIR", instead_of
    )
    path = Path(tempfile.mkdtemp(prefix=f"{instead_of.name}-"))
    atexit.register(shutil.rmtree, path, ignore_errors=True)
    return path
