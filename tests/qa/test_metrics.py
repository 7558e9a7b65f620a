"""The texts of a metric tell its value from its threshold."""

from __future__ import annotations

import pytest

from rasterembed.qa.metrics import Metric, Status
from rasterembed.qa.thresholds import Bound


@pytest.mark.parametrize(
    ("value", "threshold", "texts"),
    [
        (0.99137, 0.9, ("0.9914", "0.9")),
        (0.900001, 0.9, ("0.900001", "0.9")),
        (0.9, 0.9, ("0.9", "0.9")),
        (0.5, 0.999999, ("0.5", "0.999999")),
        (1.0000001, 1, ("1.0000001", "1")),
        (278000, 1000, ("278,000", "1,000")),
        (None, 0.05, ("-", "0.05")),
    ],
)
def test_value_and_threshold_differ_in_a_text_if_they_differ(
    value: float | None, threshold: float, texts: tuple[str, str]
) -> None:
    metric = Metric(
        name="share", title="Share", value=value, bound=Bound.MAX, threshold=threshold, status=Status.BREACHED
    )
    assert (metric.value_text, metric.threshold_text) == texts
    assert metric.sentence() == f"share is {texts[0]}, more than `max_share={texts[1].replace(',', '')}`"
