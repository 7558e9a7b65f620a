"""Judge a dataset by the numbers that were collected while it was written. Nothing is read again.

The metrics and their thresholds are those of the full quality checks. Metrics that need the files, the tile index, the
raster's overview or the neighbours of a tile are not judged. `rasterembed.qa.run` judges them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rasterembed.dataset.vector_summary import VectorSummary
from rasterembed.qa.distribution import DISTRIBUTION_METRICS, sample_measurements
from rasterembed.qa.metrics import Measurement, Metric, failure_text, judge, metric_definitions, not_enough, not_judged
from rasterembed.qa.thresholds import QaThresholds
from rasterembed.qa.vector_statistics import nearly_same, nearly_same_text
from rasterembed.raster.skip_reason import SkipReason


@dataclass(frozen=True)
class Verdict:
    """The judgement about a dataset."""

    metrics: tuple[Metric, ...]
    """All metrics of the full quality checks, in their order."""
    warnings: tuple[str, ...] = ()
    """Things that a person should look at, as text for people. See `rasterembed.qa.report.QaReport.warnings`."""

    @property
    def reason(self) -> str | None:
        """The breached metrics with values and thresholds, and the warnings, in one line. None if it passed."""
        return failure_text(self.metrics, self.warnings)


def judge_vectors(planned: int, summaries: Sequence[VectorSummary], thresholds: QaThresholds) -> Verdict:
    """Judge a dataset by the summaries of its shards.

    Args:
        planned: number of planned tiles.
        summaries: the summary of each shard.
        thresholds: bounds that the dataset must keep.
    """
    rows = sum(each.rows for each in summaries)
    skipped = sum(len(positions) for each in summaries for positions in each.skipped.values())
    undecodable = sum(len(each.skipped.get(SkipReason.UNDECODABLE, ())) for each in summaries)
    measurements, warnings = _distribution(summaries, thresholds)
    found = [
        Measurement("tiles_unaccounted", abs(planned - rows - skipped)),
        Measurement("undecodable_share", undecodable / max(planned, 1)),
        Measurement("vectors_not_finite", sum(each.not_finite for each in summaries)),
        Measurement("vectors_zero", sum(each.zero for each in summaries)),
        Measurement("valid_fractions_wrong", sum(each.valid_wrong for each in summaries)),
        *measurements,
    ]
    rest = metric_definitions(QaThresholds).keys() - {each.metric for each in found}
    rest_not_judged = not_judged(rest, "only the full quality checks measure it")
    return Verdict(judge([*found, *rest_not_judged], thresholds), warnings)


def _distribution(
    summaries: Sequence[VectorSummary], thresholds: QaThresholds
) -> tuple[tuple[Measurement, ...], tuple[str, ...]]:
    """Return the metrics about the distribution of the good vectors, and the warnings about it."""
    good = sum(each.good for each in summaries)
    if good < thresholds.min_rows:
        reason = not_enough("rows", good, thresholds.min_rows)
        return not_judged(DISTRIBUTION_METRICS, reason), ()
    parts = [part for each in summaries for part in each.sample]
    count = sum(map(len, parts))
    if count < 2:
        reason = f"not enough rows in the sample: {count}, but at least 2 are needed"
        return not_judged(DISTRIBUTION_METRICS, reason), ()
    sample = np.concatenate(parts)
    unit = (sample / np.linalg.norm(sample.astype(np.float64), axis=1)[:, None]).astype(np.float32)
    different = len({vector.tobytes() for vector in sample})
    lowest = min(each.norm_low for each in summaries)
    measurements = (
        Measurement("norm_ratio", max(each.norm_high for each in summaries) / lowest),
        Measurement("valid_fraction_mean", sum(each.valid_sum for each in summaries) / good),
        Measurement("duplicate_share", 1.0 - different / count, rows=count),
        *sample_measurements(sample, unit),
    )
    return measurements, (nearly_same_text(count),) if nearly_same(unit) else ()
