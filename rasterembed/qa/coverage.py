"""Measure the share of the raster's valid pixels that have a vector.

This module reads the raster itself. If a run wrongly treated valid pixels as nodata, the dataset alone would not show
this error.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from rasterio.errors import RasterioError
from rasterio.windows import Window

from rasterembed.dataset.arrow_arrays import booleans_of, values_of, view_of
from rasterembed.dataset.continuing import check_unchanged
from rasterembed.dataset.plan import Plan
from rasterembed.errors import DataError, StoreUnavailableError, one_line
from rasterembed.number_text import counted
from rasterembed.qa.checked_tiles import CheckedTiles
from rasterembed.qa.metrics import Measurement, not_judged
from rasterembed.raster.pixels import Pixels, open_pixels
from rasterembed.raster.skip_reason import SkipReason
from rasterembed.store.object_store import ObjectStore

_SAMPLED_TILES = 32
"""Approximate number of tiles to read if every overview of the raster is too large."""

_MIN_SIDE, _MAX_SIDE = 1024, 4096
"""Smallest and largest length of the overview's longer side, px. The side is longer if the raster has more tiles."""

_PIXELS_PER_TILE = 2
"""Smallest number of overview pixels along the side of a tile."""

_DECODED_PIXELS = 2**24
"""Largest number of pixels to decode for the overview."""

_DECODED_PER_PIXEL = 16
"""Number of pixels that may be decoded for each pixel of the overview, even if the total is above `_DECODED_PIXELS`."""

_MARGIN = 0.1
"""Value that is added to the minimum valid fraction if the overview has fewer pixels than the raster. A tile's valid
fraction is then only an estimate."""

_WINDOW = ("col_off", "row_off", "width", "height")


@dataclass(frozen=True)
class Overview:
    """The raster, usually with fewer pixels than the file."""

    grey: NDArray[np.uint8]
    """Mean of the model's colour channels, 0 to 255, shape (rows, columns)."""
    valid: NDArray[np.bool_]
    """Booleans, shape (rows, columns): True where the pixel is valid."""
    one_value: bool = False
    """Whether all valid pixels, at least two, have the same value in each band."""
    clipped_share: float = 0.0
    """Share of the valid pixels that black and white clip. See `ResolvedRadiometry.clipped_share`."""


@dataclass(frozen=True)
class PixelCounts:
    """Counts of the raster's valid pixels, from its overview or from sampled tiles."""

    expected: int
    """Number of valid pixels in tiles that should have a vector."""
    covered: int
    """Number of the expected pixels that are in tiles with a vector."""
    sampled_tiles: int | None = None
    """Number of sampled tiles. None if the overview was read."""


@dataclass(frozen=True)
class CoverageMeasures:
    """The metric `coverage`, and the overview that was used to measure it."""

    measurement: Measurement
    overview: Overview | None
    """None if no overview could be read."""


def measure_coverage(store: ObjectStore, plan: Plan | None, tiles: CheckedTiles) -> CoverageMeasures:
    """Measure the share of the raster's valid pixels that have a vector.

    Args:
        store: store with the credentials for a raster on S3.
        plan: the dataset's plan. If it is None, coverage is not judged.
        tiles: the dataset's tiles. Without a tile index, coverage is not judged.

    Raises:
        StoreUnavailableError: if the store does not answer.
    """
    if plan is None or not tiles.has_index:
        return _not_judged("coverage needs both the plan and the tile index")
    overview: Overview | None = None
    try:
        overview = read_overview(store, plan)
        if overview is not None:
            counts = count_in_overview(overview, plan, tiles.windows())
        else:
            counts = count_in_windows(store, plan, tiles.sample_windows(_SAMPLED_TILES))
    except StoreUnavailableError:
        raise
    except DataError as error:
        return _not_judged(f"the raster cannot be compared: {error}", overview)
    if not counts.expected:
        return _not_judged("the raster has no valid pixel that should be embedded", overview)
    sampled = counts.sampled_tiles
    note = "" if sampled is None else f"of {counted(sampled, 'tile')}, as the raster has no small overview"
    return CoverageMeasures(Measurement("coverage", counts.covered / counts.expected, note=note), overview)


