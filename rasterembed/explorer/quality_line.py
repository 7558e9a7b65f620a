"""The verdict of the quality checks of a view, with the numbers of its quality report."""

from __future__ import annotations

from rasterembed.collection.collection import Collection
from rasterembed.dataset.dataset import Dataset
from rasterembed.explorer.breaches import line_of_metrics
from rasterembed.explorer.cards import Quality, report_of_dataset
from rasterembed.qa.collection_report import CollectionReport
from rasterembed.qa.collection_run import current_report


def quality_with_numbers(content: Dataset | Collection, quality: Quality | None) -> Quality | None:
    """Return a verdict whose line also says how many metrics passed, and why others were not judged.

    Args:
        content: the dataset or the collection.
        quality: the verdict on its card. None if its quality was not checked.

    Returns:
        The verdict. It is unchanged if there is no report of this verdict.

    Raises:
        StoreError: if the store refuses or does not answer.
    """
    if quality is None:
        return None
    report = report_of_dataset(content) if isinstance(content, Dataset) else _collection_report(content)
    if report is None or report.passed != quality.passed:
        return quality
    line = quality.line if report.passed else line_of_metrics(report.breaches)
    return quality.model_copy(update={"line": f"{line} Metrics: {report.summary(with_names=False)}."})


def _collection_report(collection: Collection) -> CollectionReport | None:
    return current_report(collection.store, collection.layout, collection.configuration, collection.catalogue)
