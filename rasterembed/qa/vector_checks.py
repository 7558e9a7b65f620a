"""Measure the vectors, their norms and the tiles' valid fractions.

The metrics show whether the vectors are valid numbers, and whether different tiles have different vectors.
"""

from __future__ import annotations

from dataclasses import dataclass

from rasterembed.dataset.manifest import Manifest
from rasterembed.number_text import counted
from rasterembed.qa.checked_tiles import CheckedTiles, Sample
from rasterembed.qa.distribution import DISTRIBUTION_METRICS, sample_measurements
from rasterembed.qa.metrics import Measurement, format_number, not_enough, not_judged
from rasterembed.qa.report import Distribution
from rasterembed.qa.thresholds import QaThresholds
from rasterembed.qa.vector_statistics import (
    Neighbours,
    Principal,
    compare_neighbours,
    nearly_same,
    principal_components,
)

_NORM_TOLERANCE = 1e-3
"""Largest relative error of the column `norm`. Rounding a vector to float16 changes its norm by less than this. The
rounding to int8 is allowed in addition."""

_NEIGHBOUR_METRICS = ("neighbour_gap", "neighbour_z")


@dataclass(frozen=True)
class VectorMeasures:
    """Metrics and statistics of the vectors."""

    measurements: tuple[Measurement, ...]
    norm: Distribution | None
    """Distribution of the norms. None if no vector is finite and non-zero."""
    valid_fraction: Distribution | None
    """Distribution of the valid fractions. None if no vector is finite and non-zero."""
    neighbours: Neighbours | None
    """Comparison of neighbours with random tiles. None if no two tiles are neighbours."""
    principal: Principal | None
    """Principal components of the sample. None if the sample is empty."""
    sample_rows: int
    """Number of vectors in the sample."""
    nearly_same: bool
    """Whether all vectors in the sample, at least two, have nearly the same direction."""
    notes: tuple[str, ...]
    """If no vector was judged, one sentence with the reason. Otherwise empty."""


def measure_vectors(tiles: CheckedTiles, manifest: Manifest, thresholds: QaThresholds) -> VectorMeasures:
    """Measure the vectors, their norms, and the tiles' valid fractions.

    Args:
        tiles: the dataset's tiles.
        manifest: the dataset's manifest.
        thresholds: the thresholds. Some of their fields say how many vectors and pairs the metrics need.
    """
    sample = tiles.sample()
    norm, valid_fraction = tiles.distribution("norm"), tiles.distribution("valid_fraction")
    near = tiles.neighbour_sample()
    neighbours = compare_neighbours(near.unit, near.row, near.col, near.shard)
    good = tiles.good_rows()
    if norm is None or valid_fraction is None or good < thresholds.min_rows:
        reason = not_enough("rows", good, thresholds.min_rows)
        of_distribution = not_judged(DISTRIBUTION_METRICS, reason)
    else:
        of_distribution = _measure_distribution(tiles, sample, norm, valid_fraction)
    return VectorMeasures(
        measurements=(
            *_measure_rows(tiles, manifest),
            *of_distribution,
            *_measure_neighbours(neighbours, thresholds.min_neighbour_pairs),
        ),
        norm=norm,
        valid_fraction=valid_fraction,
        neighbours=neighbours,
        principal=principal_components(sample.unit) if len(sample.unit) else None,
        sample_rows=len(sample.unit),
        nearly_same=nearly_same(sample.unit),
        notes=() if good else (_why_no_vector(manifest),),
    )


def _measure_rows(tiles: CheckedTiles, manifest: Manifest) -> tuple[Measurement, ...]:
    """Return the metrics that count wrong rows."""
    min_valid_fraction = float(manifest.configuration["selection"]["min_valid_fraction"])
    return tuple(
        Measurement(metric, found.count, examples=found.examples)
        for metric, found in (
            ("vectors_not_finite", tiles.not_finite()),
            ("vectors_zero", tiles.zero()),
            ("norms_wrong", tiles.norms_wrong(_NORM_TOLERANCE)),
            ("valid_fractions_wrong", tiles.valid_fractions_wrong(min_valid_fraction)),
        )
    )


def _why_no_vector(manifest: Manifest) -> str:
    if manifest.rows == 0:
        return f"No vector was judged: all {counted(manifest.skipped, 'tile')} are skipped."
    return "No vector was judged: every vector is missing, zero or not finite."


def _measure_distribution(
    tiles: CheckedTiles, sample: Sample, norm: Distribution, valid_fraction: Distribution
) -> tuple[Measurement, ...]:
    """Return the metrics about the distribution of all finite, non-zero vectors."""
    return (
        Measurement("norm_ratio", norm.maximum / norm.minimum if norm.minimum > 0 else float("inf")),
        Measurement("valid_fraction_mean", valid_fraction.mean),
        Measurement("duplicate_share", tiles.duplicate_share()),
        *sample_measurements(sample.vectors, sample.unit),
    )


def _measure_neighbours(found: Neighbours | None, min_pairs: int) -> tuple[Measurement, ...]:
    """Return the metrics that compare neighbouring tiles with random tiles."""
    pairs = found.pairs if found else 0
    if found is None or pairs < min_pairs:
        reason = not_enough("pairs of neighbours", pairs, min_pairs)
        return not_judged(_NEIGHBOUR_METRICS, reason)
    if found.z is None:
        return not_judged(_NEIGHBOUR_METRICS, "assigning the vectors to tiles at random changes nothing", rows=pairs)
    means = f"neighbours {format_number(found.neighbour_cosine)}, random tiles {format_number(found.random_cosine)}"
    return (
        Measurement("neighbour_gap", found.gap, rows=pairs, note=means),
        Measurement("neighbour_z", found.z, rows=pairs),
    )
