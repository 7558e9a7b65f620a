"""Check the quality of a collection as a whole."""

from __future__ import annotations

from prefect import get_run_logger, task
from prefect.artifacts import create_markdown_artifact

from rasterembed.artifact_key import artifact_key
from rasterembed.collection.catalogue import Catalogue
from rasterembed.collection.configuration import CollectionConfiguration
from rasterembed.collection_pipeline import CollectionSteps
from rasterembed.escape import escape_markdown
from rasterembed.qa.collection_report import CollectionReport, collection_markdown
from rasterembed.qa.collection_thresholds import CollectionThresholds
from rasterembed.store.layout import CollectionLayout
from rasterembed.store.object_store import ObjectStore
from tasks.policy import STEP


class CollectionQaSteps(CollectionSteps):
    """Runs the quality checks of a collection as a task, and sends messages to the log of the flow run."""

    def check_quality(
        self,
        store: ObjectStore,
        layout: CollectionLayout,
        configuration: CollectionConfiguration,
        catalogue: Catalogue,
        thresholds: CollectionThresholds,
        *,
        dry_run: bool = False,
    ) -> CollectionReport:
        """Measure the collection, and show the report as an artifact."""
        return check_collection_quality(store, layout, configuration, catalogue, thresholds, dry_run=dry_run)

    def on_wait(self, message: str) -> None:
        """Log that the run waits for another run of the same collection, or that the wait has ended."""
        get_run_logger().info("%s", message)

    def on_continue(self, message: str) -> None:
        """Log how much of the work an interrupted run has done already."""
        get_run_logger().info("%s", message)

    def on_warning(self, message: str) -> None:
        """Log a warning."""
        get_run_logger().warning("%s", message)


@task(name="collection-qa", **STEP)
def check_collection_quality(
    store: ObjectStore,
    layout: CollectionLayout,
    configuration: CollectionConfiguration,
    catalogue: Catalogue,
    thresholds: CollectionThresholds,
    *,
    dry_run: bool = False,
) -> CollectionReport:
    """Measure the collection, write the report, and show the report as an artifact. With `dry_run`, write nothing.

    The task succeeds even if a threshold is breached.
    """
    # matplotlib and pyproj take long to import.
    from rasterembed.qa.pictures import data_uri

    report = CollectionSteps().check_quality(store, layout, configuration, catalogue, thresholds, dry_run=dry_run)
    # Another run may delete a picture after the report was written. The report is then shown without this picture.
    pictures = {name: png for name in report.pictures if (png := store.read(layout.qa_file(name)))}
    kind, title = ("collection-qa-dry-run", "Dry run: quality") if dry_run else ("collection-qa", "Quality")
    create_markdown_artifact(
        key=artifact_key(kind, report.collection_id),
        description=escape_markdown(f"{title} of collection {report.collection_id}: {report.summary()}"),
        markdown=collection_markdown(report, {name: data_uri(png) for name, png in pictures.items()}),
    )
    get_run_logger().info("%s", report.summary())  # The flow tells each breach, in a warning or in its error.
    return report
