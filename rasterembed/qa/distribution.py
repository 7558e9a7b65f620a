"""Metrics about the distribution of the finite, non-zero vectors. Both ways to judge a dataset measure them.

`rasterembed.qa.vector_checks` reads all vectors. `rasterembed.qa.verdict` uses numbers that were collected before.
"""

from __future__ import annotations

from rasterembed.qa.metrics import Measurement
from rasterembed.qa.vector_statistics import Vectors, dead_dimensions, effective_rank, mean_cosine

DISTRIBUTION_METRICS = (
    "norm_ratio",
    "valid_fraction_mean",
    "duplicate_share",
    "effective_rank",
    "mean_cosine",
    "dead_dimension_share",
)
"""Names of the metrics. They are not judged if a dataset has too few vectors."""


def sample_measurements(vectors: Vectors, unit: Vectors) -> tuple[Measurement, ...]:
    """Return the metrics that need whole vectors, and are therefore computed from a sample.

    Args:
        vectors: the sampled vectors.
        unit: the same vectors, divided by their norms.
    """
    rows = len(vectors)
    return (
        Measurement("effective_rank", effective_rank(vectors), rows=rows),
        Measurement("mean_cosine", mean_cosine(unit), rows=rows),
        Measurement("dead_dimension_share", float(dead_dimensions(vectors).mean()), rows=rows),
    )
