"""The protocol of a storage: a place that keeps objects. The two storages are `folder` and `s3`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol


@dataclass(frozen=True)
class ObjectInfo:
    """Size and version of an object. Another content has another version."""

    size: int
    """Size in bytes."""
    version: str
    """ETag of an S3 object, or modification time of a file in nanoseconds since 1970."""
    modified: float
    """Time of the last modification, in seconds since 1970."""


class Storage(Protocol):
    """A place that keeps objects.

    Objects are named by full paths without a scheme: `/folder/key`, or `bucket/prefix/key` on S3. Every method raises
    StoreError if the storage refuses, and StoreUnavailableError if it does not answer.
    """

    def read(self, path: str) -> bytes | None:
        """Return the whole object, or None if it does not exist."""

    def write(self, path: str, data: bytes) -> None:
        """Write a whole object in one atomic step. An existing object is replaced."""

    def create(self, path: str, data: bytes) -> bool:
        """Write a whole object unless it exists. Of several callers, exactly one gets True."""

    def write_from_file(self, path: str, file: Path) -> None:
        """Write an object as `write` does, from a file in `scratch`."""

    def create_from_file(self, path: str, file: Path) -> bool:
        """Write an object as `create` does, from a file in `scratch`."""

    def open(self, path: str) -> IO[bytes]:
        """Open an object as a seekable binary file. Raises ObjectMissingError if it does not exist."""

    def sizes(self, folder: str) -> dict[str, int]:
        """Return names and sizes in bytes of the objects directly in a folder."""

    def find(self, folder: str) -> Iterator[tuple[str, ObjectInfo]]:
        """Yield full path and `ObjectInfo` of every object below a folder."""

    def delete(self, path: str) -> None:
        """Remove an object. Nothing happens if it does not exist."""

    def describe(self, path: str) -> ObjectInfo:
        """Return size and version of an object. Raises ObjectMissingError if it does not exist."""

    def scratch(self, folder: str) -> Path:
        """Return a local folder that holds nothing but `.part` files that will become objects in `folder`."""
