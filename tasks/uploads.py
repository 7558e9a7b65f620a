"""The steps of the sweep for uploads that no notification announced."""

from __future__ import annotations

from collections.abc import Iterable

from prefect import get_client, get_run_logger, task
from prefect.artifacts import create_table_artifact
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterIdempotencyKey
from prefect.client.schemas.objects import FlowRun
from prefect.exceptions import ObjectNotFound

from rasterembed.errors import ObjectMissingError, UsageError
from rasterembed.raster.source import default_dataset_id
from rasterembed.store.object_store import ObjectStore
from rasterembed.store.uploads import Upload, UploadRules, dataset_dates
from tasks.policy import STEP

_PAGE = 100
"""Keys in one request; the server answers with at most 200 runs."""


@task(name="find-uploads", **STEP)
def find_uploads(store: ObjectStore, uploads: str, rules: UploadRules) -> list[Upload]:
    """Uploads below s3://bucket/prefix that have no dataset newer than themselves."""
    dates = dataset_dates(store)
    pending, found = [], 0
    for bucket, key, info in store.find_uploads(uploads):
        if not rules.follow(bucket, key, store.root):
            continue
        found += 1
        uri = f"s3://{bucket}/{key}"
        if dates.get(default_dataset_id(uri), 0.0) < info.modified:
            try:
                pending.append(Upload(bucket=bucket, key=key, version=store.version_id(uri) or info.version))
            except ValueError:
                get_run_logger().warning("%r: no run can read an object of this name", uri)
            except ObjectMissingError:
                continue  # deleted since it was listed
    get_run_logger().info("%d uploads in %s, %d without a dataset", found, uploads, len(pending))
    return pending


@task(name="start-runs", **STEP)
def start_runs(
    pending: Iterable[Upload], deployment: str, root: str | None, store: str | None, most: int
) -> tuple[list[Upload], list[FlowRun]]:
    """Create the runs of uploads that have none, `most` at a time; what was started, and the runs there were already.

    Raises:
        UsageError: if there is no such deployment.
    """
    waiting = list(pending)
    with get_client(sync_client=True) as client:
        try:
            target = client.read_deployment_by_name(deployment)
        except (ObjectNotFound, ValueError) as error:
            raise UsageError(f"there is no deployment {deployment!r}: give it as flow/deployment") from error
        known: dict[str, FlowRun] = {}
        for start in range(0, len(waiting), _PAGE):
            keys = [upload.identity for upload in waiting[start : start + _PAGE]]
            named = FlowRunFilter(idempotency_key=FlowRunFilterIdempotencyKey(any_=keys))
            known |= {run.idempotency_key or "": run for run in client.read_flow_runs(flow_run_filter=named)}
        missing = [upload for upload in waiting if upload.identity not in known][:most]
        for upload in missing:
            client.create_flow_run_from_deployment(
                target.id,
                name=upload.uri,
                parameters=upload.parameters(root, store),
                idempotency_key=upload.identity,
                tags=["upload"],
            )
            get_run_logger().info("started %r", upload.uri)
    return missing, list(known.values())


def publish_sweep(started: Iterable[Upload], known: Iterable[FlowRun]) -> None:
    """Show what was started, and what has a run but no dataset, as a table artifact of the run."""
    rows = [{"upload": upload.uri, "state": "started now"} for upload in started]
    rows += [{"upload": run.name, "state": str(run.state_name), "run": str(run.id)} for run in known]
    create_table_artifact(rows, key="uploads-without-dataset", description="Uploads that had no dataset")
