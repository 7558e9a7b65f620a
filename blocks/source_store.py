"""A Prefect block for the server that rasters are read from, if it is not the server of the datasets."""

from __future__ import annotations

from blocks.loading import load_block
from blocks.settings_block import SettingsBlock
from rasterembed.store.server_settings import SourceSettings, SourceStore


class SourceStoreBlock(SourceSettings, SettingsBlock):
    """How rasters are read: an S3 server with its credentials, and the hosts that are read over https."""

    _block_type_name = "Source Store"
    _block_type_slug = "source-store"
    _description = (
        "How rasters are read, if not from the store: an S3 server with its keys, and hosts that are read over https."
    )

    def source_store(self) -> SourceStore:
        """Return the library's settings."""
        return SourceStore.model_validate({name: getattr(self, name) for name in SourceSettings.model_fields})


def load_source_store(block: str) -> SourceStore:
    """Return the settings of a source-store block.

    Raises:
        UsageError: if the block does not exist, or if one of its values is wrong.
    """
    return load_block(SourceStoreBlock, block, "source_store").source_store()
