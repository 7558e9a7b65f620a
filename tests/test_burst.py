"""A hundred uploads at once, on a Prefect server with PostgreSQL: a hundred datasets, none lost and none twice."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import rasterio

from rasterembed.scene import make_scene
from rasterembed.source import default_dataset_id
from rasterembed.store import ObjectStore
from rasterembed.uploads import dataset_dates
from tests.conftest import PROJECT
from tests.postgres import postgres
from tests.prefect_server import prefect_server
from tests.servers import S3Server
from tests.test_notifications import SEND_AGAIN_S, announce
from tests.webhook import deploy, wait_for, webhook

UPLOADS = 100


@pytest.mark.burst
@pytest.mark.timeout(1200)
def test_a_hundred_uploads_at_once_are_a_hundred_datasets(
    ceph: S3Server, bucket: str, tiny_vit: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in ceph.environment().items():
        monkeypatch.setenv(name, value)
    ceph.create_bucket(bucket)
    root = f"s3://{bucket}/store"
    keys = [f"in/{number:03d}.tif" for number in range(UPLOADS)]
    tiny = _tiny(tmp_path)
    with postgres() as database, prefect_server(database_url=database) as prefect:
        deployment = deploy(
            prefect,
            parameters={
                "dinov3": {"model": str(tiny_vit), "device": "cpu"},
                "grid": {"size": 64},
                "qa": {"min_rows": 100},  # sixteen vectors are too few to judge
            },
        )
        with webhook(prefect.api_url, deployment.name, root=root) as service:
            announce(ceph, bucket, service)
            with ThreadPoolExecutor(20) as pool:
                list(pool.map(lambda key: ceph.client().put_object(Bucket=bucket, Key=key, Body=tiny), keys))
            wait_for(lambda: len(deployment.runs()) >= UPLOADS, "the runs", SEND_AGAIN_S)
            done = subprocess.run(
                [sys.executable, "-m", "tests.run_scheduled", deployment.id],
                cwd=PROJECT,
                env=prefect.environment() | {"OMP_NUM_THREADS": "1"},
                capture_output=True,
                text=True,
            )
            assert done.returncode == 0, done.stderr[-3000:]
        runs = deployment.runs()
    assert [run["state"]["message"] for run in runs if run["state"]["type"] != "COMPLETED"] == []
    assert sorted(run["parameters"]["raster"] for run in runs) == [f"s3://{bucket}/{key}" for key in keys]
    made = dataset_dates(ObjectStore(root=root))
    assert sorted(made) == sorted(default_dataset_id(f"s3://{bucket}/{key}") for key in keys)


def _tiny(folder: Path) -> bytes:
    """A corner of a scene: 256 px a side."""
    scene, tiny = make_scene(folder / "scene", width=512, height=512).raster, folder / "tiny.tif"
    with rasterio.open(scene) as source:
        window = rasterio.windows.Window(0, 0, 256, 256)
        profile = source.profile | {"width": 256, "height": 256, "transform": source.window_transform(window)}
        with rasterio.open(tiny, "w", **profile) as target:
            target.write(source.read(window=window))
    return tiny.read_bytes()
