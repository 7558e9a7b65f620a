"""Open files that a run may replace at the same time."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from rasterembed.errors import DataError, StoreUnavailableError
from rasterembed.search.engines.engine import IndexUnusableError, NoIndexReason

_ATTEMPTS = 3
"""Number of attempts. Each one needs another run that replaces the files during the attempt before."""

Version = TypeVar("Version")
Opened = TypeVar("Opened")


def open_newest(
    version: Version, open_version: Callable[[Version], Opened], newer: Callable[[Version], Version | None]
) -> Opened:
    """Open the files of a version. If this fails and there is a newer version, open that one.

    A run deletes the old files after it has written the new description. A reader that has the old description then
    finds files that look missing, damaged or foreign. They are really so only if the store still has the same
    description.

    Args:
        version: the version that the caller has read: a manifest, or the description of a table or an index.
        open_version: opens the files of a version.
        newer: returns the version that the store has now, or None if it is the given one.

    Returns:
        What `open_version` returned.

    Raises:
        DataError: the error of `open_version` or `newer`.
        IndexUnusableError: the error of `open_version` or `newer`.
    """
    for _ in range(_ATTEMPTS - 1):
        try:
            return open_version(version)
        except (DataError, IndexUnusableError) as error:
            # A silent store would only make this process wait once more.
            found = None if _is_of_the_store(error) else newer(version)
            if found is None:
                raise
            version = found
    return open_version(version)


def _is_of_the_store(error: DataError | IndexUnusableError) -> bool:
    """Return whether an error says that the store, or a library, could not do its work."""
    if isinstance(error, IndexUnusableError):
        return error.reason is NoIndexReason.FAILED
    return isinstance(error, StoreUnavailableError)
