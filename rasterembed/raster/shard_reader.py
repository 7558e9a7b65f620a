"""Read the tiles of a shard from the raster, in batches for the model.

No tile files are written. Windows are read in the order of the file's blocks, so a shard decodes each block only once:

1. Tiles that lie side by side are read as one window (a *run*), as wide as `MAX_RUN_BYTES` allows.
2. Each tile is cut out of its run and copied into the next free place of the current batch.
3. A tile with too few valid pixels is skipped. The next tile gets its place, and the batch lists the skipped tile.

A tile off Earth is skipped before its pixels are read.
"""

from __future__ import annotations

import math
import time
from collections.abc import Generator, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from rasterio.errors import RasterioError
from rasterio.windows import Window

from rasterembed.errors import DataError, one_line
from rasterembed.raster.footprints import Footprinter
from rasterembed.raster.grid import Tiles
from rasterembed.raster.pixels import Pixels, open_pixels
from rasterembed.raster.profile import RasterProfile
from rasterembed.raster.sharding import Sharding
from rasterembed.raster.skip_reason import OnBadWindow, SkipReason
from rasterembed.raster.source import Source
from rasterembed.raster.tile_batch import BatchBuilder, SkippedTile, TileBatch, TileWindow
from rasterembed.raster.warped_places import WarpedPlaces
from rasterembed.store.gdal import MAX_READ_BYTES
from rasterembed.store.object_store import ObjectStore

MAX_RUN_BYTES = MAX_READ_BYTES
"""Largest size of the pixels that are read in one call, in bytes."""

RETRY_DELAYS_S = (0.5, 2.0)
"""Seconds to wait before each retry of a failed read from S3."""


