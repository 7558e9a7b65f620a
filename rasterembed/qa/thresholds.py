"""Thresholds of the quality checks. A field that bounds a metric also declares that metric."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field


class Bound(StrEnum):
    """Side on which a threshold bounds a metric. The threshold itself is an allowed value."""

    MAX = "max"
    """The value must not be larger than the threshold."""
    MIN = "min"
    """The value must not be smaller than the threshold."""


@dataclass(frozen=True)
class Limits:
    """Mark a field of `QaThresholds` as the threshold of a metric."""

    metric: str
    """Name of the metric in the report."""
    bound: Bound


class QaThresholds(BaseModel):
    """What a dataset must hold to pass its quality checks.

    A field marked with `Limits` is the threshold of one metric. Its description is the metric's title in the report.
    The other fields say how much data the metrics need.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_shards_missing: Annotated[int, Limits("shards_missing", Bound.MAX)] = Field(
        default=0, ge=0, description="Shards that the manifest lists, but that are missing from the store or damaged."
    )
    max_shards_mismatched: Annotated[int, Limits("shards_mismatched", Bound.MAX)] = Field(
        default=0,
        ge=0,
        description="Shards whose receipt, rows or bytes differ from the manifest, or that it lists twice.",
    )
    max_shards_unlisted: Annotated[int, Limits("shards_unlisted", Bound.MAX)] = Field(
        default=0, ge=0, description="Parquet files beside the shards that the manifest does not list."
    )
    max_index_mismatched: Annotated[int, Limits("index_mismatched", Bound.MAX)] = Field(
        default=0, ge=0, le=1, description="1 if the tile index is not the file that the manifest was written with."
    )
    max_tiles_unaccounted: Annotated[int, Limits("tiles_unaccounted", Bound.MAX)] = Field(
        default=0, ge=0, description="Difference between tiles planned and tiles embedded or skipped."
    )
    max_tiles_missing: Annotated[int, Limits("tiles_missing", Bound.MAX)] = Field(
        default=0, ge=0, description="Tiles that should have a vector and have none."
    )
    max_tiles_duplicated: Annotated[int, Limits("tiles_duplicated", Bound.MAX)] = Field(
        default=0, ge=0, description="Rows beyond the first with the same tile id."
    )
    max_tiles_unexpected: Annotated[int, Limits("tiles_unexpected", Bound.MAX)] = Field(
        default=0, ge=0, description="Tiles that have a vector, but are skipped or absent in the tile index."
    )
    max_tiles_misplaced: Annotated[int, Limits("tiles_misplaced", Bound.MAX)] = Field(
        default=0, ge=0, description="Tiles whose window or footprint differs between shard and tile index."
    )
    max_undecodable_share: Annotated[float, Limits("undecodable_share", Bound.MAX)] = Field(
        default=0.1, ge=0, le=1, description="Share of planned tiles skipped because they could not be decoded."
    )
    min_coverage: Annotated[float, Limits("coverage", Bound.MIN)] = Field(
        default=0.99,
        ge=0,
        le=1,
        description="Share of the raster's valid pixels, in tiles valid enough to be embedded, that have a vector.",
    )
    max_vectors_not_finite: Annotated[int, Limits("vectors_not_finite", Bound.MAX)] = Field(
        default=0, ge=0, description="Vectors with a NaN, an infinity or a null, or of a wrong length."
    )
    max_vectors_zero: Annotated[int, Limits("vectors_zero", Bound.MAX)] = Field(
        default=0, ge=0, description="Vectors whose norm is zero."
    )
    max_norms_wrong: Annotated[int, Limits("norms_wrong", Bound.MAX)] = Field(
        default=0, ge=0, description="Rows whose norm column differs from the vector's norm by more than a thousandth."
    )
    max_norm_ratio: Annotated[float, Limits("norm_ratio", Bound.MAX)] = Field(
        default=20.0, ge=1, description="Largest norm divided by smallest norm."
    )
    max_valid_fractions_wrong: Annotated[int, Limits("valid_fractions_wrong", Bound.MAX)] = Field(
        default=0, ge=0, description="Embedded tiles whose valid fraction is above 1 or below the configured minimum."
    )
    min_valid_fraction_mean: Annotated[float, Limits("valid_fraction_mean", Bound.MIN)] = Field(
        default=0.1, ge=0, le=1, description="Mean valid fraction of the embedded tiles."
    )
    max_duplicate_share: Annotated[float, Limits("duplicate_share", Bound.MAX)] = Field(
        default=0.9,
        ge=0,
        le=1,
        description="Share of vectors that repeat another exactly, as tiles of one colour (open sea) rightly do.",
    )
    min_effective_rank: Annotated[float, Limits("effective_rank", Bound.MIN)] = Field(
        default=2.0, ge=1, description="Effective number of directions that the vectors use (RankMe)."
    )
    max_mean_cosine: Annotated[float, Limits("mean_cosine", Bound.MAX)] = Field(
        default=0.99,
        ge=-1,
        le=1,
        description="Mean cosine similarity of all pairs of vectors; 1 means that all have the same direction.",
    )
    max_dead_dimension_share: Annotated[float, Limits("dead_dimension_share", Bound.MAX)] = Field(
        default=0.1, ge=0, le=1, description="Share of dimensions that have the same value in every vector."
    )
    min_neighbour_gap: Annotated[float, Limits("neighbour_gap", Bound.MIN)] = Field(
        default=0.0,
        ge=-2,
        le=2,
        description="Mean cosine similarity of neighbouring tiles minus that of random tiles.",
    )
    min_neighbour_z: Annotated[float, Limits("neighbour_z", Bound.MIN)] = Field(
        default=3.0,
        description="How many standard deviations the mean similarity of neighbours lies above its value when the "
        "same vectors are dealt to the tiles at random.",
    )
    min_rows: int = Field(
        default=10, ge=2, description="With fewer vectors, metrics of their distribution are not judged."
    )
    min_neighbour_pairs: int = Field(
        default=100, ge=2, description="With fewer pairs of neighbours, they are not compared with random tiles."
    )
    sample_rows: int = Field(
        default=10_000,
        ge=100,
        le=1_000_000,
        description="Approximate number of vectors to sample for metrics over whole vectors.",
    )
