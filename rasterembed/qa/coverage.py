"""How much of the raster's valid pixels is in embedded tiles, judged from the raster itself and not from the run."""

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

from rasterembed.dataset.plan import Plan
from rasterembed.errors import DataError, one_line
from rasterembed.raster.pixels import Pixels, open_pixels
from rasterembed.raster.skip_reason import SkipReason
from rasterembed.raster.source import check_unchanged
from rasterembed.store.object_store import ObjectStore

FEW_WINDOWS = 32
"""Tiles that are looked at where the raster has no overview small enough to be read whole."""

_LEAST_SIDE, _MOST_SIDE = 1024, 4096
"""Longer side of the overview, px; more than the least where tiles are small."""

_PIXELS_A_TILE = 2
"""Pixels of the overview along a tile, at least."""

_DECODED_PIXELS = 2**24
"""Pixels of the largest overview that is decoded."""

_MARGIN = 0.1
"""How far a tile's valid fraction in a decimated overview must lie above the minimum to expect a vector of it."""


@dataclass(frozen=True)
class Overview:
    """The raster, decimated."""

    grey: NDArray[np.uint8]
    """Brightness as the model sees it, shape (rows, columns)."""
    valid: NDArray[np.bool_]
    """Valid pixels, of the same shape."""


@dataclass(frozen=True)
class Coverage:
    """Valid pixels in tiles that should have a vector, and how many of them are in tiles that have one."""

    expected: int
    covered: int
    tiles: int | None = None
    """Tiles looked at, if not all."""

    @property
    def share(self) -> float | None:
        """Covered over expected; None where nothing is expected."""
        return self.covered / self.expected if self.expected else None


def read_overview(store: ObjectStore, plan: Plan) -> Overview | None:
    """The raster's overview; None if it would take too much to decode.

    Raises:
        DataError: if the raster is gone, was changed since it was embedded, or cannot be read.
    """
    profile, sharding = plan.profile, plan.sharding
    if profile.width * profile.height / max(profile.overviews, default=1) ** 2 > _DECODED_PIXELS:
        return None
    step, longest = sharding.grid.step, max(profile.width, profile.height)
    side = max(_LEAST_SIDE, math.ceil(_PIXELS_A_TILE * longest / step))
    if side > _MOST_SIDE:
        return None
    shrink = max(1.0, longest / side)
    shape = (max(1, round(profile.height / shrink)), max(1, round(profile.width / shrink)))
    with _open(store, plan) as raster:
        pixels, valid = raster.read(plan.radiometry.distinct_bands, Window(0, 0, profile.width, profile.height), shape)
    return Overview(_grey(plan, pixels), valid)


@contextmanager
def _open(store: ObjectStore, plan: Plan) -> Iterator[Pixels]:
    uri = plan.source.uri
    check_unchanged(store, plan.source, mask_file=plan.profile.mask_file)
    try:
        with open_pixels(store, uri, plan.profile) as raster:
            yield raster
    except RasterioError as error:
        raise DataError(f"{uri}: it cannot be read: {one_line(error.__cause__ or error)}") from error


def _grey(plan: Plan, pixels: NDArray[np.generic]) -> NDArray[np.uint8]:
    pixels = plan.radiometry.channels(pixels, plan.profile)
    grey = plan.radiometry.scaled(pixels)[: len(pixels)].mean(axis=0)
    return np.asarray(255 * np.nan_to_num(grey), dtype=np.uint8)


def measure_overview(overview: Overview, plan: Plan, windows: Iterable[pa.RecordBatch]) -> Coverage:
    """Compare the union of the embedded windows with the valid pixels of an overview.

    Args:
        overview: the raster's overview.
        plan: what the dataset was made by.
        windows: all planned tiles, see `rasterembed.qa.tile_table.TileTable.windows`.
    """
    rows, cols = overview.valid.shape
    profile = plan.profile
    sums = np.zeros((rows + 1, cols + 1), dtype=np.int64)
    sums[1:, 1:] = overview.valid.cumsum(axis=0, dtype=np.int64).cumsum(axis=1)
    margin = _MARGIN if max(profile.width, profile.height) > max(rows, cols) else 0.0
    expected = _Union(overview.valid.shape)
    covered = _Union(overview.valid.shape)
    for batch in windows:
        left, top, width, height = (batch.column(name).to_numpy() for name in _WINDOW)
        # the edges of neighbours fall on the same pixel, so that there is no gap between them
        x0, x1 = (np.rint(x * cols / profile.width).astype(np.intp) for x in (left, left + width))
        y0, y1 = (np.rint(y * rows / profile.height).astype(np.intp) for y in (top, top + height))
        valid = sums[y1, x1] - sums[y0, x1] - sums[y1, x0] + sums[y0, x0]
        fraction = valid / np.maximum((x1 - x0) * (y1 - y0), 1)
        least = min(plan.selection.min_valid_fraction + margin, 1.0)
        wanted = (valid > 0) & (fraction >= least) & _decodable(batch)
        there = batch.column("there").to_numpy(zero_copy_only=False)
        expected.add(y0, y1, x0, x1, wanted)
        covered.add(y0, y1, x0, x1, there)
    should = expected.mask() & overview.valid
    return Coverage(int(should.sum()), int((should & covered.mask()).sum()))


def measure_windows(store: ObjectStore, plan: Plan, windows: Iterable[pa.RecordBatch]) -> Coverage:
    """Read some tiles' windows, and compare what is valid in them with whether they are embedded.

    Raises:
        DataError: if the raster is gone, was changed since it was embedded, or cannot be read.
    """
    expected = covered = tiles = 0
    with _open(store, plan) as raster:
        for batch in windows:
            decodable = _decodable(batch)
            for i in np.flatnonzero(decodable):
                window = Window(*(int(batch.column(name)[i].as_py()) for name in _WINDOW))
                _, valid = raster.read(plan.radiometry.distinct_bands, window)
                count = int(valid.sum())
                tiles += 1
                if count and np.float32(count / valid.size) >= plan.selection.min_valid_fraction:
                    expected += count
                    covered += count if batch.column("there")[i].as_py() else 0
    return Coverage(expected, covered, tiles)


_WINDOW = ("col_off", "row_off", "width", "height")


def _decodable(batch: pa.RecordBatch) -> NDArray[np.bool_]:
    reasons = batch.column("reason").to_numpy(zero_copy_only=False)
    return np.asarray(reasons != SkipReason.UNDECODABLE)


class _Union:
    """The union of rectangles on a grid of pixels, in memory that does not grow with their number."""

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
        """Add rectangles, ends exclusive, where `which` is true; all of shape (n,)."""
        for y, x, step in ((y0, x0, 1), (y0, x1, -1), (y1, x0, -1), (y1, x1, 1)):
            np.add.at(self._steps, (y[which], x[which]), step)

    def mask(self) -> NDArray[np.bool_]:
        """Pixels in at least one rectangle."""
        return self._steps.cumsum(axis=0).cumsum(axis=1)[:-1, :-1] > 0
