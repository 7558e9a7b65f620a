"""The quality checks of a dataset that is there: by themselves, with other thresholds, or again.

python -m flows.qa_report --root URI --dataset ID [--max-mean-cosine 0.999] ...
"""

from __future__ import annotations

if __name__ == "__main__":
    from flows.fast_start import import_prefect

    import_prefect()

from prefect import flow, get_run_logger
from prefect.runtime import flow_run
from pydantic import BaseModel

from blocks.object_store import open_store
from flows.command import command
from rasterembed.dataset.manifest import Manifest, read_manifest, set_state
from rasterembed.errors import UsageError
from rasterembed.qa.thresholds import QaThresholds
from rasterembed.store.layout import DatasetLayout
from rasterembed.store.lease import DURATION_S, hold_lease
from rasterembed.store.object_store import ObjectStore
from tasks.policy import log_expected_errors_in_one_line
from tasks.qa import qa_metrics


class Verdict(BaseModel):
    """What a run ends with; one whose dataset does not pass fails instead."""

    dataset_id: str
    state: str
    report: str


@flow(name="qa-report", flow_run_name="{dataset}")
def qa_report(
    dataset: str, root: str | None = None, store: str | None = None, thresholds: QaThresholds = QaThresholds()
) -> Verdict:
    """Check a dataset's vectors, write the report, and make the dataset ready, or failed_qa.

    Args:
        dataset: Name of the dataset.
        root: Folder or s3://bucket/prefix of the dataset; by default rasterembed-store here.
        store: Name of an object-store block, for a bucket with its own endpoint and keys.
        thresholds: What the dataset must hold.
    """
    log_expected_errors_in_one_line()
    target, layout = open_store(root, store), DatasetLayout(dataset)
    _existing(target, dataset)
    # long enough to outlast a run that died
    with hold_lease(target, layout, str(flow_run.id), wait_s=1.5 * DURATION_S, on_wait=get_run_logger().info):
        manifest = _existing(target, dataset)
        report = qa_metrics(target, manifest, thresholds)
        manifest = set_state(target, manifest, "ready" if report.passed else "failed_qa")
    print(report.table())
    report.check()
    return Verdict(dataset_id=dataset, state=manifest.state, report=target.uri(layout.qa_report_markdown))


def _existing(store: ObjectStore, dataset: str) -> Manifest:
    manifest = read_manifest(store, dataset)
    if manifest is None:
        raise UsageError(f"there is no dataset {dataset!r} in {store.root}: check its name and the root")
    return manifest


if __name__ == "__main__":
    command(qa_report)
