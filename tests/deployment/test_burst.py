"""A hundred uploads at once, on a Prefect server with PostgreSQL: a hundred datasets, none lost and none twice.

With BURST_DATABASE=sqlite, the same on SQLite. With `-s`, pytest shows how long it took.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path

import pytest

from rasterembed.dataset.manifest import read_manifest
from rasterembed.raster.source import default_dataset_id
from rasterembed.store.object_store import ObjectStore
from rasterembed.store.uploads import dataset_dates
from tests.services.test_notifications import announce
from tests.support.deployed import write_scene
from tests.support.postgres import postgres
from tests.support.prefect_server import PrefectServer, prefect_server
from tests.support.servers import S3Server
from tests.support.webhook import deploy_to, wait_for, webhook, worker

UPLOADS = 100
POOL = "burst"


@pytest.fixture
def server() -> Iterator[PrefectServer]:
    """Start a Prefect server for this test alone."""
    sqlite = os.environ.get("BURST_DATABASE") == "sqlite"
    with nullcontext() if sqlite else postgres() as database, prefect_server(database_url=database) as found:
        yield found


@pytest.mark.burst
@pytest.mark.timeout(1200)
def test_a_hundred_uploads_at_once_are_a_hundred_datasets(
    ceph: S3Server, server: PrefectServer, bucket: str, tiny_vit: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in ceph.environment().items():
        monkeypatch.setenv(name, value)
    ceph.create_bucket(bucket)
    root = f"s3://{bucket}/store"
    keys = [f"in/{number:03d}.tif" for number in range(UPLOADS)]
    tiny = write_scene(tmp_path / "tiny.tif", 4, 4, 64).read_bytes()
    with worker(server, POOL, tmp_path, "tests.support.forking_worker", POOL, "--limit", "3"):
        deployment = deploy_to(
            server,
            POOL,
            dinov3={"model": str(tiny_vit), "device": "cpu"},
            grid={"size": 64},
            qa={"min_rows": 100},  # fifteen vectors are too few to judge
        )
        with webhook(server.api_url, deployment.name, root=root) as service:
            announce(ceph, bucket, service)
            begun = time.monotonic()
            with ThreadPoolExecutor(20) as pool:
                list(pool.map(lambda key: ceph.client().put_object(Bucket=bucket, Key=key, Body=tiny), keys))
            uploaded = time.monotonic() - begun
            wait_for(lambda: deployment.count() >= UPLOADS, "the runs", 300, every=2)
            created = time.monotonic() - begun
            ended = "COMPLETED", "FAILED", "CRASHED", "CANCELLED"
            wait_for(lambda: deployment.count(*ended) == deployment.count(), "the datasets", 800, every=2)
            done = time.monotonic() - begun
            print(f"uploaded after {uploaded:.0f} s, runs created after {created:.0f} s, ended after {done:.0f} s")
            print(service.counts())
    log = (server.home / "server.log").read_text(errors="replace")
    print(log.count("sqlalchemy.exc.OperationalError: (sqlite3.OperationalError) database is locked"), "times locked")
    runs = deployment.runs()
    assert [run["state"]["message"] for run in runs if run["state"]["type"] != "COMPLETED"] == []
    assert sorted(run["parameters"]["raster"] for run in runs) == [f"s3://{bucket}/{key}" for key in keys]
    store = ObjectStore(root=root)
    names = sorted(default_dataset_id(f"s3://{bucket}/{key}") for key in keys)
    assert sorted(dataset_dates(store)) == names
    manifests = [read_manifest(store, name) for name in names]
    assert {(found.state, found.rows) for found in manifests if found} == {("ready", 15)}  # a corner has no pixels
