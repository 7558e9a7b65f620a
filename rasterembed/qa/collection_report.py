"""The quality report of a collection: its fields, its verdict, and its Markdown."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence

from pydantic import BaseModel, ConfigDict, Field

from rasterembed.errors import DataError
from rasterembed.escape import escape_markdown, escape_terminal, markdown_code
from rasterembed.number_text import agreeing, counted
from rasterembed.qa.collection_thresholds import CollectionThresholds
from rasterembed.qa.metric_report import (
    MetricReport,
    how_to_accept,
    markdown_words,
    metric_lines,
    picture_lines,
    summary_lines,
    verdict_text,
)
from rasterembed.qa.metrics import Metric, breached, breaches_text, format_number
from rasterembed.store.object_store import ObjectStore

COLLECTION_REPORT_VERSION = 1
"""Version of `report.json` of a collection. Increase it when a field is removed or its meaning changes."""


class SceneCounts(BaseModel):
    """Numbers of scenes and vectors."""

    model_config = ConfigDict(frozen=True)

    scenes: int
    states: dict[str, int]
    """Number of scenes in each state that occurs."""
    gone: int
    """Scenes that the last listing from their address did not have."""
    unplaced: int
    """Embedded scenes without a place on Earth."""
    vectors: int
    skipped: int
    """Skipped tiles of all scenes."""


class CoverageReport(BaseModel):
    """The ground that the embedded scenes cover."""

    model_config = ConfigDict(frozen=True)

    area_km2: float
    """Area of the union of all footprints, in square kilometres."""
    mean_overlap: float
    """Sum of the areas of all footprints, divided by the area of their union. 1 if no two scenes overlap."""
    overlapping_scenes: int
    """Scenes whose middle lies in another scene."""
    most_overlap: int
    """Largest number of scenes that contain the middle of a scene."""


class OutlierScene(BaseModel):
    """A scene that is far from the others."""

    model_config = ConfigDict(frozen=True)

    id: str
    source: str
    norm_score: float
    """Modified z-score of the mean norm. Negative if the norm is smaller than the median."""
    vector_score: float
    """Modified z-score of the distance of the mean vector's direction from the median direction."""


class DuplicateScene(BaseModel):
    """A scene that repeats another one."""

    model_config = ConfigDict(frozen=True)

    id: str
    source: str
    repeats: str
    """Id of the scene that is repeated."""
    repeats_source: str
    distance: float
    """Distance between the mean vectors, as a share of the standard deviation of the vectors within a scene."""
    overlap: float | None
    """Share of the smaller footprint that both have in common. None if one of them has no place on Earth."""


class FailureCount(BaseModel):
    """A reason why scenes failed."""

    model_config = ConfigDict(frozen=True)

    reason: str
    """The reason of the example, with `…` in place of the scene's address."""
    scenes: int
    example: str
    """Address of one of these scenes."""


class CollectionReport(MetricReport):
    """The quality report of a collection. It holds no time, so equal collections have equal reports."""

    version: int = COLLECTION_REPORT_VERSION
    collection_id: str
    fingerprint: str
    """Fingerprint of the collection's configuration."""
    signature: str
    """Digest of the catalogue and the thresholds. A catalogue with the same digest has the same report."""
    model: str
    """Id of the model, or `demo (untrained)`."""
    passed: bool
    """Whether no threshold is breached."""
    counts: SceneCounts
    coverage: CoverageReport | None
    """None if no embedded scene has a place on Earth."""
    metrics: tuple[Metric, ...]
    failures: tuple[FailureCount, ...]
    """The most frequent reasons of failed scenes."""
    unreadable: dict[str, str]
    """Some of the embedded scenes without usable vectors, by id, and why."""
    outliers: tuple[OutlierScene, ...]
    """The outliers that are farthest from the others."""
    duplicates: tuple[DuplicateScene, ...]
    """Some of the scenes that repeat another scene."""
    notes: tuple[str, ...]
    """Sentences about things that were not measured, with the reasons."""
    pictures: tuple[str, ...]
    """Names of the picture files in the report's folder."""
    thresholds: CollectionThresholds

    dry_run: bool = Field(default=False, exclude_if=operator.not_)
    """Whether this is the report of a dry run. It is then not in the store."""

    def __repr__(self) -> str:
        """Return one short line. `table` returns all metrics."""
        return escape_terminal(f"CollectionReport of collection {self.collection_id!r}: {self.summary()}")

    __str__ = __repr__  # That of pydantic shows every field.

    def check(self, store: ObjectStore | None = None) -> None:
        """Raise an error if the collection did not pass.

        Args:
            store: store of the collection. The command in the error then has its root.

        Raises:
            CollectionQaError: if a threshold is breached. The text names each breached metric.
        """
        if not self.passed:
            raise CollectionQaError(self, store)


_FAILED_SHARE = "failed_scene_share"
"""Name of the metric that a run over a collection need not report, because it reports each reason of a failed scene."""


