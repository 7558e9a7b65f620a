"""A Prefect block for an object store: the place of the datasets, and the credentials for it."""

from __future__ import annotations

from pydantic import ValidationError

from blocks.loading import load_block
from blocks.settings_block import SettingsBlock
from blocks.source_store import load_source_store
from rasterembed.errors import UsageError, validation_reason
from rasterembed.store import object_store
from rasterembed.store.object_store import ObjectStore, StoreSettings


class ObjectStoreBlock(StoreSettings, SettingsBlock):
    """A folder, or a bucket and prefix of an S3 server, with its credentials."""

    _block_type_name = "Object Store"
    _block_type_slug = "object-store"
    _description = "The place of rasters and datasets: a folder, or a bucket of an S3 or MinIO server."

    def store(self) -> ObjectStore:
        """Return the library's store with these settings."""
        return ObjectStore.model_validate({name: getattr(self, name) for name in StoreSettings.model_fields})


def open_store(root: str | None, block: str | None, source_block: str | None = None) -> ObjectStore:
    """Return the store that a flow's parameters name.

    Args:
        root: folder or s3://bucket/prefix. The default is the block's root. Without a block, the default is the folder
            `rasterembed-store`.
        block: name of an object-store block, which also gives endpoint and keys.
        source_block: name of a source-store block: the server that rasters on S3 are read from.

    Raises:
        UsageError: if a block does not exist, or if the block or the root is wrong.
    """
    store = _open(root, block)
    if source_block is None:
        return store
    return store.model_copy(update={"source_store": load_source_store(source_block)})


def _open(root: str | None, block: str | None) -> ObjectStore:
    """Return the store without a source store. See `open_store`."""
    if block is None:
        return object_store.open_store(root)
    object_store.check_not_empty(root)
    settings = load_block(ObjectStoreBlock, block, "object store")
    try:
        return (settings.model_copy(update={"root": root}) if root else settings).store()
    except ValidationError as error:
        raise UsageError(f"object store {block!r}: {validation_reason(error)}") from error
