"""Write a local file that becomes an object of a store in one step."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rasterembed.errors import Access, os_errors
from rasterembed.store.layout import folder_of
from rasterembed.store.object_store import ObjectStore
from rasterembed.store.write_aside import part_file


@dataclass
class LocalFile:
    """A local file that will become an object. The `with` block of `local_file` sets size and digest at its end."""

    path: Path
    size: int = 0
    """Size in bytes."""
    sha256: str = ""
    """SHA-256 of the content, in hexadecimal digits."""
    created: bool = True
    """False if the object already existed. The object then stayed unchanged, and this file was deleted."""


@contextmanager
def local_file(store: ObjectStore, key: str, *, replace: bool) -> Iterator[LocalFile]:
    """Yield a local file that becomes the object `key` at the end of the block.

    If the block raises an exception, the file is deleted and the store stays unchanged.

    Args:
        store: store of the object.
        key: key of the object.
        replace: True to replace an existing object, False to keep it.

    Raises:
        StoreError: if the disk is full or the store refuses.

    Example:
        >>> import tempfile
        >>> from rasterembed.store.local_file import local_file
        >>> from rasterembed.store.object_store import ObjectStore
        >>> store = ObjectStore(root=tempfile.mkdtemp())
        >>> with local_file(store, "tables/first.csv", replace=False) as file:
        ...     _ = file.path.write_text("a,b")
        >>> file.size, file.created, store.read("tables/first.csv")
        (3, True, b'a,b')
    """
    folder = store.scratch(folder_of(key))
    with part_file(folder) as path:
        file = LocalFile(path)
        with os_errors(str(folder), Access.WRITE):
            yield file
            file.size = path.stat().st_size
            with path.open("rb") as handle:
                file.sha256 = hashlib.file_digest(handle, "sha256").hexdigest()
        if replace:
            store.write_from_file(key, path)
        else:
            file.created = store.create_from_file(key, path)
