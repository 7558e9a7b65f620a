"""Check the quality of an existing dataset or collection again, for example with other thresholds.

python -m flows.qa_report DATASET [--root URI] [--max-mean-cosine 0.999] ...
python -m flows.qa_report --collection ID [--root URI] [--max-duplicate-scenes 2] ...
"""

from __future__ import annotations

if __name__ == "__main__":
    from flows.fast_start import import_prefect

    import_prefect()

from typing import Annotated

from prefect import flow
from prefect.runtime import flow_run
from pydantic import BaseModel

from blocks.object_store import open_store
from flows.command import command
from rasterembed.collection_upkeep import check_collection
from rasterembed.command_line.command_app import POSITIONAL
from rasterembed.dataset.dataset import Dataset
from rasterembed.dataset.manifest import ALL_STATES
from rasterembed.errors import UsageError
from rasterembed.pipeline import check_dataset
from rasterembed.qa.collection_thresholds import CollectionThresholds
from rasterembed.qa.metric_report import dry_run_text
from rasterembed.qa.thresholds import QaThresholds
from rasterembed.search.next_search import search_command
from rasterembed.store.layout import CollectionLayout, DatasetLayout
from rasterembed.store.object_store import ObjectStore
from tasks.collection_qa import CollectionQaSteps
from tasks.policy import log_expected_errors_in_one_line
from tasks.steps import PrefectSteps


class Verdict(BaseModel):
    """The result of a run in which the dataset passed. In all other cases the run fails and has no result."""

    dataset_id: str
    state: str | None
    """State of the dataset. None after a dry run, which changes no state."""
    metrics: str
    """Number of metrics that passed or were not judged, and why."""
    report: str | None
    """URI of the report. None after a dry run, which writes no report."""
    search: str | None
    """Command that searches the dataset. None after a dry run, or if no tile was embedded."""


class CollectionVerdict(BaseModel):
    """The result of a run in which the collection passed. In all other cases the run fails and has no result."""

    collection_id: str
    metrics: str
    """Number of metrics that passed or were not judged, and why."""
    report: str | None
    """URI of the report. None after a dry run, which writes no report."""


def _run_name() -> str:
    """Return the name of the flow run: that of the dataset, or of the collection."""
    given = flow_run.parameters
    return str(given.get("dataset") or given.get("collection") or "qa-report")


@flow(name="qa-report", flow_run_name=_run_name)
def qa_report(
    dataset: Annotated[str | None, POSITIONAL] = None,
    root: str | None = None,
    store: str | None = None,
    source_store: str | None = None,
    collection: str | None = None,
    thresholds: QaThresholds = QaThresholds(),
    collection_thresholds: CollectionThresholds = CollectionThresholds(),
    dry_run: bool = False,
) -> Verdict | CollectionVerdict:
    """Check a dataset's vectors, write the report, and set the dataset's state to ready or failed_qa.

    With the name of a collection, check the collection as a whole. Its scenes keep their states.

    Args:
        dataset: Name of the dataset.
        root: Folder or s3://bucket/prefix of the dataset. By default the folder rasterembed-store.
        store: Name of an object-store block, for a bucket with its own endpoint and keys.
        source_store: Name of a source-store block, if rasters are read from another server, or over https.
        collection: Name of a collection to check, in place of a dataset.
        thresholds: Bounds that the dataset must keep.
        collection_thresholds: Bounds that the collection must keep, if a collection is checked.
        dry_run: Only show the result. The dataset or the collection keeps its state and its report.
    """
    log_expected_errors_in_one_line()
    if (dataset is None) == (collection is None):
        raise UsageError("give either the name of a dataset, or `collection`, the name of a collection")
    target = open_store(root, store, source_store)
    if collection is not None:
        return _check_collection(target, collection, collection_thresholds, dry_run)
    assert dataset is not None
    report = check_dataset(target, dataset, thresholds, dry_run=dry_run, steps=PrefectSteps(), run_id=str(flow_run.id))
    print(report.table())
    manifest = Dataset.open(target, dataset, states=ALL_STATES).manifest
    if dry_run:
        print(dry_run_text(report, f"dataset {dataset!r}", manifest.state))
    report.check(target)
    return Verdict(
        dataset_id=dataset,
        state=None if dry_run else manifest.state,
        metrics=report.summary(),
        report=None if dry_run else target.uri(DatasetLayout(dataset).qa_report_markdown),
        search=None if dry_run else search_command(target, manifest, store),
    )


def _check_collection(
    store: ObjectStore, collection: str, thresholds: CollectionThresholds, dry_run: bool
) -> CollectionVerdict:
    report = check_collection(
        store, collection, thresholds, dry_run=dry_run, steps=CollectionQaSteps(), run_id=str(flow_run.id)
    )
    print(report.table())
    if dry_run:
        print(dry_run_text(report, f"collection {collection!r}"))
    report.check(store)
    where = None if dry_run else store.uri(CollectionLayout(collection).qa_report_markdown)
    return CollectionVerdict(collection_id=collection, metrics=report.summary(), report=where)


if __name__ == "__main__":
    command(qa_report)
