"""Metrics: the measured values of a dataset or a collection, and the comparison of each value with its threshold.

To add a metric:

1. Add a field to `rasterembed.qa.thresholds.QaThresholds`, or for a collection to
   `rasterembed.qa.collection_thresholds.CollectionThresholds`. The field holds the metric's name, bound, title and
   default threshold.
2. Write a function that returns the `Measurement` of the metric, or extend one. `rasterembed.qa.measure` and
   `rasterembed.qa.collection_run` list the existing functions.
3. Describe the metric in `docs/qa.md`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cache

from pydantic import BaseModel, ConfigDict

from rasterembed.number_text import agreeing, number_text, significant_text
from rasterembed.qa.thresholds import Bound, ThresholdOf


class Status(StrEnum):
    """Result of comparing a metric with its threshold."""

    PASSED = "passed"
    BREACHED = "breached"
    NOT_JUDGED = "not judged"


@dataclass(frozen=True)
class MetricDefinition:
    """Definition of a metric. It is read from a field of a model of thresholds, such as `QaThresholds`."""

    name: str
    bound: Bound
    title: str
    """Description of the value in one line."""
    threshold_field: str
    """Name of the field of the thresholds."""


@cache
def metric_definitions(thresholds: type[BaseModel]) -> Mapping[str, MetricDefinition]:
    """Return all metrics of a model of thresholds by name, in the order of the report.

    Args:
        thresholds: a model whose fields are marked with `ThresholdOf`, such as `QaThresholds`.
    """
    definitions = [
        MetricDefinition(threshold.metric, threshold.bound, str(field.description).rstrip("."), field_name)
        for field_name, field in thresholds.model_fields.items()
        for threshold in field.metadata
        if isinstance(threshold, ThresholdOf)
    ]
    return {definition.name: definition for definition in definitions}


@dataclass(frozen=True)
class Measurement:
    """Value of one metric, before the comparison with the threshold."""

    metric: str
    """Name of the metric, a key of `metric_definitions`."""
    value: int | float | None
    """The value. None if it could not be measured."""
    rows: int | None = None
    """Number of vectors, or of pairs of vectors, that the value was computed from. None means that all were used."""
    note: str = ""
    """Explanation of the value, or the reason why the metric is not judged."""
    examples: tuple[str, ...] = ()
    """Up to ten of the tiles, files or scenes that the value counts."""


def not_judged(metrics: Iterable[str], reason: str, rows: int | None = None) -> tuple[Measurement, ...]:
    """Return measurements without a value, all with the same reason.

    Args:
        metrics: names of the metrics.
        reason: reason for the missing values, as text for people.
        rows: number of available vectors or pairs. None if the report shall not show this number.
    """
    return tuple(Measurement(metric, None, rows=rows, note=reason) for metric in metrics)


def not_enough(what: str, found: int, needed: int) -> str:
    """Return the reason why a metric was not judged.

    Example:
        >>> not_enough("rows", 3, 10)
        'not enough rows: 3, but at least 10 are needed'
    """
    return f"not enough {what}: {found}, but at least {needed} {agreeing(needed, 'is', 'are')} needed"


class Metric(BaseModel):
    """One metric of a report: its value, its threshold and its status."""

    model_config = ConfigDict(frozen=True)

    name: str
    title: str
    """Description of the value in one line."""
    value: int | float | None
    """The value. None if it could not be measured. `note` then holds the reason."""
    bound: Bound
    threshold: int | float
    status: Status
    rows: int | None = None
    """Number of vectors, or of pairs of vectors, that the value was computed from. None means that all were used."""
    note: str = ""
    """Explanation of the value, or the reason why the metric is not judged."""
    examples: tuple[str, ...] = ()
    """Up to ten of the tiles, files or scenes that the value counts."""

    @property
    def value_text(self) -> str:
        """The value as text for people. Its text differs from that of the threshold if the numbers differ."""
        if not isinstance(self.value, float):
            return format_number(self.value)
        texts = (f"{self.value:.{digits}g}" for digits in range(4, 18))
        return next(text for text in texts if self.value == self.threshold or float(text) != self.threshold)

    @property
    def threshold_text(self) -> str:
        """The threshold as text for people, exactly as a person gave it."""
        return format_number(self.threshold) if isinstance(self.threshold, int) else number_text(self.threshold)

    def sentence(self) -> str:
        """Return one line with value and threshold. Use it only for a breached metric."""
        relation = "more than" if self.bound is Bound.MAX else "less than"
        # The name of a threshold's field is the metric's name with `max_` or `min_` before it.
        threshold = f"`{self.bound.value}_{self.name}={self.threshold_text.replace(',', '')}`"
        more = ", ..." if len(self.examples) > 3 else ""
        examples = f" ({', '.join(self.examples[:3])}{more})" if self.examples else ""
        return f"{self.name} is {self.value_text}, {relation} {threshold}{examples}"


def breached(metrics: Iterable[Metric]) -> tuple[Metric, ...]:
    """Return the metrics that breach their threshold."""
    return tuple(metric for metric in metrics if metric.status is Status.BREACHED)


def breaches_text(metrics: Iterable[Metric]) -> str:
    """Return one line with the breached metrics, their values and their thresholds. Empty if none is breached."""
    return "; ".join(metric.sentence() for metric in breached(metrics))


def failure_text(metrics: Iterable[Metric], warnings: Iterable[str]) -> str | None:
    """Return one line about why a dataset did not pass: the breached metrics, then the warnings. None if it passed.

    Args:
        metrics: the judged metrics.
        warnings: things that a person should look at, as text for people. They can tell why the metrics are breached.
    """
    text = breaches_text(metrics)
    return "; ".join((text, *(f"warning: {warning}" for warning in warnings))) if text else None


def judge(measurements: Iterable[Measurement], thresholds: BaseModel) -> tuple[Metric, ...]:
    """Compare every measurement with its threshold.

    Args:
        measurements: one measurement for each metric of the thresholds, in any order.
        thresholds: the thresholds, such as `QaThresholds`.

    Returns:
        The metrics in the order of the thresholds.

    Raises:
        ValueError: if a metric was not measured exactly once. This is a bug in this package.
    """
    measurements = list(measurements)
    definitions = metric_definitions(type(thresholds))
    by_metric = {measurement.metric: measurement for measurement in measurements}
    if by_metric.keys() != definitions.keys() or len(by_metric) != len(measurements):
        raise ValueError(f"measured {sorted(m.metric for m in measurements)}, but declared are {sorted(definitions)}")
    return tuple(_judge_one(by_metric[name], definition, thresholds) for name, definition in definitions.items())


def _judge_one(measurement: Measurement, definition: MetricDefinition, thresholds: BaseModel) -> Metric:
    threshold: int | float = getattr(thresholds, definition.threshold_field)
    return Metric(
        name=definition.name,
        title=definition.title,
        value=measurement.value,
        bound=definition.bound,
        threshold=threshold,
        status=_status(measurement.value, definition.bound, threshold),
        rows=measurement.rows,
        note=measurement.note,
        examples=measurement.examples,
    )


def _status(value: int | float | None, bound: Bound, threshold: int | float) -> Status:
    if value is None:
        return Status.NOT_JUDGED
    breached = value > threshold if bound is Bound.MAX else value < threshold
    return Status.BREACHED if breached else Status.PASSED


def format_number(value: int | float | None) -> str:
    """Return a number as text for people.

    Integers are written with all digits, and other numbers with four significant digits. None becomes `-`.

    Example:
        >>> format_number(278000), format_number(0.99137), format_number(None)
        ('278,000', '0.9914', '-')
    """
    if value is None:
        return "-"
    return f"{value:,d}" if isinstance(value, int) else significant_text(value, 4)
