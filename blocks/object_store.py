"""The object store as a block: where datasets go, and the keys that reach it."""

from __future__ import annotations

from prefect.blocks.core import Block
from pydantic import Field, SecretStr

from rasterembed.errors import UsageError, one_line
from rasterembed.store.object_store import ObjectStore

DEFAULT_ROOT = "rasterembed-store"
"""Folder that datasets go to where nothing else is said."""


class ObjectStoreBlock(Block):
    """A folder, or a bucket and prefix of an S3 or MinIO server, with its credentials."""

    _block_type_name = "Object Store"
    _block_type_slug = "object-store"
    _description = "A folder, or a bucket of an S3 or MinIO server, that rasters are read from and datasets written to."

    root: str = Field(description="A folder, or s3://bucket/prefix.")
    endpoint_url: str | None = Field(
        default=None, description="URL of the S3 server, as http://minio:9000; http:// turns TLS off. Empty: AWS."
    )
    access_key: SecretStr | None = Field(default=None, description="Access key id. Empty: the AWS credentials chain.")
    secret_key: SecretStr | None = Field(default=None, description="Secret access key.")
    region: str = Field(default="us-east-1", description="Region of the bucket.")
    path_style: bool = Field(
        default=True, description="Address buckets by path (host/bucket), as MinIO does, not by host name."
    )

    def store(self) -> ObjectStore:
        """The library's store with these settings."""
        return ObjectStore(
            root=self.root,
            endpoint_url=self.endpoint_url,
            access_key=self.access_key,
            secret_key=self.secret_key,
            region=self.region,
            path_style=self.path_style,
        )


def open_store(root: str | None, block: str | None) -> ObjectStore:
    """The store that a flow's parameters name: by URI, by a block, or a block with another root.

    Raises:
        UsageError: if there is no block of that name, or it or the root is wrong.
    """
    try:
        if block is None:
            return ObjectStore(root=root or DEFAULT_ROOT)
        settings = ObjectStoreBlock.load(block)
        return (settings.model_copy(update={"root": root}) if root else settings).store()
    except ValueError as error:
        raise UsageError(f"object store {block or root!r}: {_reason(error)}") from error


def _reason(error: ValueError) -> str:
    """The first thing that pydantic or Prefect says, in one line."""
    errors = getattr(error, "errors", None)
    return errors()[0]["msg"].removeprefix("Value error, ") if errors else one_line(error)
