"""A Prefect block for the server that rasters are read from, if it is not the server of the datasets."""

from __future__ import annotations

from prefect.blocks.core import Block

from rasterembed.errors import UsageError, one_line
from rasterembed.store.server_settings import SourceSettings, SourceStore


class SourceStoreBlock(SourceSettings, Block):
    """The S3 server that rasters are read from, and the credentials for it."""

    _block_type_name = "Source Store"
    _block_type_slug = "source-store"
    _description = "The S3 server that rasters are read from, if datasets are written to another: endpoint and keys."

    def source_store(self) -> SourceStore:
        """Return the library's settings."""
        return SourceStore(**{name: getattr(self, name) for name in SourceSettings.model_fields})


def load_source_store(block: str) -> SourceStore:
    """Return the settings of a source-store block.

    Raises:
        UsageError: if the block does not exist.
    """
    try:
        settings = SourceStoreBlock.load(block)
    except ValueError as error:  # Prefect raises this if the block does not exist.
        raise UsageError(f"source_store {block!r}: {one_line(error)}") from error
    assert isinstance(settings, SourceStoreBlock)  # Inside an event loop, `load` would return a coroutine.
    return settings.source_store()
