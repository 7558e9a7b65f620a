"""What can go wrong by a person's doing, as exceptions whose text is one line fit to be read by them."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager


class RasterEmbedError(Exception):
    """Base of every error that names what was wrong, where, and what to do."""

    exit_code = 1
    """Exit status of the command line: 2 for wrong usage, 1 for data that cannot be worked on."""


class UsageError(RasterEmbedError):
    """A parameter is wrong; nothing was read or written."""

    exit_code = 2


class DataError(RasterEmbedError):
    """The raster, the model or the dataset cannot be worked on as it is."""


class StoreError(DataError):
    """The object store refused: wrong keys, a missing bucket, no rights, a full disk."""


class ObjectMissingError(StoreError):
    """There is no such object."""


class StoreUnavailableError(StoreError):
    """The object store did not answer or broke off; the same call may work later."""


class ConfigurationChangedError(DataError):
    """The dataset exists with another configuration, and `replace` was not given."""


class LeaseHeldError(DataError):
    """Another run holds the dataset."""


class LeaseLostError(DataError):
    """This run's lease expired and another run took the dataset over."""


class Cancelled(RasterEmbedError):  # noqa: N818 - it says what happened, it is no error of anybody's
    """The run was told to stop; complete shards stay, nothing else does."""


_HINTS = {
    errno.ENOSPC: "the disk is full: free some space and run again",
    errno.EDQUOT: "the quota is used up: free some space and run again",
    errno.EFBIG: "the file is larger than the system allows",
    errno.EACCES: "no permission",
    errno.EROFS: "the file system is read-only",
    errno.ENOENT: "there is no such file",
    errno.ENOTDIR: "a part of the path is a file",
    errno.EISDIR: "it is a folder",
}


@contextmanager
def os_errors(path: str) -> Iterator[None]:
    """Turn what the operating system refused into a StoreError of one line; errors without a number pass."""
    try:
        yield
    except OSError as error:
        if error.errno is None:
            raise
        kind = ObjectMissingError if error.errno == errno.ENOENT else StoreError
        raise kind(f"{path}: {_HINTS.get(error.errno) or error.strerror}") from error
