"""The sweep: start a run for each upload whose notification was lost.

python -m flows.reconcile_uploads s3://BUCKET/PREFIX [--root URI] [--deployment FLOW/DEPLOYMENT] ...
"""

from __future__ import annotations

if __name__ == "__main__":
    from flows.fast_start import import_prefect

    import_prefect()

from typing import Annotated

from prefect import flow
from prefect.client.schemas.objects import StateType
from pydantic import BaseModel, Field

from blocks.object_store import open_store
from flows.command import command
from rasterembed.store.uploads import UploadRules
from tasks.policy import log_expected_errors_in_one_line
from tasks.uploads import find_uploads, publish_sweep, start_runs


class Sweep(BaseModel):
    """Numbers of uploads that a sweep found."""

    pending: int
    """Uploads without a dataset."""
    started: int
    """Uploads for which this sweep created a run."""
    running: int
    """Uploads whose run has not ended."""
    failed: int
    """Uploads whose run ended without a dataset. A sweep does not start these runs again. A person must do this."""


@flow(name="reconcile-uploads", flow_run_name="{uploads}")
def reconcile_uploads(
    uploads: str,
    root: str | None = None,
    store: str | None = None,
    deployment: str = "raster-embeddings/embed-docker",
    rules: UploadRules = UploadRules(),
    most: Annotated[int, Field(ge=1)] = 100,
) -> Sweep:
    """Start a run for every upload that has neither a dataset nor a run.

    Args:
        uploads: Bucket and prefix of the uploads, as s3://bucket/prefix.
        root: Folder or s3://bucket/prefix for the datasets.
        store: Name of an object-store block, for a bucket with its own endpoint and keys.
        deployment: Deployment to run for each upload, as flow/deployment.
        rules: Which objects are uploads. Use the same rules as the webhook.
        most: Largest number of runs to start. The next sweep starts the others.
    """
    log_expected_errors_in_one_line()
    target = open_store(root, store)
    pending = find_uploads(target, uploads, rules)
    started, known = start_runs(pending, deployment, root, store, most)
    publish_sweep(started, known)
    failed = [run for run in known if run.state_type in (StateType.FAILED, StateType.CRASHED, StateType.CANCELLED)]
    return Sweep(pending=len(pending), started=len(started), running=len(known) - len(failed), failed=len(failed))


if __name__ == "__main__":
    command(reconcile_uploads)