@dataclass(frozen=True)
class ShardReader:
    """Reads the tiles of a raster, shard by shard."""

    store: ObjectStore
    source: Source
    profile: RasterProfile
    sharding: Sharding
    bands: tuple[int, ...]
    """Bands to read, from 1: one band if red, green and blue are the same, else three."""
    palette: NDArray[np.uint8] | None
    """Colour of each index, shape (n, 3), if the band holds indexes into a palette; else None."""
    batch_size: int
    """Number of tiles in a batch. The last batch may have fewer."""
    min_valid_fraction: float
    """Tiles with a lower valid fraction are skipped. A tile without any valid pixel is always skipped."""
    on_bad_window: OnBadWindow
    """Whether a window that cannot be decoded fails the shard or skips its tile."""
    cache_bytes: int
    """Size in bytes of GDAL's block cache, which the whole process shares. See `block_cache_bytes`."""

    @property
    def remote(self) -> bool:
        """Whether a read waits for a server, because the raster or the mask that a person gave is on S3."""
        mask = self.profile.valid_mask
        return self.source.remote or (mask is not None and mask.source.remote)

    def batches(self, number: int) -> Generator[TileBatch]:
        """Yield the tiles of shard `number` in batches, in tile order.

        Every planned tile is in exactly one batch, as a tile or as a skipped tile. One thread must run the whole
        iteration, because GDAL's settings belong to the thread that opened the raster.

        Raises:
            DataError: if a window cannot be decoded and `on_bad_window` is "fail".
            RasterChangedError: if the raster was changed since it was registered.
            StoreUnavailableError: if the store does not answer.
        """
        self._check_unchanged()
        tiles = self.sharding.tiles(number)
        with ExitStack() as stack:
            raster = _ReopeningRaster(self, stack)
            batch = self._batch_builder(raster)
            off_earth = Footprinter.of_grid(self.profile, self.sharding).off_earth(tiles)
            for run in _runs(tiles, *self._run_shape(number)):
                for tile in self._read_on_earth(raster, tiles, run, off_earth):
                    if isinstance(tile, SkippedTile):
                        batch.skip(tile)
                        continue
                    fraction = batch.stage(tile)
                    if fraction == 0:
                        batch.skip(SkippedTile(tile.position, SkipReason.NO_VALID_PIXEL))
                    elif fraction < self.min_valid_fraction:
                        batch.skip(SkippedTile(tile.position, SkipReason.LOW_VALID_FRACTION))
                    else:
                        batch.accept(tile.position, fraction)
                        if batch.full:
                            yield batch.finish()
            if not batch.empty:
                yield batch.finish()
        # Check again. If the raster was changed during the reading, the shard may hold pixels from before and after.
        self._check_unchanged()

    def _check_unchanged(self) -> None:
        self.profile.check_unchanged(self.store, self.source)

    def _batch_builder(self, raster: _ReopeningRaster) -> BatchBuilder:
        return BatchBuilder(
            capacity=self.batch_size,
            channels=3 if self.palette is not None else len(self.bands),
            size=self.sharding.grid.size,
            dtype=np.dtype(np.uint8 if self.palette is not None else self.profile.dtype),
            palette=self.palette,
            find_valid=raster.find_valid,
        )

    def _run_shape(self, number: int) -> tuple[int, int]:
        """Return the largest numbers of grid rows and of tiles side by side that one read may cover."""
        grid = self.sharding.grid
        if grid.step >= 2 * grid.size:
            return 1, 1  # A wider window would consist mostly of the gaps between tiles.
        itemsize = np.dtype(self.profile.dtype).itemsize
        most = max(1, MAX_RUN_BYTES // (len(self.bands) * itemsize * grid.size * grid.step))
        _, (left, right) = self.sharding.block(number)
        columns = right - left
        if not self.remote or most < columns:
            # Read one row, or a part of it. Reading several rows at once is faster only if each read waits for a
            # server. From a local file, one row is faster, because its pixels are still in the processor's cache when
            # the tiles are cut out.
            return 1, most
        return most // columns, columns

    def _read_on_earth(
        self, raster: _ReopeningRaster, tiles: Tiles, run: slice, off_earth: NDArray[np.bool_]
    ) -> Iterator[TileWindow | SkippedTile]:
        """Read the tiles of a run that are on Earth, and skip those off Earth.

        Args:
            raster: the open raster.
            tiles: the shard's tiles.
            run: positions of the run's tiles in the shard's tile order.
            off_earth: whether each of the shard's tiles is off Earth.
        """
        if not off_earth[run].any():
            yield from self._read_run(raster, tiles, run)
            return
        # Cut the run where the row changes, or where tiles change between on Earth and off Earth.
        changes = (np.diff(off_earth[run]) != 0) | (np.diff(tiles.row[run]) != 0)
        borders = [run.start, *(run.start + 1 + np.flatnonzero(changes)), run.stop]
        for start, stop in pairwise(map(int, borders)):
            if off_earth[start]:
                yield from (SkippedTile(position, SkipReason.OFF_EARTH) for position in range(start, stop))
            else:
                yield from self._read_run(raster, tiles, slice(start, stop))

    def _read_run(self, raster: _ReopeningRaster, tiles: Tiles, run: slice) -> Iterator[TileWindow | SkippedTile]:
        """Read the tiles of a run in one call and cut them apart."""
        part = tiles.take(np.arange(run.start, run.stop))
        left, top = int(part.col_off[0]), int(part.row_off[0])
        right, bottom = int(part.col_off[-1] + part.width[-1]), int(part.row_off[-1] + part.height[-1])
        try:
            pixels, mask = raster.read(Window(left, top, right - left, bottom - top))
        except RasterioError:
            yield from self._read_one_by_one(raster, part, run.start)
            return
        for i in range(len(part)):
            x, y = int(part.col_off[i]) - left, int(part.row_off[i]) - top
            rows, columns = slice(y, y + int(part.height[i])), slice(x, x + int(part.width[i]))
            yield TileWindow(run.start + i, pixels[:, rows, columns], None if mask is None else mask[rows, columns])

    def _read_one_by_one(self, raster: _ReopeningRaster, part: Tiles, first: int) -> Iterator[TileWindow | SkippedTile]:
        """Read each tile of a failed run in a separate call, to find the tiles that cannot be decoded.

        Args:
            raster: the open raster.
            part: the tiles of the run.
            first: position of the run's first tile in the shard's tile order.
        """
        for i in range(len(part)):
            window = Window(int(part.col_off[i]), int(part.row_off[i]), int(part.width[i]), int(part.height[i]))
            try:
                pixels, mask = raster.read(window)
            except RasterioError as error:
                # Raise an error if the store does not answer or the raster was changed. Then the tile may be intact, so
                # it must not be skipped.
                self._check_unchanged()
                if self.on_bad_window == "fail":
                    raise self._bad_window(part.id(i), window, error) from error
                yield SkippedTile(first + i, SkipReason.UNDECODABLE)
            else:
                yield TileWindow(first + i, pixels, mask)

    def _bad_window(self, name: str, window: Window, error: RasterioError) -> DataError:
        cause = one_line(error.__cause__ or error)
        return DataError(
            f"{self.source.uri}: tile {name} (window col_off={window.col_off} row_off={window.row_off} "
            f"width={window.width} height={window.height}) cannot be read: {cause}; "
            "mend the file, or skip such tiles with `on_bad_window=skip`"
        )


class _ReopeningRaster:
    """An open raster that is opened again when a read fails.

    GDAL may keep wrong pixels of a damaged block in its cache, and then gives them without an error.
    """

    def __init__(self, reader: ShardReader, stack: ExitStack) -> None:
        self._reader = reader
        self._stack = stack
        self._pixels = self._open()
        self._failure: RasterioError | None = None
        self._buffer: NDArray[np.generic] = np.empty(0, self._pixels.dtype)

    def _open(self) -> Pixels:
        reader = self._reader
        return self._stack.enter_context(
            open_pixels(reader.store, reader.source.uri, reader.profile, cache_bytes=reader.cache_bytes)
        )

    def read(self, window: Window) -> tuple[NDArray[np.generic], NDArray[np.bool_] | None]:
        """Return pixels and mask of a window, as `Pixels.read_into` does. The next read overwrites these pixels.

        Raises:
            RasterioError: if the window cannot be read. For a raster on S3, all retries have then failed.
        """
        if self._failure is not None:
            if self._reader.profile.driver == "JPEG":
                # A JPEG file is decoded from its top, and all pixels behind the damage are wrong. Opening it again for
                # each window would decode it as often, for nothing.
                raise self._failure
            self._open_again()
            self._failure = None
        for delay in RETRY_DELAYS_S if self._reader.remote else ():
            try:
                return self._read(window)
            except RasterioError:
                time.sleep(delay)
                self._open_again()
        try:
            return self._read(window)
        except RasterioError as error:
            self._failure = error
            raise

    def _open_again(self) -> None:
        self._stack.close()
        self._pixels = self._open()

    def _read(self, window: Window) -> tuple[NDArray[np.generic], NDArray[np.bool_] | None]:
        bands = self._reader.bands
        shape = (self._pixels.buffer_bands(bands), int(window.height), int(window.width))
        length = math.prod(shape)
        if len(self._buffer) < length:
            # Keep this buffer for all later reads of the shard that fit in it. New memory for each read would cause
            # page faults, which take longer than a fast read.
            self._buffer = np.empty(length, self._pixels.dtype)
        return self._pixels.read_into(self._buffer[:length].reshape(shape), bands, window)

    def find_valid(self, pixels: NDArray[np.generic], mask: NDArray[np.bool_] | None, out: NDArray[np.bool_]) -> int:
        """Write into `out` which pixels are valid, and return the number of valid pixels. See `Pixels.find_valid`."""
        return self._pixels.find_valid(self._reader.bands, pixels, mask, out)


def _runs(tiles: Tiles, rows: int, columns: int) -> Iterator[slice]:
    """Cut a shard's tiles into runs. Each run is read in one call.

    Args:
        tiles: the shard's tiles, row by row.
        rows: largest number of grid rows in a run. It may be above 1 only if `columns` is the shard's full width.
        columns: largest number of tiles side by side in a run.

    Yields:
        The positions of each run in tile order.
    """
    starts = [*np.flatnonzero(np.diff(tiles.row, prepend=-1)), len(tiles)]
    for i in range(0, len(starts) - 1, rows):
        start, stop = int(starts[i]), int(starts[min(i + rows, len(starts) - 1)])
        for first in range(start, stop, rows * columns):
            yield slice(first, min(first + rows * columns, stop))


def block_cache_bytes(source: Source, profile: RasterProfile, sharding: Sharding, threads: int) -> int:
    """Return the size in bytes that GDAL's block cache needs, so that every thread decodes each block only once.

    A row of tiles covers several rows of blocks. The next row of tiles needs the last of these rows of blocks again.
    For each thread, the cache must therefore hold all blocks that one row of tiles covers, across the whole shard.

    A pixel-interleaved block is decoded with all its bands. If bands are stored in separate blocks, at most four bands
    are read: red, green, blue and alpha. A read from S3 decodes all its blocks of one band before those of the next
    band. The size of one read is therefore added.

    Args:
        source: the raster.
        profile: the raster's header.
        sharding: the division of the raster's tiles into shards.
        threads: number of threads that read shards at the same time.
    """
    grid = sharding.grid
    row = (grid.size, sharding.shard_cols * grid.step + grid.size)
    if profile.warp is not None:
        row = WarpedPlaces(profile, profile.warp).extent(*row)
    raster = profile.original
    needed = sum(
        _cached_bytes(header, row, remote=file.remote)
        for file, header in zip(source.files, [a.profile for a in raster.assets] or [raster], strict=True)
    )
    # GDAL also keeps the pixels of a file that is resampled, once for the values and once for the validity.
    resampled = sum(2 * len(asset.bands) for asset in raster.assets if asset.is_coarser_than(raster))
    if resampled:
        needed += _cached_bytes(raster.model_copy(update={"count": resampled}), row, remote=False)
    mask = raster.valid_mask
    if mask is not None:
        columns = min(raster.width, row[1] + mask.block_width)
        needed += columns * (row[0] + 2 * mask.block_height) * np.dtype(mask.dtype).itemsize
    return int(min(max(needed * threads, 16 * 2**20), 2**30))


def _cached_bytes(profile: RasterProfile, row: tuple[int, int], *, remote: bool) -> int:
    """Return the size in bytes of the blocks of one file that one row of tiles covers. See `block_cache_bytes`.

    Args:
        profile: header of the file.
        row: height and width of the part of the raster that a row of tiles shows, px.
        remote: whether the file is on S3.
    """
    columns = min(profile.width, row[1] + profile.block_width)
    rows = row[0] + 2 * profile.block_height
    apart = profile.interleave != "pixel"
    bands = 4 if apart else profile.count
    needed = columns * rows * bands * np.dtype(profile.dtype).itemsize
    return int(needed + (MAX_RUN_BYTES if apart and remote else 0))
