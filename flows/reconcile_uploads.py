"""The sweep: start a run for each upload whose notification was lost.

python -m flows.reconcile_uploads s3://BUCKET/PREFIX [--root URI] [--deployment FLOW/DEPLOYMENT] ...
"""

from __future__ import annotations

if __name__ == "__main__":
    from flows.fast_start import import_prefect

    import_prefect()

from collections.abc import Sequence
from typing import Annotated, Any

from cyclopts import Parameter, Token
from prefect import flow
from pydantic import BaseModel, Field

from blocks.object_store import open_store
from flows.command import command
from rasterembed.errors import UsageError
from rasterembed.store.collection_rules import CollectionRule, check_rules, read_rules
from rasterembed.store.uploads import UploadRules
from tasks.policy import log_expected_errors_in_one_line
from tasks.uploads import find_uploads, publish_sweep, start_collection_runs, start_runs


def _read_rules(_: Any, tokens: Sequence[Token]) -> tuple[CollectionRule, ...]:
    """Return the rules that a person typed as JSON."""
    return tuple(rule for token in tokens for rule in read_rules(token.value))


Rules = Annotated[
    tuple[CollectionRule, ...], Parameter(converter=_read_rules, n_tokens=1, accepts_keys=False, json_list=False)
]


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
    collection_uploads: int = 0
    """Uploads that the catalogue of their collection lacks."""
    collection_runs: int = 0
    """Runs of collections that this sweep created."""


@flow(name="reconcile-uploads", flow_run_name="{uploads}")
def reconcile_uploads(
    uploads: str,
    root: str | None = None,
    store: str | None = None,
    deployment: str = "raster-embeddings/embed-docker",
    collections: Rules = (),
    collection_deployment: str = "embed-collection/collection-docker",
    rules: UploadRules = UploadRules(),
    most: Annotated[int, Field(ge=1)] = 100,
) -> Sweep:
    """Start a run for every upload that has neither a run nor a dataset with the id that an upload gets by itself.

    Args:
        uploads: Bucket and prefix of the uploads, as s3://bucket/prefix.
        root: Folder or s3://bucket/prefix for the datasets.
        store: Name of an object-store block, for a bucket with its own endpoint and keys.
        deployment: Deployment to run for each upload, as flow/deployment.
        collections: Which uploads belong to a collection, as JSON. Use the same rules as the webhook.
        collection_deployment: Deployment to run for the uploads of a collection, as flow/deployment.
        rules: Which objects are uploads. Use the same rules as the webhook.
        most: Largest number of runs to start. The next sweep starts the others.
    """
    log_expected_errors_in_one_line()
    target = open_store(root, store)
    try:
        check_rules(collections)
    except ValueError as error:
        raise UsageError(f"`collections`: {error}") from error
    pending = find_uploads(target, uploads, rules, collections)
    started, known = start_runs(pending.single, deployment, root, store, most)
    begun: list[CollectionRule] = []
    if pending.collections:
        begun = start_collection_runs(target, pending.collections, collection_deployment, root, store)
    publish_sweep(started, known, pending.collections, begun)
    failed = [run for run in known if run.state is not None and run.state.is_final()]
    return Sweep(
        pending=len(pending.single),
        started=len(started),
        running=len(known) - len(failed),
        failed=len(failed),
        collection_uploads=sum(pending.collections.values()),
        collection_runs=len(begun),
    )


if __name__ == "__main__":
    command(reconcile_uploads)
