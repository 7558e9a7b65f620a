"""Many uploads at once, on a Prefect server with PostgreSQL: all are embedded, none is lost and none twice.

With BURST_DATABASE=sqlite, the same on SQLite. With `-s`, pytest shows how long it took.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import httpx
import pytest

from rasterembed.collection.collection import Collection
from rasterembed.collection.stac_collection import CollectionState
from rasterembed.dataset.manifest import read_manifest
from rasterembed.raster.source import default_dataset_id
from rasterembed.store.object_store import ObjectStore
from rasterembed.store.uploads import dataset_dates
from tests.services.test_notifications import announce
from tests.support.deployed import write_striped_raster
from tests.support.postgres import postgres
from tests.support.prefect_server import PrefectServer, prefect_server
from tests.support.servers import S3Server
from tests.support.waiting import wait_for
from tests.support.webhook import COLLECTION, deploy_to, webhook, worker

UPLOADS = 100
POOL = "burst"
COLLECTION_UPLOADS, UPLOAD_SECONDS, LATE_UPLOADS = 200, 10, 5
COLLECTION_POOL = "collections"


ENDED = "COMPLETED", "FAILED", "CRASHED", "CANCELLED"


@pytest.fixture(scope="module")
def server() -> Iterator[PrefectServer]:
    """Start a Prefect server for these tests."""
    sqlite = os.environ.get("BURST_DATABASE") == "sqlite"
    with (
        nullcontext() if sqlite else postgres() as database,
        prefect_server(database_url=database, few_certificates=True) as found,
    ):
        yield found


@pytest.fixture
def root(ceph: S3Server, bucket: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """Make the test's bucket, and return the address of a store in it. This process gets the gateway's keys."""
    for name, value in ceph.environment().items():
        monkeypatch.setenv(name, value)
    ceph.create_bucket(bucket)
    return f"s3://{bucket}/store"


def parameters(model: Path) -> dict[str, Any]:
    """Return parameters for quick runs. Their fifteen vectors are too few for the quality checks to judge."""
    return {"dinov3": {"model": str(model), "device": "cpu"}, "grid": {"size": 64}, "qa": {"min_rows": 100}}


@pytest.mark.burst
@pytest.mark.timeout(1200)
def test_a_hundred_uploads_at_once_are_a_hundred_datasets(
    ceph: S3Server, server: PrefectServer, bucket: str, root: str, tiny_vit: Path, tmp_path: Path
) -> None:
    keys = [f"in/{number:03d}.tif" for number in range(UPLOADS)]
    tiny = write_striped_raster(tmp_path / "tiny.tif", 4, 4, 64).read_bytes()
    with worker(server, POOL, tmp_path, "tests.support.forking_worker", POOL, "--limit", "3"):
        deployment = deploy_to(server, POOL, **parameters(tiny_vit))
        with webhook(server.api_url, deployment.name, root=root) as service:
            announce(ceph, bucket, service)
            begun = time.monotonic()
            with ThreadPoolExecutor(20) as pool:
                list(pool.map(lambda key: ceph.client().put_object(Bucket=bucket, Key=key, Body=tiny), keys))
            uploaded = time.monotonic() - begun
            wait_for(lambda: deployment.count() >= UPLOADS, "the runs", 300, every=2)
            created = time.monotonic() - begun
            wait_for(lambda: deployment.count(*ENDED) == deployment.count(), "the datasets", 800, every=2)
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


@pytest.mark.burst
@pytest.mark.timeout(600)
def test_two_hundred_uploads_into_a_collection_are_a_few_runs(
    ceph: S3Server, server: PrefectServer, bucket: str, root: str, tiny_vit: Path, tmp_path: Path
) -> None:
    collection = "survey"
    keys = [f"in/{number:03d}.tif" for number in range(COLLECTION_UPLOADS + LATE_UPLOADS)]
    tiny = write_striped_raster(tmp_path / "tiny.tif", 4, 4, 64).read_bytes()
    begun = time.monotonic()

    def upload(number: int) -> None:
        time.sleep(max(0.0, begun + number * UPLOAD_SECONDS / COLLECTION_UPLOADS - time.monotonic()))
        ceph.client().put_object(Bucket=bucket, Key=keys[number], Body=tiny)

    with worker(server, COLLECTION_POOL, tmp_path, "tests.support.forking_worker", COLLECTION_POOL, "--limit", "2"):
        deployment = deploy_to(server, COLLECTION_POOL, COLLECTION, **parameters(tiny_vit))
        with webhook(
            server.api_url,
            deployment.name,
            root,
            collections=json.dumps([{"bucket": bucket, "prefix": "in/", "collection": collection}]),
            collection_deployment=deployment.name,
            collection_slot_s="5",  # The burst lasts for several slots.
        ) as service:
            announce(ceph, bucket, service)
            begun = time.monotonic()
            with ThreadPoolExecutor(40) as pool:
                list(pool.map(upload, range(COLLECTION_UPLOADS)))
            uploaded = time.monotonic() - begun

            def taken(uploads: int) -> bool:
                try:
                    counts = service.counts()
                except httpx.HTTPError:  # In the burst, the gateway has all connections of the webhook.
                    return False
                return counts["started"] + counts["duplicate"] >= uploads

            wait_for(lambda: taken(COLLECTION_UPLOADS), "the notifications", 120, every=1)
            announced = time.monotonic() - begun
            # These come while a run works that has listed the bucket already. The next run waits, and takes them.
            store = ObjectStore(root=root)
            wait_for(lambda: dataset_dates(store), "the first scene", 120, every=0.5)
            for number in range(COLLECTION_UPLOADS, len(keys)):
                upload(number)
            wait_for(lambda: taken(len(keys)), "the late notifications", 60, every=1)
            wait_for(lambda: deployment.count(*ENDED) == deployment.count(), "the runs", 400, every=2)
            done = time.monotonic() - begun
            print(f"uploaded after {uploaded:.0f} s, announced after {announced:.0f} s, ended after {done:.0f} s")
            print(service.counts())
    runs = deployment.runs()
    assert [run["state"]["message"] for run in runs if run["state"]["type"] != "COMPLETED"] == []
    print(f"{len(runs)} runs")
    assert 2 <= len(runs) <= 5
    found = Collection.open(store, collection)
    assert found.state is CollectionState.READY
    rows = list(found.catalogue.rows())
    assert sorted(row.source for row in rows) == [f"s3://{bucket}/{key}" for key in keys]
    assert {(row.state.value, row.rows) for row in rows} == {("ready", 15)}  # a corner has no pixels
    assert found.table is not None
    assert found.table.rows == 15 * len(keys)
