"""The selection: which tiles are embedded, and how their vectors are stored."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from rasterembed.raster.shard_reader import OnBadWindow

VectorDtype = Literal["float32", "float16"]
"""Type of the stored vectors."""


class Selection(BaseModel):
    """Which tiles are embedded, and how their vectors are stored."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    min_valid_fraction: float = Field(
        default=0.05,
        ge=0.0,
        le=1.0,
        description="Smallest share of valid pixels that a tile needs. Tiles below it are skipped.",
    )
    on_bad_window: OnBadWindow = Field(
        default="fail",
        description="What to do with a window that cannot be decoded: fail the run, or skip the tile.",
    )
    allow_no_crs: bool = Field(
        default=False,
        description="Accept rasters without a place on Earth. Their footprints are in pixels.",
    )
    vector_dtype: VectorDtype = Field(
        default="float32", description="Type of the stored vectors. float16 takes half the space."
    )
    shard_tiles: int = Field(
        default=2048,
        ge=1,
        le=1_000_000,
        description="Approximate number of tiles in a shard. Shards grow when a run would have more than 500.",
    )
