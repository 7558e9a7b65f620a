"""The selection: which tiles are embedded, and how their vectors are stored."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from rasterembed.options_model import OptionsModel
from rasterembed.raster.skip_reason import OnBadWindow

VectorDtype = Literal["float32", "float16", "int8"]
"""Type of the stored vectors. See `rasterembed.dataset.vector_column`."""


class Selection(OptionsModel):
    """Which tiles are embedded, and how their vectors are stored."""

    min_valid_fraction: float = Field(
        default=0.05,
        ge=0.0,
        le=1.0,
        description="Smallest share of valid pixels in an embedded tile. A tile with a smaller share is skipped. "
        "Padding does not count, unless the grid is anchored to the CRS.",
    )
    on_bad_window: OnBadWindow = Field(
        default="fail",
        description="Action for a window that cannot be decoded: fail the run, or skip the tile.",
    )
    allow_no_crs: bool = Field(
        default=False,
        description="Accept a raster without a place on Earth. Its footprints are in pixels.",
    )
    vector_dtype: VectorDtype = Field(
        default="float32",
        description="Type of the stored vectors. float16 takes half the space. int8 takes about a quarter, and changes "
        "some of the neighbours that a search finds.",
    )
    shard_tiles: int = Field(
        default=2048,
        ge=1,
        le=1_000_000,
        description="Approximate number of tiles in a shard. If a run would have more than 500 shards, the shards "
        "have more tiles.",
    )
