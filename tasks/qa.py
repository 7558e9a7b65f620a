"""Step 6: check whether the dataset is good enough to be searched."""

from __future__ import annotations

from prefect import get_run_logger, task
from prefect.artifacts import create_markdown_artifact

from rasterembed.dataset.manifest import Manifest
from rasterembed.qa.metrics import Status
from rasterembed.qa.report import QaReport, markdown
from rasterembed.qa.thresholds import QaThresholds
from rasterembed.store.layout import DatasetLayout
from rasterembed.store.object_store import ObjectStore
from tasks.policy import STEP, artifact_key


@task(name="qa-metrics", **STEP)
def check_quality(store: ObjectStore, manifest: Manifest, thresholds: QaThresholds) -> QaReport:
    """Measure the dataset, write the report, and show the report as an artifact; see `rasterembed.qa.run.run_qa`.

    The task succeeds even if a threshold is missed. The pipeline sets the dataset's state before it raises the error.
    """
    from rasterembed.qa.pictures import data_uri
    from rasterembed.qa.run import run_qa  # DuckDB and matplotlib take long to import.

    report = run_qa(store, manifest, thresholds)
    layout = DatasetLayout(manifest.dataset_id)
    pictures = {name: store.read(layout.qa_file(name)) for name in report.pictures if name.endswith(".png")}
    create_markdown_artifact(
        key=artifact_key("qa", manifest.dataset_id),
        description=f"Quality of dataset {manifest.dataset_id}",
        markdown=markdown(report, {name: data_uri(png) for name, png in pictures.items() if png}),
    )
    log = get_run_logger()
    for metric in report.breaches:
        log.error("%s", metric.sentence())
    log.info(
        "%d of %d metrics passed, report in %s",
        sum(metric.status is Status.PASSED for metric in report.metrics),
        len(report.metrics),
        store.uri(layout.qa_report_markdown),
    )
    return report