def _not_judged(reason: str, overview: Overview | None = None) -> CoverageMeasures:
    (measurement,) = not_judged(["coverage"], reason)
    return CoverageMeasures(measurement, overview)


def read_overview(store: ObjectStore, plan: Plan) -> Overview | None:
    """Read the raster's overview.

    Args:
        store: store with the credentials for a raster on S3.
        plan: the dataset's plan.

    Returns:
        The overview, or None if the raster is warped, or if too many pixels would have to be decoded.

    Raises:
        DataError: if the raster is missing, was changed after it was embedded, or cannot be read.
    """
    profile, sharding = plan.profile, plan.sharding
    if profile.warp is not None:
        return None  # Warped pixels are computed one by one, so a small overview would need all of them.
    if profile.width * profile.height / max(profile.overviews, default=1) ** 2 > _DECODED_PIXELS:
        return None
    step, longest = sharding.grid.step, max(profile.width, profile.height)
    side = max(_MIN_SIDE, math.ceil(_PIXELS_PER_TILE * longest / step))
    if side > _MAX_SIDE:
        return None
    shrink = max(1.0, longest / side)
    shape = (max(1, round(profile.height / shrink)), max(1, round(profile.width / shrink)))
    # GDAL reads this shape from a larger overview in the file, or from all pixels. Return None if this takes too long.
    if profile.decoded_pixels(*shape) > max(_DECODED_PIXELS, _DECODED_PER_PIXEL * shape[0] * shape[1]):
        return None
    with _open_unchanged(store, plan) as raster:
        pixels, valid = raster.read(plan.radiometry.distinct_bands, Window(0, 0, profile.width, profile.height), shape)
    channels = plan.radiometry.channels(pixels, plan.profile)
    of_valid = channels[:, valid]
    return Overview(
        _grey(plan, channels),
        valid,
        one_value=of_valid.shape[1] > 1 and bool((of_valid == of_valid[:, :1]).all()),
        clipped_share=plan.radiometry.clipped_share(of_valid),
    )


@contextmanager
def _open_unchanged(store: ObjectStore, plan: Plan) -> Iterator[Pixels]:
    """Open the raster if it has not changed since it was embedded."""
    check_unchanged(store, plan)
    try:
        with open_pixels(store, plan.source.uri, plan.profile) as raster:
            yield raster
    except RasterioError as error:
        raise DataError(f"{plan.source.uri}: it cannot be read: {one_line(error.__cause__ or error)}") from error


def _grey(plan: Plan, channels: NDArray[np.generic]) -> NDArray[np.uint8]:
    grey = plan.radiometry.scaled(channels)[: len(channels)].mean(axis=0)
    return np.asarray(255 * np.nan_to_num(grey), dtype=np.uint8)


