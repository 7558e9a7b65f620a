"""Stores of every kind for the tests of this folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from rasterembed.store.object_store import ObjectStore
from tests.support.servers import S3Server
from tests.support.stores import at


@pytest.fixture(params=["folder", "moto", pytest.param("ceph", marks=pytest.mark.s3)])
def store(request: pytest.FixtureRequest, tmp_path: Path, bucket: str) -> ObjectStore:
    """Return a store in a folder, and one in a bucket of each server."""
    if request.param == "folder":
        return ObjectStore(root=str(tmp_path / "store"))
    server: S3Server = request.getfixturevalue(request.param)
    server.create_bucket(bucket)
    return at(server, bucket)
