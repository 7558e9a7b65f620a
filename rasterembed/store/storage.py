"""The protocol of a storage: a place that keeps objects. `FolderStorage` and `S3Storage` implement it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol

RETRY_DELAYS_S = (0.5, 1.0, 2.0, 4.0, 8.0)
"""Seconds to wait before each retry of a request. The sum is longer than the time that a server needs to restart."""

MAX_OBJECT_BYTES = 2**63 - 1
"""Largest size of a file on Linux. Objects on S3 are smaller."""


@dataclass(frozen=True)
class ObjectInfo:
    """Size and version of an object. The version changes when the content changes."""

    size: int
    """Size in bytes."""
    version: str
    """ETag of an S3 object, or modification time of a file in nanoseconds since 1970."""
    modified: float
    """Time of the last modification, in seconds since 1970."""


class Storage(Protocol):
    """A place that keeps objects.

    A full path without a scheme names an object: `/folder/key`, or `bucket/prefix/key` on S3. Every method raises
    StoreError if the storage refuses, and StoreUnavailableError if the storage does not answer.
    """

    def read(self, path: str, most: int | None = None) -> bytes | None:
        """Return the whole object, or only its first `most` bytes. Return None if the object does not exist."""

    def write(self, path: str, data: bytes) -> None:
        """Write a whole object in one atomic step. An existing object is replaced."""

    def create(self, path: str, data: bytes) -> bool:
        """Write a whole object unless it exists. If several callers create the same object, exactly one gets True."""

    def write_from_file(self, path: str, file: Path) -> None:
        """Write a whole object from a file in `scratch`, in one atomic step. An existing object is replaced."""

    def create_from_file(self, path: str, file: Path) -> bool:
        """Write a whole object from a file in `scratch`, unless the object exists.

        If several callers create the same object, exactly one gets True.
        """

    def open(self, path: str) -> IO[bytes]:
        """Open an object as a seekable binary file. Raises ObjectMissingError if the object does not exist."""

    def sizes(self, folder: str) -> dict[str, int]:
        """Return the sizes in bytes, by name, of the objects directly in a folder."""

    def find(self, folder: str, beginning: str = "") -> Iterator[tuple[str, ObjectInfo]]:
        """Yield the full path and the `ObjectInfo` of every object in a folder and its subfolders.

        With `beginning`, only the files and the subfolders of `folder` whose names begin so are looked at.
        """

    def find_deletable(self, folder: str) -> Iterator[str]:
        """Yield the full path of everything in a folder and its subfolders that `delete` can remove.

        These are the objects, and on a file system also links, named pipes and devices. No link is followed: if the
        folder itself is a link, only the folder is yielded.
        """

    def delete(self, path: str) -> None:
        """Remove an object. Do nothing if the object does not exist."""

    def describe(self, path: str) -> ObjectInfo:
        """Return size and version of an object. Raises ObjectMissingError if the object does not exist."""

    def scratch(self, folder: str) -> Path:
        """Return a local folder for unfinished files (`.part`). Each file will become an object in `folder`."""
