"""Steps of the sweep, which finds uploads whose notification was lost."""

from __future__ import annotations

from collections.abc import Iterable

from prefect import get_client, get_run_logger, task
from prefect.artifacts import create_table_artifact
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterIdempotencyKey
from prefect.client.schemas.objects import FlowRun
from prefect.exceptions import ObjectNotFound

from rasterembed.errors import ObjectMissingError, UsageError
from rasterembed.escape import escape_terminal
from rasterembed.raster.source import default_dataset_id, default_dataset_id_of_0_1
from rasterembed.store.object_store import ObjectStore
from rasterembed.store.uploads import Upload, UploadRules, dataset_dates
from tasks.artifacts import shortened
from tasks.policy import STEP

_PAGE = 100
"""Number of idempotency keys in one request. The server answers with at most 200 runs."""


@task(name="find-uploads", **STEP)
def find_uploads(store: ObjectStore, uploads: str, rules: UploadRules) -> list[Upload]:
    """Find the uploads that have no dataset, or whose dataset is older than the upload.

    Args:
        store: store of the datasets. Its credentials are also used to list the uploads.
        uploads: bucket and prefix of the uploads, as s3://bucket/prefix.
        rules: which objects are uploads.
    """
    dates = dataset_dates(store)
    pending, found = [], 0
    for bucket, key, info in store.find_uploads(uploads):
        if not rules.follow(bucket, key, store.root):
            continue
        found += 1
        uri = f"s3://{bucket}/{key}"
        # Compare ids only. To see which raster a dataset has, each manifest would have to be read, and a store may have
        # thousands of datasets.
        names = (default_dataset_id(uri), default_dataset_id_of_0_1(uri))
        if max(dates.get(name, 0.0) for name in names) < info.modified:
            try:
                pending.append(Upload(bucket=bucket, key=key, version=store.version_id(uri) or info.version))
            except ValueError:
                get_run_logger().warning("%r: no run can read an object with this name", uri)
            except ObjectMissingError:
                continue  # The object was deleted after the listing.
    get_run_logger().info("%d uploads in %s, %d without a dataset", found, uploads, len(pending))
    return pending


@task(name="start-runs", **STEP)
def start_runs(
    pending: Iterable[Upload], deployment: str, root: str | None, store: str | None, most: int
) -> tuple[list[Upload], list[FlowRun]]:
    """Create a run for each upload that has no run.

    Args:
        pending: uploads without a dataset.
        deployment: deployment to run for each upload, as flow/deployment.
        root: folder or s3://bucket/prefix for the datasets; None: the deployment's value.
        store: name of an object-store block; None: the deployment's value.
        most: largest number of runs to create.

    Returns:
        The uploads whose run was created, and the runs that the other uploads already had.

    Raises:
        UsageError: if the deployment does not exist.
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
    """Create a table artifact: the uploads started now, and the uploads that have a run but no dataset."""
    started, known = list(started), list(known)
    rows = [{"upload": escape_terminal(shortened(upload.uri)), "state": "started now"} for upload in started]
    rows += [
        {"upload": escape_terminal(shortened(run.name)), "state": str(run.state_name), "run": str(run.id)}
        for run in known
    ]
    create_table_artifact(
        rows,
        key="uploads-without-dataset",
        description=f"Uploads without a dataset: {len(started)} started now, {len(known)} started before",
    )
