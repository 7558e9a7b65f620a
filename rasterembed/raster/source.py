"""The identity of a raster: its URI, its state, and the name that its dataset gets by default."""

from __future__ import annotations

import hashlib
import re
from datetime import UTC, datetime
from pathlib import PurePosixPath

from pydantic import BaseModel, ConfigDict

from rasterembed.errors import DataError, RasterChangedError, StoreError, StoreUnavailableError
from rasterembed.store.layout import check_dataset_id
from rasterembed.store.object_store import ObjectStore, locate


class Source(BaseModel):
    """A raster in one state. Any later write to it changes `size`, `version` or both."""

    model_config = ConfigDict(frozen=True)

    uri: str
    """Absolute path, or s3://bucket/key."""
    size: int
    """Size of the file, in bytes."""
    version: str
    """ETag of an S3 object; of a file, its modification time in nanoseconds."""
    modified: datetime
    """Time of the last modification, UTC."""

    @property
    def remote(self) -> bool:
        """Whether the raster lies on S3, so that each read waits for a server."""
        return self.uri.startswith("s3://")


def register(store: ObjectStore, raster: str) -> Source:
    """Find a raster and return its identity.

    Args:
        store: gives the credentials for a raster on S3.
        raster: a path, or s3://bucket/key.

    Raises:
        UsageError: if `raster` is neither a path nor an s3:// URI.
        StoreError: if the raster does not exist or may not be read.
        DataError: if the file is empty.
    """
    uri = locate(raster)
    info = store.describe(uri)
    if info.size == 0:
        raise DataError(f"{uri}: the file is empty")
    modified = datetime.fromtimestamp(info.modified, tz=UTC)
    return Source(uri=uri, size=info.size, version=info.version, modified=modified)


def check_unchanged(store: ObjectStore, source: Source, *, mask_file: str | None = None) -> None:
    """Refuse a raster that was written since it was registered.

    Args:
        store: gives the credentials for a raster on S3.
        source: the raster as it was registered.
        mask_file: state of its mask file, from the raster's profile. None if it had no mask file.

    Raises:
        RasterChangedError: if the raster or its mask file is not in that state any more.
        StoreError: if the raster is missing or may not be read.
    """
    info = store.describe(source.uri)
    if (info.size, info.version) != (source.size, source.version):
        raise RasterChangedError(
            f"{source.uri}: it was changed since this dataset was planned: run again to embed its new state"
        )
    if mask_file is not None and mask_file_state(store, source.uri) != mask_file:
        raise RasterChangedError(
            f"{source.uri}.msk: the mask was changed since this dataset was planned: run again to embed its new state"
        )


def mask_file_state(store: ObjectStore, uri: str) -> str | None:
    """Return size and version of the mask file beside a raster (its name and `.msk`), or None if it has none.

    A mask file that may not be read counts as none: to keys that may not list a bucket, S3 answers "access denied" for
    an object that does not exist.

    Raises:
        StoreUnavailableError: if the store does not answer.
    """
    try:
        info = store.describe(uri + ".msk")
    except StoreUnavailableError:
        raise
    except StoreError:
        return None
    return f"{info.size} {info.version}"


def default_dataset_id(uri: str) -> str:
    """Return a dataset id for a raster: its key in readable form, and a digest of the whole URI.

    Example:
        >>> default_dataset_id("s3://bucket/a/Input 1.tif")
        'a-input-1-abb5717c'
    """
    path = PurePosixPath(uri.removeprefix("s3://"))
    parts = path.parts[1:] if uri.startswith("s3://") else (path.name,)
    name = "/".join(parts)
    name = name[: -len(path.suffix)] if path.suffix else name
    slug = re.sub(r"[^a-z0-9._]+", "-", name.lower()).strip("-._")[-96:].lstrip("-._")
    digest = hashlib.sha256(uri.encode()).hexdigest()[:8]
    return check_dataset_id(f"{slug or 'raster'}-{digest}")
