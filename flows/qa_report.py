"""Check the quality of an existing dataset again, for example with other thresholds.

python -m flows.qa_report DATASET [--root URI] [--max-mean-cosine 0.999] ...
"""

from __future__ import annotations

if __name__ == "__main__":
    from flows.fast_start import import_prefect

    import_prefect()

from prefect import flow
from prefect.runtime import flow_run
from pydantic import BaseModel

from blocks.object_store import open_store
from flows.command import command
from rasterembed.commands.next_search import search_command
from rasterembed.dataset.dataset import Dataset
from rasterembed.dataset.manifest import ALL_STATES
from rasterembed.pipeline import check_dataset
from rasterembed.qa.thresholds import QaThresholds
from rasterembed.store.layout import DatasetLayout
from tasks.policy import log_expected_errors_in_one_line
from tasks.steps import PrefectSteps


class Verdict(BaseModel):
    """The result of a run in which the dataset passed. In all other cases the run fails and has no result."""

    dataset_id: str
    state: str
    """State of the dataset. A dry run does not change it."""
    metrics: str
    """Number of metrics that passed or were not judged, and why."""
    report: str | None
    """URI of the report. None after a dry run, which writes no report."""
    search: str | None
    """Command that searches the dataset. None after a dry run, or if no tile was embedded."""


@flow(name="qa-report", flow_run_name="{dataset}")
def qa_report(
    dataset: str,
    root: str | None = None,
    store: str | None = None,
    source_store: str | None = None,
    thresholds: QaThresholds = QaThresholds(),
    dry_run: bool = False,
) -> Verdict:
    """Check a dataset's vectors, write the report, and set the dataset's state to ready or failed_qa.

    Args:
        dataset: Name of the dataset.
        root: Folder or s3://bucket/prefix of the dataset. By default the folder rasterembed-store.
        store: Name of an object-store block, for a bucket with its own endpoint and keys.
        source_store: Name of a source-store block, if rasters on S3 are read from another server than the store's.
        thresholds: Bounds that the dataset must keep.
        dry_run: Only show the result. The dataset keeps its state and its report.
    """
    log_expected_errors_in_one_line()
    target = open_store(root, store, source_store)
    report = check_dataset(target, dataset, thresholds, dry_run=dry_run, steps=PrefectSteps(), run_id=str(flow_run.id))
    print(report.table())
    report.check(dry_run=dry_run)
    manifest = Dataset.open(target, dataset, states=ALL_STATES).manifest
    return Verdict(
        dataset_id=dataset,
        state=manifest.state,
        metrics=report.summary(),
        report=None if dry_run else target.uri(DatasetLayout(dataset).qa_report_markdown),
        search=None if dry_run else search_command(target, manifest, store),
    )


if __name__ == "__main__":
    command(qa_report)
