"""The object store as a Prefect block: where datasets are kept, and the keys that reach it."""

from __future__ import annotations

from prefect.blocks.core import Block

from rasterembed.errors import UsageError, one_line
from rasterembed.store.object_store import ObjectStore, StoreSettings

DEFAULT_ROOT = "rasterembed-store"
"""Folder, in the working directory, that datasets go to if no root is given."""


class ObjectStoreBlock(StoreSettings, Block):
    """A folder, or a bucket and prefix of an S3 server, with its credentials."""

    _block_type_name = "Object Store"
    _block_type_slug = "object-store"
    _description = "A folder, or a bucket of an S3 or MinIO server, that rasters are read from and datasets written to."

    def store(self) -> ObjectStore:
        """Return the library's store with these settings."""
        return ObjectStore(**{name: getattr(self, name) for name in StoreSettings.model_fields})


def open_store(root: str | None, block: str | None) -> ObjectStore:
    """Return the store that a flow's parameters name.

    Args:
        root: folder or s3://bucket/prefix; by default the block's root, or `DEFAULT_ROOT` without a block.
        block: name of an object-store block, which also gives endpoint and keys.

    Raises:
        UsageError: if there is no block of that name, or the block or the root is wrong.
    """
    try:
        if block is None:
            return ObjectStore(root=root or DEFAULT_ROOT)
        settings = ObjectStoreBlock.load(block)
        assert isinstance(settings, ObjectStoreBlock)  # outside an event loop `load` returns the block itself
        return (settings.model_copy(update={"root": root}) if root else settings).store()
    except ValueError as error:
        raise UsageError(f"object store {block or root!r}: {_reason(error)}") from error


def _reason(error: ValueError) -> str:
    """Return the first thing that pydantic or Prefect says, in one line."""
    errors = getattr(error, "errors", None)
    return errors()[0]["msg"].removeprefix("Value error, ") if errors else one_line(error)
