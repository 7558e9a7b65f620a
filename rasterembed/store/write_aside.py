"""Files on their way to the store: written aside, hashed, and put in place whole."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rasterembed.errors import os_errors
from rasterembed.store.object_store import ObjectStore


@dataclass
class LocalFile:
    """A file being written; size and digest are known once it is in place."""

    path: Path
    size: int = 0
    """Bytes."""
    sha256: str = ""
    created: bool = True
    """False if there was an object of that name, which was kept."""


@contextmanager
def local_file(store: ObjectStore, key: str, *, replace: bool) -> Iterator[LocalFile]:
    """Yield a local file that becomes the object `key` when the block ends well, and vanishes when it does not.

    Args:
        store: where it goes.
        key: the object's key.
        replace: whether an object that is there is replaced, or kept.

    Raises:
        StoreError: if the disk is full or the store refuses.
    """
    file = LocalFile(store.scratch(key.rsplit("/", 1)[0]) / f"{uuid.uuid4().hex}.part")
    try:
        with os_errors(str(file.path.parent)):
            yield file
            file.size = file.path.stat().st_size
            with file.path.open("rb") as handle:
                file.sha256 = hashlib.file_digest(handle, "sha256").hexdigest()
        if replace:
            store.write_from_file(key, file.path)
        else:
            file.created = store.create_from_file(key, file.path)
    finally:
        file.path.unlink(missing_ok=True)
