"""Stores on the S3 servers of the tests."""

from __future__ import annotations

from pydantic import SecretStr

from rasterembed.store.object_store import ObjectStore
from tests.support.servers import S3Server


def at(server: S3Server, bucket: str, prefix: str = "pre fix", **fields: str) -> ObjectStore:
    """Return a store in a bucket of a server. By default, its prefix has a space."""
    chosen = {"endpoint_url": server.endpoint_url, "region": server.region} | fields
    return ObjectStore(
        root=f"s3://{bucket}/{prefix}".rstrip("/"),
        access_key=SecretStr(server.access_key),
        secret_key=SecretStr(server.secret_key),
        **chosen,
    )


def anew(store: ObjectStore) -> ObjectStore:
    """Return the same store with its own connections, as another process has it."""
    return ObjectStore(**{name: getattr(store, name) for name in ObjectStore.model_fields})
