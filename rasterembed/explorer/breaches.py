"""Breached metrics of quality checks in one line for people. It has titles, as names of metrics are for programs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rasterembed.qa.collection_thresholds import CollectionThresholds
from rasterembed.qa.metrics import Metric, format_number, metric_definitions
from rasterembed.qa.thresholds import Bound

_FAILED = "The quality checks did not pass."


def line_of_metrics(metrics: Sequence[Metric]) -> str:
    """Return the breached metrics of a report in one line, with their values and thresholds.

    Args:
        metrics: the breached metrics.
    """
    return _line(
        (
            metric.bound,
            f"{_lower(metric.title)} ({format_number(metric.value)}, "
            f"at {'most' if metric.bound is Bound.MAX else 'least'} {format_number(metric.threshold)})",
        )
        for metric in metrics
    )


def line_of_names(names: Iterable[str]) -> str:
    """Return the breached metrics of a collection in one line.

    Args:
        names: names of the metrics. A name that this version does not know is shown as it is.
    """
    known = metric_definitions(CollectionThresholds)
    return _line((known[name].bound, _lower(known[name].title)) if name in known else (None, name) for name in names)


def _line(breaches: Iterable[tuple[Bound | None, str]]) -> str:
    """Return the line for some breaches: the kind of the threshold, if it is known, and the text."""
    texts: dict[Bound | None, list[str]] = {Bound.MAX: [], Bound.MIN: [], None: []}
    for bound, text in breaches:
        texts[bound].append(text)
    heads = {Bound.MAX: "Too high", Bound.MIN: "Too low", None: "Breached"}
    return " ".join([_FAILED, *(f"{heads[bound]}: {'; '.join(found)}." for bound, found in texts.items() if found)])


def _lower(title: str) -> str:
    return title[:1].lower() + title[1:]