def count_in_overview(overview: Overview, plan: Plan, windows: Iterable[pa.RecordBatch]) -> PixelCounts:
    """Compare the union of the embedded windows with the valid pixels of an overview.

    Args:
        overview: the raster's overview.
        plan: the dataset's plan.
        windows: all planned tiles, from `rasterembed.qa.checked_tiles.CheckedTiles.windows`.
    """
    rows, cols = overview.valid.shape
    profile = plan.profile
    # This is a summed area table. Its values at a rectangle's four corners give the number of valid pixels inside.
    sums = np.zeros((rows + 1, cols + 1), dtype=np.int64)
    sums[1:, 1:] = overview.valid.cumsum(axis=0, dtype=np.int64).cumsum(axis=1)
    margin = _MARGIN if max(profile.width, profile.height) > max(rows, cols) else 0.0
    min_fraction = min(plan.selection.min_valid_fraction + margin, 1.0)
    expected = _Union(overview.valid.shape)
    covered = _Union(overview.valid.shape)
    for batch in windows:
        left, top, width, height = (view_of(batch.column(name)) for name in _WINDOW)
        # Windows of a grid that is anchored to the CRS may reach beyond the raster. Their pixels outside are invalid.
        # The common edge of two tiles is rounded to the same pixel for both tiles, so no gap is between the tiles.
        x0, x1 = (np.rint(x * cols / profile.width).astype(np.intp) for x in (left, left + width))
        y0, y1 = (np.rint(y * rows / profile.height).astype(np.intp) for y in (top, top + height))
        area = np.maximum((x1 - x0) * (y1 - y0), 1)
        (x0, x1), (y0, y1) = np.clip((x0, x1), 0, cols), np.clip((y0, y1), 0, rows)
        valid = sums[y1, x1] - sums[y0, x1] - sums[y1, x0] + sums[y0, x0]
        fraction = valid / area
        expected.add(y0, y1, x0, x1, (valid > 0) & (fraction >= min_fraction) & _embeddable(batch))
        covered.add(y0, y1, x0, x1, booleans_of(batch.column("has_vector")))
    expected_pixels = expected.mask() & overview.valid
    return PixelCounts(int(expected_pixels.sum()), int((expected_pixels & covered.mask()).sum()))


def count_in_windows(store: ObjectStore, plan: Plan, windows: Iterable[pa.RecordBatch]) -> PixelCounts:
    """Read the windows of some tiles, and count their valid pixels.

    Args:
        store: store with the credentials for a raster on S3.
        plan: the dataset's plan.
        windows: some planned tiles, from `rasterembed.qa.checked_tiles.CheckedTiles.sample_windows`.

    Raises:
        DataError: if the raster is missing, was changed after it was embedded, or cannot be read.
    """
    expected = covered = tiles = 0
    with _open_unchanged(store, plan) as raster:
        for batch in windows:
            for i in np.flatnonzero(_embeddable(batch)):
                window = Window(*(int(batch.column(name)[i].as_py()) for name in _WINDOW))
                _, valid = raster.read(plan.radiometry.distinct_bands, window)
                count = int(valid.sum())
                tiles += 1
                # Compare in float32, because the shard reader does so.
                if count and np.float32(count / valid.size) >= plan.selection.min_valid_fraction:
                    expected += count
                    covered += count if batch.column("has_vector")[i].as_py() else 0
    return PixelCounts(expected, covered, tiles)


def _embeddable(batch: pa.RecordBatch) -> NDArray[np.bool_]:
    """Return booleans, shape (n,): False for tiles that need no vector, because they are undecodable or off Earth."""
    reasons = values_of(batch.column("reason"))
    return np.asarray((reasons != SkipReason.UNDECODABLE.value) & (reasons != SkipReason.OFF_EARTH.value))


class _Union:
    """The union of rectangles on a grid of pixels. The memory does not grow with the number of rectangles.

    Each rectangle adds 1 or -1 at its corners. The cumulative sum over both axes then gives, for every pixel, the
    number of rectangles that contain the pixel.
    """

    def __init__(self, shape: tuple[int, int]) -> None:
        self._steps = np.zeros((shape[0] + 1, shape[1] + 1), dtype=np.int32)

    def add(
        self,
        y0: NDArray[np.intp],
        y1: NDArray[np.intp],
        x0: NDArray[np.intp],
        x1: NDArray[np.intp],
        which: NDArray[np.bool_],
    ) -> None:
        """Add the rectangles for which `which` is True. All arrays have shape (n,). Ends are exclusive."""
        for y, x, step in ((y0, x0, 1), (y0, x1, -1), (y1, x0, -1), (y1, x1, 1)):
            np.add.at(self._steps, (y[which], x[which]), step)

    def mask(self) -> NDArray[np.bool_]:
        """Return booleans, shape (rows, columns): True where the pixel is in at least one rectangle."""
        return self._steps.cumsum(axis=0).cumsum(axis=1)[:-1, :-1] > 0
