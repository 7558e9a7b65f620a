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
from rasterembed.pipeline import check_dataset
from rasterembed.qa.thresholds import QaThresholds
from rasterembed.store.layout import DatasetLayout
from tasks.policy import log_expected_errors_in_one_line
from tasks.steps import PrefectSteps


class Verdict(BaseModel):
    """The result of a run, if the dataset passes. If the dataset does not pass, the run fails."""

    dataset_id: str
    state: str
    report: str
    """URI of the report."""


@flow(name="qa-report", flow_run_name="{dataset}")
def qa_report(
    dataset: str, root: str | None = None, store: str | None = None, thresholds: QaThresholds = QaThresholds()
) -> Verdict:
    """Check a dataset's vectors, write the report, and set the dataset's state to ready or failed_qa.

    Args:
        dataset: Name of the dataset.
        root: Folder or s3://bucket/prefix of the dataset. By default the folder rasterembed-store.
        store: Name of an object-store block, for a bucket with its own endpoint and keys.
        thresholds: Bounds that the dataset must keep.
    """
    log_expected_errors_in_one_line()
    target = open_store(root, store)
    report = check_dataset(target, dataset, thresholds, steps=PrefectSteps(), run_id=str(flow_run.id))
    print(report.table())
    report.check()
    return Verdict(dataset_id=dataset, state="ready", report=target.uri(DatasetLayout(dataset).qa_report_markdown))


if __name__ == "__main__":
    command(qa_report)
