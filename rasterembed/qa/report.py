"""The quality report: what was measured, against which bound, and how it reads."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict

from rasterembed.errors import DataError
from rasterembed.qa.thresholds import QaThresholds
from rasterembed.raster.skip_reason import describe_reason

REPORT_VERSION = 1
"""Raised when a field of `report.json` changes its meaning or goes; new fields do not raise it."""

Status = Literal["passed", "breached", "not judged"]


class Metric(BaseModel):
    """One number and its bound."""

    model_config = ConfigDict(frozen=True)

    name: str
    """`max_` or `min_` before it gives the threshold's name."""
    title: str
    value: int | float | None
    """None where it cannot be had; `note` says why."""
    bound: Literal["max", "min"]
    threshold: int | float
    status: Status
    rows: int | None = None
    """Vectors, or pairs of them, that it was computed on, where that is not simply all."""
    note: str = ""
    """What it means here, or why it is not judged."""
    examples: tuple[str, ...] = ()
    """Up to ten tiles or files that the number counts."""

    def sentence(self) -> str:
        """The metric with value and threshold, for a breach."""
        relation = "more than" if self.bound == "max" else "less than"
        examples = f" ({', '.join(self.examples[:3])}{', ...' if len(self.examples) > 3 else ''})"
        return (
            f"{self.name} is {number(self.value)}, {relation} {self.bound}_{self.name} {number(self.threshold)}"
            f"{examples if self.examples else ''}"
        )


class Distribution(BaseModel):
    """Distribution of a column over the rows whose vectors are finite and not zero."""

    model_config = ConfigDict(frozen=True)

    rows: int
    minimum: float
    maximum: float
    mean: float
    std: float
    """Of the population."""
    quantiles: dict[str, float]
    """`p01`, `p05`, `p25`, `p50`, `p75`, `p95`, `p99`, of the sample."""
    quantile_rows: int
    """Rows of the sample."""
    edges: tuple[float, ...]
    """Edges of the histogram's bins."""
    counts: tuple[int, ...]
    """Rows in each bin; the upper edge belongs to the last."""


class Counts(BaseModel):
    """What became of the tiles."""

    model_config = ConfigDict(frozen=True)

    planned: int
    embedded: int
    """Different tiles in the shards."""
    rows: int
    """Rows in the shards."""
    skipped: dict[str, int]
    """Skipped tiles by reason."""


class NeighbourCosines(BaseModel):
    """Cosine similarity of neighbouring and of random tiles."""

    model_config = ConfigDict(frozen=True)

    pairs: int
    neighbours: float
    random: float


class QaReport(BaseModel):
    """The quality report of one dataset in one state."""

    model_config = ConfigDict(frozen=True)

    version: int = REPORT_VERSION
    dataset_id: str
    fingerprint: str
    model: str
    """Id of the model, or `demo (untrained)`."""
    dimensions: int
    created: datetime
    passed: bool
    counts: Counts
    metrics: tuple[Metric, ...]
    norm: Distribution | None
    valid_fraction: Distribution | None
    neighbours: NeighbourCosines | None
    explained: tuple[float, float, float] | None
    """Share of the variance of the unit vectors along the first three principal components, as `pca.png` shows them."""
    sample_rows: int
    """Vectors that metrics over whole vectors were computed on."""
    notes: tuple[str, ...]
    """What could not be done, or should be known."""
    pictures: tuple[str, ...]
    """Files beside the report."""
    thresholds: QaThresholds

    @property
    def breaches(self) -> tuple[Metric, ...]:
        """Metrics beyond their bound."""
        return tuple(metric for metric in self.metrics if metric.status == "breached")

    def check(self) -> None:
        """Return if the dataset passed.

        Raises:
            QaError: naming each breached metric, its value and its threshold.
        """
        if not self.passed:
            raise QaError(self)

    def table(self) -> str:
        """The metrics as text, one a line."""
        lines = [("metric", "value", "bound", "status")]
        lines += [(m.name, number(m.value), f"{_sign(m)} {number(m.threshold)}", _verdict(m)) for m in self.metrics]
        widths = [max(len(line[i]) for line in lines) for i in range(3)]
        return "\n".join(
            f"{name:<{widths[0]}}  {value:>{widths[1]}}  {bound:<{widths[2]}}  {status}"
            for name, value, bound, status in lines
        )


