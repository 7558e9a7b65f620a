"""Thresholds of the quality checks. Most fields define a metric and its threshold."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated

from pydantic import ConfigDict, Field

from rasterembed.options_model import OptionsModel


class Bound(StrEnum):
    """Kind of a threshold: largest or smallest allowed value. The threshold itself is an allowed value."""

    MAX = "max"
    """The value must not be larger than the threshold."""
    MIN = "min"
    """The value must not be smaller than the threshold."""


@dataclass(frozen=True)
class ThresholdOf:
    """Marks a field as the threshold of a metric. The field's name is the metric's name after `max_` or `min_`."""

    metric: str
    """Name of the metric in the report."""
    bound: Bound


class QaThresholds(OptionsModel):
    """Bounds that a dataset must keep to pass its quality checks.

    A field with `ThresholdOf` is the threshold of one metric. The description of the field is the metric's title in the
    report. The fields without `ThresholdOf` say how much data the metrics need.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    max_shards_missing: Annotated[int, ThresholdOf("shards_missing", Bound.MAX)] = Field(
        default=0, ge=0, description="Shards in the manifest's list that are missing from the store or damaged."
    )
    max_shards_mismatched: Annotated[int, ThresholdOf("shards_mismatched", Bound.MAX)] = Field(
        default=0,
        ge=0,
        description="Shards whose receipt, rows or bytes differ from the manifest, or that are listed twice in it.",
    )
    max_shards_unlisted: Annotated[int, ThresholdOf("shards_unlisted", Bound.MAX)] = Field(
        default=0, ge=0, description="Parquet files in the shards' folder that the manifest does not list."
    )
    max_index_mismatched: Annotated[int, ThresholdOf("index_mismatched", Bound.MAX)] = Field(
        default=0, ge=0, le=1, description="1 if the checksum of the tile index is not the one in the manifest."
    )
    max_tiles_unaccounted: Annotated[int, ThresholdOf("tiles_unaccounted", Bound.MAX)] = Field(
        default=0,
        ge=0,
        description="Difference between the number of planned tiles and the number of embedded and skipped tiles.",
    )
    max_tiles_missing: Annotated[int, ThresholdOf("tiles_missing", Bound.MAX)] = Field(
        default=0, ge=0, description="Tiles that should have a vector, but have no vector."
    )
    max_tiles_duplicated: Annotated[int, ThresholdOf("tiles_duplicated", Bound.MAX)] = Field(
        default=0, ge=0, description="Rows that repeat the tile id of an earlier row."
    )
    max_tiles_unexpected: Annotated[int, ThresholdOf("tiles_unexpected", Bound.MAX)] = Field(
        default=0, ge=0, description="Tiles that have a vector, but are skipped or absent in the tile index."
    )
    max_tiles_misplaced: Annotated[int, ThresholdOf("tiles_misplaced", Bound.MAX)] = Field(
        default=0, ge=0, description="Tiles whose window or footprint differs between shard and tile index."
    )
    max_undecodable_share: Annotated[float, ThresholdOf("undecodable_share", Bound.MAX)] = Field(
        default=0.1, ge=0, le=1, description="Share of planned tiles that were skipped as undecodable."
    )
    min_coverage: Annotated[float, ThresholdOf("coverage", Bound.MIN)] = Field(
        default=0.99,
        ge=0,
        le=1,
        description="Share of valid pixels that have a vector. Tiles with too few valid pixels are not counted.",
    )
    max_vectors_not_finite: Annotated[int, ThresholdOf("vectors_not_finite", Bound.MAX)] = Field(
        default=0, ge=0, description="Vectors with a NaN, an infinity or a null, and vectors of a wrong length."
    )
    max_vectors_zero: Annotated[int, ThresholdOf("vectors_zero", Bound.MAX)] = Field(
        default=0, ge=0, description="Vectors whose norm is zero."
    )
    max_norms_wrong: Annotated[int, ThresholdOf("norms_wrong", Bound.MAX)] = Field(
        default=0, ge=0, description="Rows whose norm column differs from the vector's norm by more than a thousandth."
    )
    max_norm_ratio: Annotated[float, ThresholdOf("norm_ratio", Bound.MAX)] = Field(
        default=20.0, ge=1, description="Largest norm divided by smallest norm."
    )
    max_valid_fractions_wrong: Annotated[int, ThresholdOf("valid_fractions_wrong", Bound.MAX)] = Field(
        default=0, ge=0, description="Embedded tiles whose valid fraction is above 1 or below the configured minimum."
    )
    min_valid_fraction_mean: Annotated[float, ThresholdOf("valid_fraction_mean", Bound.MIN)] = Field(
        default=0.1, ge=0, le=1, description="Mean valid fraction of the embedded tiles."
    )
    max_duplicate_share: Annotated[float, ThresholdOf("duplicate_share", Bound.MAX)] = Field(
        default=0.9,
        ge=0,
        le=1,
        description="Share of vectors that are exact copies of another vector. Tiles of open sea have such vectors.",
    )
    min_effective_rank: Annotated[float, ThresholdOf("effective_rank", Bound.MIN)] = Field(
        default=2.0, ge=1, description="Effective number of directions that the vectors use (RankMe)."
    )
    max_mean_cosine: Annotated[float, ThresholdOf("mean_cosine", Bound.MAX)] = Field(
        default=0.99,
        ge=-1,
        le=1,
        description="Mean cosine similarity of all pairs of vectors; 1 means that all have the same direction.",
    )
    max_dead_dimension_share: Annotated[float, ThresholdOf("dead_dimension_share", Bound.MAX)] = Field(
        default=0.1, ge=0, le=1, description="Share of dimensions that have the same value in every vector."
    )
    min_neighbour_gap: Annotated[float, ThresholdOf("neighbour_gap", Bound.MIN)] = Field(
        default=0.0,
        ge=-2,
        le=2,
        description="Mean cosine similarity of neighbouring tiles minus that of random tiles.",
    )
    min_neighbour_z: Annotated[float, ThresholdOf("neighbour_z", Bound.MIN)] = Field(
        default=3.0,
        description="Mean similarity of neighbours, minus its mean for vectors that are assigned to the tiles at "
        "random, in standard deviations.",
    )
    min_rows: int = Field(
        default=10, ge=2, description="With fewer vectors, metrics of their distribution are not judged."
    )
    min_neighbour_pairs: int = Field(
        default=100, ge=2, description="With fewer pairs of neighbours, neighbours are not compared with random tiles."
    )
    sample_rows: int = Field(
        default=10_000,
        ge=100,
        le=1_000_000,
        description="Approximate number of sampled vectors for metrics that need whole vectors.",
    )
