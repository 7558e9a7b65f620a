"""Read the tiles of a shard from the raster, in batches for the model.

No tile files are written. Windows are read in the order of the file's blocks, and every block is decoded once a shard:

1. Tiles that lie side by side are read as one window (a *run*), as wide as `MAX_READ_BYTES` allows.
2. Each tile is cut out of its run and copied into the next free place of the current batch.
3. A tile with too few valid pixels is skipped: its place is used again, and its reason travels with the batch.
"""

from __future__ import annotations

import math
import mmap
import time
import weakref
from collections.abc import Generator, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from rasterio.errors import RasterioError
from rasterio.windows import Window

from rasterembed.errors import DataError, one_line
from rasterembed.raster.grid import Tiles, tile_id
from rasterembed.raster.pixels import Pixels, open_pixels
from rasterembed.raster.profile import RasterProfile
from rasterembed.raster.radiometry import expand_palette
from rasterembed.raster.sharding import Sharding
from rasterembed.raster.skip_reason import SkipReason
from rasterembed.raster.source import Source, check_unchanged
from rasterembed.store.gdal import MAX_READ_BYTES
from rasterembed.store.object_store import ObjectStore

MAX_RUN_BYTES = MAX_READ_BYTES
"""Largest number of bytes of pixels read in one call."""

RETRY_DELAYS_S = (0.5, 2.0)
"""Seconds to wait before each new attempt at a read from S3 that failed."""

OnBadWindow = Literal["fail", "skip"]
"""What to do about a window that cannot be decoded: fail the shard, or skip its tile."""


@dataclass(frozen=True)
class SkippedTile:
    """A planned tile that is not embedded."""

    position: int
    """Place of the tile in the shard's tile order, from 0."""
    reason: SkipReason


