"""Upload a raster to the stack's bucket, wait for the run that the webhook creates, and print the run's final state.

    python -m scripts.upload scene.tif        (`make upload RASTER=scene.tif`)

The variables of docker/.env and docker/stack.env must be set.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import boto3
from prefect.client.schemas.filters import FlowRunFilter
from prefect.client.schemas.objects import FlowRun

from flows.prefect_connection import connect
from rasterembed.store.uploads import Upload

BUCKET = "rasters"
PATIENCE_S = 60
"""Longest wait for the run after the upload, in seconds. A notification usually takes one or two seconds."""


def idempotency_key_of(key: str) -> str:
    """Return the idempotency key that the webhook gives the run of an uploaded object; see docs/uploads.md."""
    client = boto3.client("s3", endpoint_url=os.environ["UPLOAD_ENDPOINT"])
    found = client.head_object(Bucket=BUCKET, Key=key)
    version = found.get("VersionId") or found["ETag"].strip('"')
    return Upload(bucket=BUCKET, key=key, version=version).identity


def main(file: Path) -> None:
    """Upload a file and wait for its flow run."""
    boto3.client("s3", endpoint_url=os.environ["UPLOAD_ENDPOINT"]).upload_file(str(file), BUCKET, file.name)
    print(f"s3://{BUCKET}/{file.name}: uploaded")
    wanted = FlowRunFilter.model_validate({"idempotency_key": {"any_": [idempotency_key_of(file.name)]}})
    begun, run = time.monotonic(), None
    with connect() as client:
        while run is None or run.state is None or not run.state.is_final():
            if run is None and time.monotonic() - begun > PATIENCE_S:
                sys.exit(f"no run after {PATIENCE_S} s: see docs/uploads.md and the logs of s3 and webhook")
            time.sleep(2)
            found: list[FlowRun] = client.read_flow_runs(flow_run_filter=wanted)
            if found and run is None:
                print(f"flow run {found[0].name}")
            run = found[0] if found else None
    print(f"{run.state.name}: {run.state.message or os.environ['RASTER_ROOT']}")
    sys.exit(0 if run.state.is_completed() else 1)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: make upload RASTER=scene.tif")
    missing = [name for name in ("UPLOAD_ENDPOINT", "RASTER_ROOT") if name not in os.environ]
    if missing:
        sys.exit(f"no {' and no '.join(missing)}: first set the variables of docker/.env and docker/stack.env")
    main(Path(sys.argv[1]))
