"""What a dataset must hold to become ready."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class QaThresholds(BaseModel):
    """Bounds of the quality metrics. `max_x` and `min_x` bound the metric `x` of the report, itself included."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_shards_missing: int = Field(
        default=0, ge=0, description="Shards that the manifest lists and the store does not have, or not whole."
    )
    max_shards_mismatched: int = Field(
        default=0,
        ge=0,
        description="Shards whose receipt, rows or bytes are not what the manifest says, or that it lists twice.",
    )
    max_shards_unlisted: int = Field(
        default=0, ge=0, description="Parquet files beside the shards that the manifest does not list."
    )
    max_index_mismatched: int = Field(
        default=0, ge=0, le=1, description="1 if the tile index is not the file that the manifest was written with."
    )
    max_tiles_unaccounted: int = Field(
        default=0, ge=0, description="Difference between tiles planned and tiles embedded or skipped."
    )
    max_tiles_missing: int = Field(default=0, ge=0, description="Tiles that should have a vector and have none.")
    max_tiles_duplicated: int = Field(default=0, ge=0, description="Rows beyond the first with the same tile id.")
    max_tiles_unexpected: int = Field(
        default=0, ge=0, description="Tiles that have a vector, but are skipped or absent in the tile index."
    )
    max_tiles_misplaced: int = Field(
        default=0, ge=0, description="Tiles whose window or footprint differs between shard and tile index."
    )
    max_undecodable_share: float = Field(
        default=0.1, ge=0, le=1, description="Share of planned tiles skipped because they could not be decoded."
    )
    min_coverage: float = Field(
        default=0.99,
        ge=0,
        le=1,
        description="Share of the raster's valid pixels, in tiles valid enough to be embedded, that have a vector.",
    )
    max_vectors_not_finite: int = Field(
        default=0, ge=0, description="Vectors with a NaN, an infinity or a null, or of a wrong length."
    )
    max_vectors_zero: int = Field(default=0, ge=0, description="Vectors of length zero.")
    max_norms_wrong: int = Field(
        default=0, ge=0, description="Rows whose norm column is off the vector's own norm by more than a thousandth."
    )
    max_norm_ratio: float = Field(default=20.0, ge=1, description="Largest norm over smallest norm.")
    max_valid_fractions_wrong: int = Field(
        default=0, ge=0, description="Embedded tiles whose valid fraction is above 1 or below the configured minimum."
    )
    min_valid_fraction_mean: float = Field(
        default=0.1, ge=0, le=1, description="Mean valid fraction of the embedded tiles."
    )
    max_duplicate_share: float = Field(
        default=0.9,
        ge=0,
        le=1,
        description="Share of vectors that repeat another exactly; tiles of one colour (open sea) honestly do.",
    )
    min_effective_rank: float = Field(
        default=2.0, ge=1, description="Effective number of directions that the vectors use (RankMe)."
    )
    max_mean_cosine: float = Field(
        default=0.99, ge=-1, le=1, description="Mean cosine similarity of all pairs of vectors; 1 is total collapse."
    )
    max_dead_dimension_share: float = Field(
        default=0.1, ge=0, le=1, description="Share of dimensions that have the same value in every vector."
    )
    min_neighbour_gap: float = Field(
        default=0.0,
        ge=-2,
        le=2,
        description="Mean cosine similarity of neighbouring tiles minus that of random tiles.",
    )
    min_neighbour_z: float = Field(
        default=3.0,
        description="How far neighbours' similarity lies above that of the same vectors dealt out at random, "
        "in standard deviations.",
    )
    min_rows: int = Field(
        default=10, ge=2, description="Vectors below which metrics of their distribution are not judged."
    )
    min_neighbour_pairs: int = Field(
        default=100, ge=2, description="Pairs of neighbours below which they are not compared with random tiles."
    )
    sample_rows: int = Field(
        default=10_000,
        ge=100,
        le=1_000_000,
        description="Vectors, about, that metrics over whole vectors are computed on; larger datasets are sampled.",
    )