@dataclass(frozen=True)
class TileBatch:
    """Tiles of a shard, ready for the model, and the tiles skipped since the batch before.

    A batch owns its arrays for as long as anything refers to them. Then their memory serves another batch.
    """

    positions: NDArray[np.intp]
    """Place of each tile in the shard's tile order, ascending, shape (n,). The last batch may hold no tile."""
    pixels: NDArray[np.generic]
    """Source values, shape (n, channels, size, size), zero outside the window. There is one channel if red, green and
    blue are the same band, else three."""
    valid: NDArray[np.bool_]
    """Whether each pixel is valid, shape (n, size, size), false outside the window."""
    valid_fraction: NDArray[np.float32]
    """Number of valid pixels divided by the number of pixels in the exact window, shape (n,)."""
    skipped: tuple[SkippedTile, ...]
    """Tiles skipped since the batch before, in tile order."""


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
    """Colour of each index, shape (n, 3), if the band is an index into a palette; else None."""
    batch_size: int
    """Number of tiles in a batch. The last batch may have fewer."""
    min_valid_fraction: float
    """Tiles with a lower valid fraction are skipped. A tile without any valid pixel is always skipped."""
    on_bad_window: OnBadWindow
    """Whether a window that cannot be decoded fails the shard or skips its tile."""
    cache_bytes: int
    """Size of GDAL's block cache, which the whole process shares, in bytes. See `block_cache_bytes`."""

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
            batch = _BatchBuilder(self)
            for run in _runs(tiles, *self._run_shape(number)):
                for window in self._read_run(raster, tiles, run):
                    if isinstance(window, SkippedTile):
                        batch.skip(window)
                        continue
                    fraction = batch.stage(raster, window)
                    if fraction == 0:
                        batch.skip(SkippedTile(window.position, SkipReason.NO_VALID_PIXEL))
                    elif fraction < self.min_valid_fraction:
                        batch.skip(SkippedTile(window.position, SkipReason.LOW_VALID_FRACTION))
                    else:
                        batch.accept(window.position, fraction)
                        if batch.full:
                            yield batch.finish()
            if not batch.empty:
                yield batch.finish()
        # If the raster was changed meanwhile, the shard may hold pixels of both states.
        self._check_unchanged()

    def _check_unchanged(self) -> None:
        check_unchanged(self.store, self.source, mask_file=self.profile.mask_file)

    def _run_shape(self, number: int) -> tuple[int, int]:
        """Return how many rows of tiles, and how many tiles side by side, one read may cover."""
        grid = self.sharding.grid
        if grid.step >= 2 * grid.size:
            return 1, 1  # A wider window would consist mostly of the gaps between tiles.
        itemsize = np.dtype(self.profile.dtype).itemsize
        most = max(1, MAX_RUN_BYTES // (len(self.bands) * itemsize * grid.size * grid.step))
        _, (left, right) = self.sharding.block(number)
        columns = right - left
        if not self.source.remote or most < columns:
            # Several rows in one read pay only where a read waits for a server. From a local file one row is better:
            # its pixels are still in the processor's cache when the tiles are cut out.
            return 1, most
        return most // columns, columns

    def _read_run(self, raster: _ReopeningRaster, tiles: Tiles, run: slice) -> Iterator[_TileWindow | SkippedTile]:
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
            yield _TileWindow(run.start + i, pixels[:, rows, columns], None if mask is None else mask[rows, columns])

    def _read_one_by_one(
        self, raster: _ReopeningRaster, part: Tiles, first: int
    ) -> Iterator[_TileWindow | SkippedTile]:
        """Read each tile of a failed run by itself, to tell the tiles that cannot be decoded from the others.

        Args:
            raster: the open raster.
            part: the tiles of the run.
            first: position of the first of them in the shard's tile order.
        """
        for i in range(len(part)):
            window = Window(int(part.col_off[i]), int(part.row_off[i]), int(part.width[i]), int(part.height[i]))
            try:
                pixels, mask = raster.read(window)
            except RasterioError as error:
                # If the store has gone away or the raster was replaced, this raises: such a tile is not skipped.
                self._check_unchanged()
                if self.on_bad_window == "fail":
                    raise self._bad_window(tile_id(int(part.row[i]), int(part.col[i])), window, error) from error
                yield SkippedTile(first + i, SkipReason.UNDECODABLE)
            else:
                yield _TileWindow(first + i, pixels, mask)

    def _bad_window(self, name: str, window: Window, error: RasterioError) -> DataError:
        cause = one_line(error.__cause__ or error)
        return DataError(
            f"{self.source.uri}: tile {name} (window col_off={window.col_off} row_off={window.row_off} "
            f"width={window.width} height={window.height}) cannot be read: {cause}; "
            "mend the file, or skip such tiles with on_bad_window=skip"
        )


@dataclass(frozen=True)
class _TileWindow:
    """Pixels of one tile's window. They are good until the next read, which uses the same memory."""

    position: int
    """Place of the tile in the shard's tile order."""
    pixels: NDArray[np.generic]
    """Source values, shape (bands, rows, columns)."""
    mask: NDArray[np.bool_] | None
    """False where a mask or the alpha band hides a pixel, shape (rows, columns); see `Pixels.read_into`."""


class _ReopeningRaster:
    """An open raster that is opened again when a read from S3 fails."""

    def __init__(self, reader: ShardReader, stack: ExitStack) -> None:
        self._reader = reader
        self._stack = stack
        self._pixels = self._open()
        self._buffer: NDArray[np.generic] = np.empty(0, self._pixels.dtype)

    def _open(self) -> Pixels:
        reader = self._reader
        return self._stack.enter_context(
            open_pixels(reader.store, reader.source.uri, reader.profile, cache_bytes=reader.cache_bytes)
        )

    def read(self, window: Window) -> tuple[NDArray[np.generic], NDArray[np.bool_] | None]:
        """Return pixels and mask of a window, as `Pixels.read_into` does. They are good until the next read.

        Raises:
            RasterioError: if the window cannot be read; from S3, after every attempt has failed.
        """
        for delay in RETRY_DELAYS_S if self._reader.source.remote else ():
            try:
                return self._read(window)
            except RasterioError:
                time.sleep(delay)
                self._stack.close()
                self._pixels = self._open()
        return self._read(window)

    def _read(self, window: Window) -> tuple[NDArray[np.generic], NDArray[np.bool_] | None]:
        bands = self._reader.bands
        shape = (self._pixels.buffer_bands(bands), int(window.height), int(window.width))
        length = math.prod(shape)
        if len(self._buffer) < length:
            # One buffer serves the whole shard: the page faults of new memory would take longer than a fast read.
            self._buffer = np.empty(length, self._pixels.dtype)
        return self._pixels.read_into(self._buffer[:length].reshape(shape), bands, window)

    def find_valid(self, pixels: NDArray[np.generic], mask: NDArray[np.bool_] | None, valid: NDArray[np.bool_]) -> int:
        """Write which pixels are valid into `valid`, and return how many are. See `Pixels.find_valid`."""
        return self._pixels.find_valid(self._reader.bands, pixels, mask, valid)


class _BatchBuilder:
    """Collects tiles until they make a batch.

    A tile is first staged: copied into the next free place. Then it is either accepted, or the next staged tile
    overwrites it.
    """

    def __init__(self, reader: ShardReader) -> None:
        size = reader.sharding.grid.size
        channels = 3 if reader.palette is not None else len(reader.bands)
        self._capacity = reader.batch_size
        self._shape = (self._capacity, channels, size, size)
        self._dtype = np.dtype(np.uint8 if reader.palette is not None else reader.profile.dtype)
        self._pool = _MemoryPool(math.prod(self._shape) * self._dtype.itemsize + self._capacity * size * size)
        self._palette = reader.palette
        self._has_memory = False
        self._positions: list[int] = []
        self._fractions: list[np.float32] = []
        self._skipped: list[SkippedTile] = []

    @property
    def empty(self) -> bool:
        """Whether there is neither a tile nor a skipped tile."""
        return not self._positions and not self._skipped

    @property
    def full(self) -> bool:
        """Whether the batch has as many tiles as it can hold."""
        return len(self._positions) == self._capacity

    def stage(self, raster: _ReopeningRaster, window: _TileWindow) -> np.float32:
        """Copy a tile into the next free place of the batch, and return its valid fraction."""
        self._ensure_memory()
        place, (height, width) = len(self._positions), window.pixels.shape[1:]
        if (height, width) != self._shape[2:]:
            self._pixels[place] = 0
            self._valid[place] = False
        valid = self._valid[place, :height, :width]
        tile = self._pixels[place, :, :height, :width]
        pixels = window.pixels
        if self._palette is None:
            tile[:] = pixels
            pixels = tile  # The copy is in the processor's cache now, the original may not be.
        else:
            tile[:] = expand_palette(pixels, self._palette)
        return np.float32(raster.find_valid(pixels, window.mask, valid) / valid.size)

    def accept(self, position: int, fraction: np.float32) -> None:
        """Make the staged tile a part of the batch."""
        self._positions.append(position)
        self._fractions.append(fraction)

    def skip(self, tile: SkippedTile) -> None:
        """Add a skipped tile to the batch."""
        self._skipped.append(tile)

    def finish(self) -> TileBatch:
        """Return the batch and begin a new one."""
        self._ensure_memory()
        count = len(self._positions)
        batch = TileBatch(
            positions=np.array(self._positions, dtype=np.intp),
            pixels=self._pixels[:count],
            valid=self._valid[:count],
            valid_fraction=np.array(self._fractions, dtype=np.float32),
            skipped=tuple(self._skipped),
        )
        # From here on only the batch refers to its memory, so that the pool gets it back when the batch is gone.
        del self._pixels, self._valid
        self._has_memory = False
        self._positions, self._fractions, self._skipped = [], [], []
        return batch

    def _ensure_memory(self) -> None:
        """Take memory for a batch from the pool, unless this batch has it already."""
        if self._has_memory:
            return
        memory = self._pool.take()
        length = math.prod(self._shape) * self._dtype.itemsize
        self._pixels = memory[:length].view(self._dtype).reshape(self._shape)
        self._valid = memory[length:].view(bool).reshape(self._capacity, *self._shape[2:])
        self._has_memory = True


class _MemoryPool:
    """Blocks of memory of equal length that batches use in turn.

    The C library returns blocks of this size to the system as soon as they are free. The system then hands them out
    again one page fault at a time, which costs more than reading an uncompressed raster into them.
    """

    def __init__(self, length: int) -> None:
        self._length = length
        self._free: list[mmap.mmap] = []

    def take(self) -> NDArray[np.uint8]:
        """Return a block with any content. It returns to the pool when no array refers to it any more."""
        block = self._free.pop() if self._free else mmap.mmap(-1, self._length)
        memory = np.frombuffer(block, np.uint8)  # Views of views, at any depth, refer to this array.
        weakref.finalize(memory, self._free.append, block).atexit = False
        return memory


def _runs(tiles: Tiles, rows: int, columns: int) -> Iterator[slice]:
    """Cut a shard's tiles into runs, each read in one call.

    Args:
        tiles: the shard's tiles, row by row.
        rows: most grid rows in a run. More than one only if `columns` spans the shard.
        columns: most tiles side by side in a run.

    Yields:
        The positions of each run in tile order.
    """
    starts = [*np.flatnonzero(np.diff(tiles.row, prepend=-1)), len(tiles)]
    for i in range(0, len(starts) - 1, rows):
        start, stop = int(starts[i]), int(starts[min(i + rows, len(starts) - 1)])
        for first in range(start, stop, rows * columns):
            yield slice(first, min(first + rows * columns, stop))


def block_cache_bytes(source: Source, profile: RasterProfile, sharding: Sharding, threads: int) -> int:
    """Return how large GDAL's block cache must be, in bytes, for every thread to decode each block only once.

    A row of tiles touches several rows of blocks, and the next row of tiles comes back to the last of them. So the
    cache must hold two such rows of blocks across a shard, for each thread. A pixel-interleaved block is decoded with
    all its bands. If bands are stored apart, the blocks of the other bands come in between; the bytes of one remote
    read are added for them.

    Args:
        source: the raster.
        profile: its header.
        sharding: how its tiles are dealt to shards.
        threads: number of threads that read shards at the same time.
    """
    grid = sharding.grid
    columns = min(profile.width, sharding.shard_cols * grid.step + grid.size + profile.block_width)
    rows = grid.size + 2 * profile.block_height
    apart = profile.interleave != "pixel"
    needed = columns * rows * (4 if apart else profile.count) * np.dtype(profile.dtype).itemsize
    if apart and source.remote:
        needed += MAX_RUN_BYTES
    return int(min(max(needed * threads, 16 * 2**20), 2**30))
