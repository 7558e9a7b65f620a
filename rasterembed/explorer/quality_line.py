"""The verdict of the quality checks of a view, with the numbers of its quality report."""

from __future__ import annotations

from rasterembed.collection.collection import Collection
from rasterembed.dataset.dataset import Dataset
from rasterembed.errors import DataError, StoreError
from rasterembed.explorer.cards import Quality
from rasterembed.qa.collection_report import CollectionReport
from rasterembed.qa.collection_run import current_report
from rasterembed.qa.report import QaReport, read_report


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
    report = _dataset_report(content) if isinstance(content, Dataset) else _collection_report(content)
    if report is None or report.passed != quality.passed:
        return quality
    return quality.model_copy(update={"line": f"{quality.line} Metrics: {report.summary()}."})


def _dataset_report(dataset: Dataset) -> QaReport | None:
    """Return the report of a dataset. None if it is about another content, damaged or missing."""
    try:
        report = read_report(dataset.store, dataset.id)
    except StoreError:
        raise
    except DataError:  # The report is derived from the dataset, which is shown all the same.
        return None
    return report if report is not None and report.fingerprint == dataset.manifest.fingerprint else None


def _collection_report(collection: Collection) -> CollectionReport | None:
    return current_report(collection.store, collection.layout, collection.configuration, collection.catalogue)
