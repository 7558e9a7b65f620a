"""The object store as a Prefect block: where datasets are kept, and the keys that reach it."""

from __future__ import annotations

from prefect.blocks.core import Block
from pydantic import ValidationError

from rasterembed.errors import UsageError, one_line, validation_reason
from rasterembed.store import object_store
from rasterembed.store.object_store import ObjectStore, StoreSettings


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
        root: folder or s3://bucket/prefix; by default the block's root, or `rasterembed-store` without a block.
        block: name of an object-store block, which also gives endpoint and keys.

    Raises:
        UsageError: if there is no block of that name, or the block or the root is wrong.
    """
    if block is None:
        return object_store.open_store(root)
    try:
        settings = ObjectStoreBlock.load(block)
        assert isinstance(settings, ObjectStoreBlock)  # outside an event loop `load` returns the block itself
        return (settings.model_copy(update={"root": root}) if root else settings).store()
    except ValidationError as error:
        raise UsageError(f"object store {block!r}: {validation_reason(error)}") from error
    except ValueError as error:  # Prefect: there is no such block
        raise UsageError(f"object store {block!r}: {one_line(error)}") from error
