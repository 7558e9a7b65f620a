"""Step 6: check whether the dataset is good enough to be searched."""

from __future__ import annotations

from collections.abc import Mapping

from prefect import get_run_logger, task
from prefect.artifacts import create_markdown_artifact

from rasterembed.artifact_key import artifact_key
from rasterembed.dataset.manifest import Manifest
from rasterembed.escape import escape_markdown
from rasterembed.qa.metric_report import dry_run_text
from rasterembed.qa.report import QaReport, markdown
from rasterembed.qa.thresholds import QaThresholds
from rasterembed.store.layout import DatasetLayout
from rasterembed.store.object_store import ObjectStore
from tasks.policy import STEP


@task(name="qa-metrics", **STEP)
def check_quality(store: ObjectStore, manifest: Manifest, thresholds: QaThresholds) -> QaReport:
    """Measure the dataset, write the report, and show the report as an artifact; see `rasterembed.qa.run.run_qa`.

    The task succeeds even if a threshold is breached. The pipeline raises the error later, after it has set the
    dataset's state.
    """
    from rasterembed.qa.pictures import data_uri
    from rasterembed.qa.run import run_qa  # DuckDB and matplotlib take long to import.

    report = run_qa(store, manifest, thresholds)
    layout = DatasetLayout(manifest.dataset_id)
    # Another run may delete a picture after the report was written. The report is then shown without this picture.
    pictures = {name: store.read(layout.qa_file(name)) for name in report.pictures if name.endswith(".png")}
    _publish(report, "qa", "Quality", {name: data_uri(png) for name, png in pictures.items() if png})
    get_run_logger().info("%s; the report is %s", report.summary(), store.uri(layout.qa_report_markdown))
    return report


@task(name="qa-dry-run", **STEP)
def judge_quality(store: ObjectStore, manifest: Manifest, thresholds: QaThresholds) -> QaReport:
    """Measure the dataset, and show the report as an artifact only; see `rasterembed.qa.run.judge_dataset`."""
    from rasterembed.qa.run import judge_dataset  # DuckDB takes long to import.

    report = judge_dataset(store, manifest, thresholds)
    _publish(report, "qa-dry-run", "Dry run: quality", {})
    get_run_logger().info("%s; %s", report.summary(), dry_run_text(report, "the dataset", manifest.state))
    return report


def _publish(report: QaReport, kind: str, title: str, addresses: Mapping[str, str]) -> None:
    """Create the artifact of a report, and log breaches and notes.

    Args:
        report: the report.
        kind: kind of the artifact, the first part of its key.
        title: first words of the artifact's description.
        addresses: data URI of each picture, by file name.
    """
    create_markdown_artifact(
        key=artifact_key(kind, report.dataset_id),
        description=escape_markdown(f"{title} of dataset {report.dataset_id}: {report.summary()}"),
        markdown=markdown(report, addresses),
    )
    log = get_run_logger()
    for metric in report.breaches:
        log.error("%s", metric.sentence())
    for note in report.notes:
        log.warning("%s", note)
