"""Find out whether the black and white that a person gave fit the pixels of a raster."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from rasterio.errors import RasterioError

from rasterembed.errors import DataError
from rasterembed.number_text import rounded_text
from rasterembed.raster.pixels import open_pixels
from rasterembed.raster.profile import RasterProfile
from rasterembed.raster.radiometry import NEARLY_ALL, ResolvedRadiometry, read_sample
from rasterembed.store.object_store import ObjectStore

_NARROW = 0.01
"""If the pixels of every channel take up less than this share of the range from black to white, the stretch does not
fit the raster."""


class StretchProblem(StrEnum):
    """Why black and white do not fit the pixels of a raster."""

    CLIPPED = "clip nearly all valid pixels"
    ONE_COLOUR = "leave nearly one colour"


@dataclass(frozen=True)
class DoubtfulStretch:
    """Black and white that do not fit the pixels of a raster."""

    problem: StretchProblem
    text: str
    """Warning for people."""


def doubtful_stretch(
    store: ObjectStore, uri: str, profile: RasterProfile, radiometry: ResolvedRadiometry
) -> DoubtfulStretch | None:
    """Return a warning if black and white do not fit the pixels of a raster, else None.

    They do not fit if they clip nearly all valid pixels, or if all valid pixels get nearly the same colour. The
    function reads the same sample of pixels that percentiles are computed from.

    Args:
        store: gives the credentials for a raster on S3.
        uri: absolute path, or s3://bucket/key.
        profile: the raster's own header. It is not the header of the warped raster.
        radiometry: bands, black and white that a person gave.
    """
    if radiometry.palette:
        return None
    try:
        with open_pixels(store, uri, profile) as raster:
            sample = read_sample(raster, profile, radiometry.distinct_bands)
    except (RasterioError, DataError):
        return None  # Ignore a damaged block here. Reading its tiles reports or skips it.
    values = sample.pixels[:, sample.has_data.all(axis=0)]
    if not values.size:
        return None
    black, white = np.percentile(values.astype(np.float64), (2, 98), axis=1)
    low, high = float(black.min()), float(white.max())
    share = radiometry.clipped_share(values)
    ranges = [abs(end - start) for start, end in zip(radiometry.low, radiometry.high, strict=True)]
    if share >= NEARLY_ALL:
        problem = StretchProblem.CLIPPED
        found = f"clip {share:.1%} of the sampled valid pixels, so nearly every tile has the same colour"
    elif low < high and max((white - black).max() / span for span in ranges) < _NARROW:
        problem = StretchProblem.ONE_COLOUR
        found = f"{problem}, because the values take up less than 1 % of the range from black to white"
    else:
        return None
    shown = [rounded_text(value, high - low) for value in (low, high)]
    other = ", or another `stretch_of`" if radiometry.shared else ""
    advice = f": give a `range` such as {shown[0]} {shown[1]}{other}" if low < high else ""
    return DoubtfulStretch(
        problem,
        f"{uri}: {radiometry.describe()} ({radiometry.method}) {found}. Most of the sampled values are between "
        f"{shown[0]} and {shown[1]}{advice}",
    )
