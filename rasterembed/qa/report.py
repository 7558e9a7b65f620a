"""The quality report of a dataset: its fields, its verdict, and its Markdown."""

from __future__ import annotations

import math
import operator
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from rasterembed.dataset.plan_checks import MAX_DIMENSIONS
from rasterembed.errors import DataError
from rasterembed.escape import escape_markdown, escape_terminal, markdown_code
from rasterembed.number_text import counted
from rasterembed.qa.metric_report import (
    MetricReport,
    how_to_accept,
    metric_lines,
    picture_lines,
    summary_lines,
    verdict_text,
)
from rasterembed.qa.metrics import Metric, failure_text, format_number
from rasterembed.qa.thresholds import QaThresholds
from rasterembed.store.layout import DatasetLayout
from rasterembed.store.object_store import ObjectStore
from rasterembed.store.stored_model import read_model

REPORT_VERSION = 1
"""Version of `report.json`. Increase it when a field is removed or its meaning changes. A new field needs no change."""

_LARGEST_INTEGER = 2**63 - 1
"""Largest whole number in a report. DuckDB and Parquet count with 64 bits."""

_REMEDY = "check the quality of the dataset again"
"""Advice for a report that cannot be used."""

Count = Annotated[int, Field(ge=0, le=_LARGEST_INTEGER)]


class Distribution(BaseModel):
    """Distribution of a column over the rows with a finite, non-zero vector."""

    model_config = ConfigDict(frozen=True)

    rows: Count
    minimum: float
    maximum: float
    mean: float
    std: float
    """Standard deviation of the population."""
    quantiles: dict[str, float]
    """Quantiles of the sample: `p01`, `p05`, `p25`, `p50`, `p75`, `p95`, `p99`."""
    quantile_rows: Count
    """Number of rows in the sample."""
    edges: tuple[float, ...]
    """Edges of the histogram's bins."""
    counts: tuple[Count, ...]
    """Number of rows in each bin. The upper edge of the histogram belongs to the last bin."""


class Counts(BaseModel):
    """Numbers of planned, embedded and skipped tiles."""

    model_config = ConfigDict(frozen=True)

    planned: Count
    embedded: Count
    """Number of distinct tiles in the shards."""
    rows: Count
    """Number of rows in the shards."""
    skipped: dict[str, Count]
    """Number of skipped tiles for each reason. The reasons are texts for people."""


class NeighbourCosines(BaseModel):
    """Mean cosine similarity of neighbouring tiles and of random tiles."""

    model_config = ConfigDict(frozen=True)

    pairs: Count
    """Number of pairs of neighbours."""
    neighbours: float
    """Mean cosine similarity of these pairs."""
    random: float
    """Mean cosine similarity of all pairs of the sample."""


class QaReport(MetricReport):
    """The quality report of one dataset."""

    version: int = REPORT_VERSION
    dataset_id: str
    fingerprint: str
    model: str
    """Id of the model, or `demo (untrained)`."""
    dimensions: int = Field(ge=1, le=MAX_DIMENSIONS)
    """Length of a vector."""
    created: datetime
    passed: bool
    """Whether no threshold is breached."""
    counts: Counts
    metrics: tuple[Metric, ...]
    norm: Distribution | None
    valid_fraction: Distribution | None
    neighbours: NeighbourCosines | None
    explained: tuple[float, float, float] | None
    """Shares of the unit vectors' variance along the first three principal components. `pca.png` shows them."""
    sample_rows: Count
    """Number of sampled vectors. Metrics that need whole vectors are computed from this sample."""
    notes: tuple[str, ...]
    """Sentences about failed measurements, with the reasons."""
    pictures: tuple[str, ...]
    """Names of the picture files in the report's folder."""
    thresholds: QaThresholds

    warnings: tuple[str, ...] = Field(default=(), exclude_if=operator.not_)
    """Things that a person should look at, as text for people. They need not be faults: a uniform scene, such as open
    sea, rightly has warnings."""

    dry_run: bool = Field(default=False, exclude_if=operator.not_)
    """Whether this is the report of a dry run. It is then not in the store."""

    def __repr__(self) -> str:
        """Return one short line. `table` returns all metrics."""
        return escape_terminal(f"QaReport of dataset {self.dataset_id!r}: {self.summary()}")

    __str__ = __repr__  # That of pydantic shows every field.

    def summary(self, *, with_names: bool = True) -> str:
        """Return one line with the numbers of metrics by status, and with the warnings.

        Args:
            with_names: whether the line names the breached metrics.
        """
        warnings = (f"warning: {warning}" for warning in self.warnings)
        return "; ".join((super().summary(with_names=with_names), *map(escape_terminal, warnings)))

    @property
    def reason(self) -> str | None:
        """The breached metrics with values and thresholds, and the warnings, in one line. None if it passed."""
        return failure_text(self.metrics, self.warnings)

    def check(self, store: ObjectStore | None = None) -> None:
        """Raise an error if the dataset did not pass.

        Args:
            store: store of the dataset. The command in the error then has its root.

        Raises:
            QaError: if a threshold is breached. The text names each breached metric with its value and threshold, and
                the warnings.
        """
        if not self.passed:
            raise QaError(self, store)


