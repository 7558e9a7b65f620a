"""The local folders of this library: a cache folder that later runs use again, and a folder for unfinished files."""

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
    """Return the folder for unfinished files, and create it if necessary. Only this user can read and write it.

    The folder is `rasterembed-{user id}` in the system's temporary folder, so a later run of the same user finds it
    again. If the name is taken by a file, by another user's folder, or by a folder that other users can write to, a
    warning is logged and a new folder with a random name is returned. The new folder is removed when the process ends.

    Raises:
        StoreError: if the folder cannot be created.
    """
    path = Path(tempfile.gettempdir()) / f"rasterembed-{os.getuid()}"
    with os_errors(str(path)):
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
