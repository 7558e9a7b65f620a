"""The one form in which a local path is stored and compared."""

from __future__ import annotations

import os
from pathlib import Path


def absolute_path(path: str) -> Path:
    """Return an absolute path without `..`. `~` at its beginning is the home directory.

    With `..`, one file would have several addresses, and would be embedded once for each of them. If the folder before
    a `..` is a symbolic link, `..` is the parent of the link's target. Other symbolic links are not resolved, because
    people know a file by the path that they gave.

    Args:
        path: a path, relative to the working directory or absolute.

    Example:
        >>> from rasterembed.store.local_path import absolute_path
        >>> str(absolute_path("/data/scenes/../masks/./a.tif"))
        '/data/masks/a.tif'
    """
    whole = Path(os.path.expanduser(path)).absolute()
    if ".." not in whole.parts:
        return whole
    found = Path(whole.anchor)
    for part in whole.parts[1:]:
        if part != "..":
            found /= part
        elif os.path.islink(found):
            found = Path(os.path.realpath(found)).parent
        else:
            found = found.parent
    return found