def warning_of_run(report: CollectionReport, store: ObjectStore) -> str | None:
    """Return a warning about the breached thresholds after a run, or None.

    The share of failed scenes is left out, because the run tells its failed scenes itself.

    Args:
        report: the report.
        store: store of the collection.
    """
    others = tuple(metric for metric in report.metrics if metric.name != _FAILED_SHARE)
    return str(CollectionQaError(report, store, others)) if breached(others) else None


class CollectionQaError(DataError):
    """A collection breaches a threshold of its quality checks.

    Args:
        report: the report.
        store: store of the collection. The command in the text then has its root.
        metrics: the metrics to name, if they breach their thresholds. By default, all metrics of the report.
    """

    def __init__(
        self, report: CollectionReport, store: ObjectStore | None = None, metrics: Sequence[Metric] | None = None
    ) -> None:
        judged = report.metrics if metrics is None else metrics
        breaches = breaches_text(judged)
        name = f"collection {report.collection_id!r}"
        if report.dry_run:
            text = f"{name} would not pass these quality checks: {breaches}; nothing was changed"
        else:
            text = (
                f"{name} did not pass its quality checks of all {counted(report.counts.scenes, 'scene')}: {breaches}; "
                f"see collections/{report.collection_id}/qa/report.md in the store; "
                + how_to_accept(_again(report), breached(judged), store)
            )
        super().__init__(text)


def _again(report: CollectionReport) -> str:
    """Return the command that checks the quality of the collection again, without the name of the program."""
    return f"qa --collection {report.collection_id}"


CAPTIONS = {"scenes.png": "Scenes by state", "vectors.png": "Mean vectors of the scenes"}
"""Titles of the pictures, by file name."""


def collection_markdown(report: CollectionReport, addresses: Mapping[str, str] | None = None) -> str:
    """Return the report as Markdown.

    Args:
        report: the report.
        addresses: URI of each picture, by file name. By default, the Markdown refers to files in its own folder.
    """
    counts = report.counts
    states = ", ".join(f"{number:,} {state}" for state, number in counts.states.items())
    lines = [
        f"# Quality of collection {escape_markdown(report.collection_id)}: {verdict_text(report)}",
        "",
        f"**model: {escape_markdown(report.model)}**. {counted(counts.scenes, 'scene')}: "
        f"{escape_markdown(states or 'none')}. {counts.gone:,} {agreeing(counts.gone, 'is', 'are')} gone, "
        f"{counted(counts.unplaced, 'embedded scene')} {agreeing(counts.unplaced, 'has', 'have')} no place on Earth. "
        f"{counted(counts.vectors, 'vector')}, {counted(counts.skipped, 'skipped tile')}. "
        f"Fingerprint {markdown_code(report.fingerprint[:12])}.",
        "",
        *summary_lines(report, _again(report)),
    ]
    if report.coverage is not None:
        lines += ["", "## Coverage", "", _coverage(report.coverage)]
    lines += picture_lines(report, CAPTIONS, addresses) + metric_lines(report.metrics)
    lines += _failures(report) + _outliers(report) + _duplicates(report)
    return "\n".join(lines) + "\n"


def _coverage(coverage: CoverageReport) -> str:
    return (
        f"The embedded scenes cover {format_number(coverage.area_km2)} km². A covered place lies in "
        f"{format_number(coverage.mean_overlap)} scenes on average. The middle of "
        f"{counted(coverage.overlapping_scenes, 'scene')} lies in another scene too; the largest number of "
        f"scenes there is {coverage.most_overlap:,}."
    )


def _failures(report: CollectionReport) -> list[str]:
    lines: list[str] = []
    if report.failures:
        lines += ["", "## Failed scenes", "", "| scenes | example | reason |", "|---:|---|---|"]
        lines += [
            f"| {format_number(found.scenes)} | {markdown_code(found.example)} | {markdown_words(found.reason)} |"
            for found in report.failures
        ]
    if report.unreadable:
        lines += ["", "## Scenes without usable vectors", "", "| scene | reason |", "|---|---|"]
        lines += [
            f"| {markdown_code(dataset_id)} | {markdown_words(reason)} |"
            for dataset_id, reason in report.unreadable.items()
        ]
    return lines


def _outliers(report: CollectionReport) -> list[str]:
    if not report.outliers:
        return []
    lines = ["", "## Outliers", "", "| score of the norm | score of the vector | scene |", "|---:|---:|---|"]
    return lines + [
        f"| {format_number(found.norm_score)} | {format_number(found.vector_score)} | {markdown_code(found.source)} |"
        for found in report.outliers
    ]


def _duplicates(report: CollectionReport) -> list[str]:
    if not report.duplicates:
        return []
    lines = ["", "## Scenes that repeat another scene", "", "| distance | overlap | scene | repeats |"]
    lines.append("|---:|---:|---|---|")
    return lines + [
        f"| {format_number(found.distance)} | {format_number(found.overlap)} | {markdown_code(found.source)} | "
        f"{markdown_code(found.repeats_source)} |"
        for found in report.duplicates
    ]
