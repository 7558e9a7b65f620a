"""Fixtures that more than one test file uses."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.servers import CephMissingError, S3Server, ceph_gateway, moto_server

PROJECT = Path(__file__).parents[1]


def _listening() -> set[str]:
    """Name every socket that this process or one below it listens on."""
    found = set()
    this = psutil.Process()
    for process in (this, *this.children(recursive=True)):
        try:
            for connection in process.net_connections("inet"):
                if connection.status == psutil.CONN_LISTEN:
                    port = connection.laddr.port
                    found.add(f"{process.name()} (pid {process.pid}) on port {port}")
        except psutil.NoSuchProcess:
            pass
    return found


@pytest.fixture(scope="session", autouse=True)
def _nothing_listens_afterwards() -> Iterator[None]:
    before = _listening()
    yield
    assert _listening() - before == set()


@pytest.fixture(scope="session")
def moto() -> Iterator[S3Server]:
    """Moto's S3 server, one for the session."""
    with moto_server() as server:
        yield server


@pytest.fixture(scope="session")
def ceph() -> Iterator[S3Server]:
    """Ceph's gateway, one for the session; a test that uses it is marked `s3`."""
    try:
        with ceph_gateway() as server:
            yield server
    except CephMissingError as error:
        if os.environ.get("CI"):
            pytest.fail(str(error))
        pytest.skip(str(error))


@pytest.fixture
def bucket() -> str:
    """A bucket name that no other test has; make it with `server.create_bucket`."""
    return f"test-{uuid.uuid4().hex[:12]}"


@pytest.fixture(scope="session")
def rasters() -> Path:
    """The folder of real rasters: RASTERS, or shared/data/rasters beside the project."""
    if chosen := os.environ.get("RASTERS"):
        folder = Path(chosen)
        assert folder.is_dir(), f"RASTERS={chosen} is no folder"
        return folder
    folder = PROJECT.parent / "shared" / "data" / "rasters"
    if not folder.is_dir():
        pytest.skip("no real rasters here; RASTERS can name a folder that has them")
    return folder