class QaError(DataError):
    """The dataset breaches a threshold; the report is written."""

    def __init__(self, report: QaReport) -> None:
        breaches = "; ".join(metric.sentence() for metric in report.breaches)
        super().__init__(
            f"dataset {report.dataset_id!r} did not pass its quality checks: {breaches}; "
            f"see qa/{report.dataset_id}/report.md in the store"
        )


def _verdict(metric: Metric) -> str:
    if metric.status == "not judged":
        return f"not judged: {metric.note}"
    return metric.status.upper() if metric.status == "breached" else metric.status


def _sign(metric: Metric) -> str:
    return "<=" if metric.bound == "max" else ">="


def number(value: int | float | None) -> str:
    """A number as people read it: four digits that count, `-` for none."""
    if value is None:
        return "-"
    return f"{value:,d}" if isinstance(value, int) else f"{value:.4g}"


_CAPTIONS = {
    "coverage.png": "Which tiles have a vector",
    "pca.png": "The vectors as colour",
    "norms.png": "Norms and valid fractions",
}


def markdown(report: QaReport, addresses: Mapping[str, str] | None = None) -> str:
    """The report as Markdown.

    Args:
        report: the report.
        addresses: URIs of the pictures by name; by default those of files beside the text.
    """
    skipped = sum(report.counts.skipped.values())
    verdict = "passed" if report.passed else f"did not pass: {len(report.breaches)} of {len(report.metrics)} breached"
    lines = [
        f"# Quality of {report.dataset_id}: {verdict}",
        "",
        f"**model: {report.model}**, {report.dimensions} dimensions. {report.counts.planned:,} tiles planned, "
        f"{report.counts.embedded:,} embedded, {skipped:,} skipped. Fingerprint `{report.fingerprint[:12]}`, "
        f"{report.created:%Y-%m-%d %H:%M} UTC.",
        "",
    ]
    lines += [f"- **{metric.sentence()}**" for metric in report.breaches]
    lines += [f"- {note}" for note in report.notes]
    for name in report.pictures:
        if name in _CAPTIONS:
            address = name if addresses is None else addresses[name]
            lines += ["", f"## {_CAPTIONS[name]}", "", f"![{_CAPTIONS[name]}]({address})"]
    if "pca.tif" in report.pictures:
        lines += ["", "`pca.tif` in the same folder of the store is the map of vectors with its place on Earth."]
    lines += ["", "## Metrics", "", "| | metric | value | bound | meaning |", "|---|---|---:|---|---|"]
    lines += [_row(metric) for metric in report.metrics]
    if report.counts.skipped:
        lines += ["", "## Skipped tiles", "", "| reason | tiles |", "|---|---:|"]
        lines += [
            f"| {_cell(describe_reason(reason))} | {number(count)} |" for reason, count in report.counts.skipped.items()
        ]
    return "\n".join(lines) + "\n"


def _row(metric: Metric) -> str:
    mark = {"passed": "✓", "breached": "✗", "not judged": "–"}[metric.status]
    sign = "≤" if metric.bound == "max" else "≥"
    rows = f"measured on {metric.rows:,}" if metric.rows is not None else ""
    # the meaning comes last: some viewers do not break lines
    meaning = "; ".join(part for part in (metric.title, rows, metric.note, ", ".join(metric.examples[:3])) if part)
    return (
        f"| {mark} | `{metric.name}` | {number(metric.value)} | {sign} {number(metric.threshold)} | {_cell(meaning)} |"
    )


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
