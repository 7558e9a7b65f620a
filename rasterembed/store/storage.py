"""What the store needs of a place that keeps objects: a folder (`folder`) or an S3 server (`s3`)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol


@dataclass(frozen=True)
class ObjectInfo:
    """What identifies one state of an object."""

    size: int
    """Bytes."""
    version: str
    """ETag of an S3 object, or the modification time of a file in nanoseconds."""
    modified: float
    """Time of the last modification, in seconds since 1970."""


class Storage(Protocol):
    """Objects by their full paths, without a scheme. Every method raises StoreError in one line."""

    def read(self, path: str) -> bytes | None:
        """Content of an object, or None."""

    def write(self, path: str, data: bytes) -> None:
        """Put an object in place, whole."""

    def create(self, path: str, data: bytes) -> bool:
        """As `write`, but only if the name is free; of several callers exactly one gets True."""

    def write_from_file(self, path: str, file: Path) -> None:
        """As `write`, from a file in `scratch`."""

    def create_from_file(self, path: str, file: Path) -> bool:
        """As `create`, from a file in `scratch`."""

    def open(self, path: str) -> IO[bytes]:
        """The object as a seekable file; raises ObjectMissingError."""

    def sizes(self, folder: str) -> dict[str, int]:
        """Names and sizes in bytes of the objects directly in a folder."""

    def find(self, folder: str) -> Iterator[tuple[str, ObjectInfo]]:
        """Full paths and identities of all objects below a folder."""

    def delete(self, path: str) -> None:
        """Remove an object if it is there."""

    def describe(self, path: str) -> ObjectInfo:
        """Identity of an object's present state; raises ObjectMissingError."""

    def scratch(self, folder: str) -> Path:
        """A local folder for the `.part` files that will go to `folder`, and for nothing else."""