class QaError(DataError):
    """A dataset breaches a threshold of its quality checks.

    Args:
        report: the report.
        store: store of the dataset. The command in the text then has its root.
    """

    def __init__(self, report: QaReport, store: ObjectStore | None = None) -> None:
        if report.dry_run:
            text = (
                f"dataset {report.dataset_id!r} would not pass these quality checks: {report.reason}; nothing was "
                "changed"
            )
        else:
            text = (
                f"dataset {report.dataset_id!r} did not pass its quality checks: {report.reason}; "
                f"see qa/{report.dataset_id}/report.md in the store; "
                + how_to_accept(_again(report), report.breaches, store)
            )
        super().__init__(text)


def _again(report: QaReport) -> str:
    """Return the command that checks the quality of the dataset again, without the name of the program."""
    return f"qa {report.dataset_id}"


def read_report(store: ObjectStore, dataset_id: str) -> QaReport | None:
    """Read the last quality report of a dataset. Return None if the dataset has no report.

    Raises:
        DataError: if this version cannot read the report, if it belongs to another dataset, or if a number in it is
            impossible. Anybody who may write to the store can change the report.
        StoreError: if the store refuses or does not answer.
    """

    def why_unusable(report: QaReport) -> str | None:
        if report.dataset_id != dataset_id:
            return "dataset_id: it is another dataset's report"
        return next(impossible_numbers(report.model_dump()), None)

    key = DatasetLayout(dataset_id).qa_report
    return read_model(store, key, QaReport, name="report", remedy=_REMEDY, why_unusable=why_unusable)


def impossible_numbers(value: object, place: str = "") -> Iterator[str]:
    """Yield the place of each number that is not finite, or too large to be a count, with the reason."""
    if isinstance(value, dict):
        parts = [(str(name), inner) for name, inner in value.items()]
    elif isinstance(value, list | tuple):
        parts = [(str(number), inner) for number, inner in enumerate(value)]
    else:
        if isinstance(value, float) and not math.isfinite(value):
            yield f"{place}: the number is not finite"
        if isinstance(value, int) and abs(value) > _LARGEST_INTEGER:
            yield f"{place}: the number is impossible"
        return
    for name, inner in parts:
        yield from impossible_numbers(inner, f"{place}.{name}" if place else name)


CAPTIONS = {
    "coverage.png": "Which tiles have a vector",
    "pca.png": "The vectors as colour",
    "norms.png": "Norms and valid fractions",
}
"""Titles of the pictures, by file name."""


def markdown(report: QaReport, addresses: Mapping[str, str] | None = None) -> str:
    """Return the report as Markdown.

    Args:
        report: the report.
        addresses: URI of each picture, by file name. By default, the Markdown refers to files in its own folder.
    """
    skipped = sum(report.counts.skipped.values())
    lines = [
        f"# Quality of {escape_markdown(report.dataset_id)}: {verdict_text(report)}",
        "",
        f"**model: {escape_markdown(report.model)}**, {report.dimensions} dimensions. "
        f"{counted(report.counts.planned, 'tile')} planned, {report.counts.embedded:,} embedded, {skipped:,} skipped. "
        f"Fingerprint {markdown_code(report.fingerprint[:12])}, {report.created:%Y-%m-%d %H:%M} UTC.",
        "",
        *summary_lines(report, _again(report)),
        *picture_lines(report, CAPTIONS, addresses),
    ]
    if "pca.tif" in report.pictures:
        lines += ["", "`pca.tif`, in the same folder of the store, is this colour map as a georeferenced raster."]
    lines += metric_lines(report.metrics)
    if report.counts.skipped:
        lines += ["", "## Skipped tiles", "", "| reason | tiles |", "|---|---:|"]
        lines += [
            f"| {escape_markdown(reason)} | {format_number(count)} |" for reason, count in report.counts.skipped.items()
        ]
    return "\n".join(lines) + "\n"
