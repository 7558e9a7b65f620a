"""Tile pixels out of a raster: windows in the order of its blocks, each block once, no tile files."""

from __future__ import annotations

import math
import mmap
import time
import weakref
from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.errors import RasterioError
from rasterio.windows import Window

from rasterembed.errors import DataError, one_line
from rasterembed.raster.grid import Tiles, tile_id
from rasterembed.raster.profile import RasterProfile, mask_file_state, open_raster
from rasterembed.raster.sharding import Sharding
from rasterembed.raster.source import Source, check_unchanged
from rasterembed.store.gdal import MAX_READ_BYTES
from rasterembed.store.object_store import ObjectStore

MAX_RUN_BYTES = MAX_READ_BYTES
"""Pixels read in one go: part of a row of tiles or, where a read waits for a server, as many rows as that holds."""

RETRY_DELAYS_S = (0.5, 2.0)
"""Waits before a failed read from S3 is tried again."""

_CACHE_BYTES = 32 * 2**20
"""GDAL's block cache where a few windows are read."""

OnBadWindow = Literal["fail", "skip"]
_T = TypeVar("_T")


class Pixels:
    """The pixels of an open raster, and which of them are valid; made by `open_pixels`."""

    def __init__(
        self, profile: RasterProfile, dataset: rasterio.DatasetReader, mask: rasterio.DatasetReader | None
    ) -> None:
        self._profile = profile
        self._dataset = dataset
        self._mask = mask
        self._nodata = [_as_pixel(value, self.dtype) for value in profile.nodata]

    def read(
        self, bands: tuple[int, ...], window: Window, shape: tuple[int, int] | None = None
    ) -> tuple[NDArray[np.generic], NDArray[np.bool_]]:
        """Pixels of some bands in a window, and which of them are valid.

        A pixel is invalid where a mask or the alpha band is 0, where every band read has its nodata value (as GDAL's
        dataset mask has it), or where any band read is not finite.

        Args:
            bands: band numbers, from 1.
            window: a window inside the raster, px.
            shape: rows and columns to resample to (nearest neighbour); by default those of the window.

        Returns:
            Pixels of shape (bands, rows, columns) in the raster's dtype, and validity of shape (rows, columns).

        Raises:
            RasterioError: if a block cannot be read or decoded.
        """
        rows, cols = shape or (int(window.height), int(window.width))
        pixels, shown = self.fetch(bands, window, np.empty((self.layers(bands), rows, cols), self.dtype))
        valid = np.empty((rows, cols), dtype=bool)
        self.validate(bands, pixels, shown, valid)
        return pixels, valid

    @property
    def dtype(self) -> np.dtype[Any]:
        """The raster's dtype."""
        name: str = self._dataset.dtypes[0]
        return np.dtype(name)

    def layers(self, bands: tuple[int, ...]) -> int:
        """How many bands are read to know the pixels of some and their validity."""
        return len(self._wanted(bands))

    def _wanted(self, bands: tuple[int, ...]) -> tuple[int, ...]:
        alpha = self._profile.alpha_band
        return (*bands, alpha) if alpha else bands

    def fetch(
        self, bands: tuple[int, ...], window: Window, memory: NDArray[np.generic]
    ) -> tuple[NDArray[np.generic], NDArray[np.bool_] | None]:
        """Pixels of some bands, and where masks and alpha show them; None if there is neither.

        Args:
            bands: band numbers, from 1.
            window: a window inside the raster, px.
            memory: where the pixels go, shape (`layers`, rows, columns).
        """
        rows, cols = memory.shape[1:]
        pixels = self._dataset.read(list(self._wanted(bands)), window=window, out=memory)
        shown = []
        if self._profile.alpha_band:
            shown.append(pixels[-1] > 0)
            pixels = pixels[:-1]
        if self._profile.masked:
            shown.append(self._dataset.read_masks(bands[0], window=window, out_shape=(rows, cols)) > 0)
        if self._mask is not None:
            masks = [1] if self._mask.count == 1 else list(bands)
            shown.append(self._mask.read(masks, window=window, out_shape=(len(masks), rows, cols)).any(axis=0))
        return pixels, np.logical_and.reduce(shown) if shown else None

    def _nodata_of(self, bands: tuple[int, ...]) -> list[np.generic] | None:
        """Nodata values as pixels have them, or None if a band has none."""
        values = [self._nodata[band - 1] for band in bands]
        known = [value for value in values if value is not None]
        return known if len(known) == len(values) else None

    def validate(
        self,
        bands: tuple[int, ...],
        pixels: NDArray[np.generic],
        shown: NDArray[np.bool_] | None,
        valid: NDArray[np.bool_],
    ) -> int:
        """Find which pixels are valid; gives their number.

        Args:
            bands: band numbers, from 1.
            pixels: shape (bands, rows, columns).
            shown: what `fetch` says of them, shape (rows, columns).
            valid: where the answer goes, shape (rows, columns).
        """
        nodata = self._nodata_of(bands)
        if nodata is None:
            valid[:] = True
        else:
            np.not_equal(pixels[0], nodata[0], out=valid)
            for band, value in zip(pixels[1:], nodata[1:], strict=True):
                if valid.all():  # as in most tiles
                    break
                valid |= band != value
        if np.issubdtype(pixels.dtype, np.floating):
            valid &= np.isfinite(pixels).all(axis=0)
        if shown is not None:
            valid &= shown
        return int(np.count_nonzero(valid))


def _as_pixel(nodata: float | None, dtype: np.dtype[Any]) -> np.generic | None:
    """A nodata value as pixels have it; None if no pixel can."""
    if nodata is None:
        return None
    kind: type[np.generic] = dtype.type
    if np.issubdtype(dtype, np.integer):
        limits = np.iinfo(dtype)
        if not limits.min <= nodata <= limits.max or not nodata.is_integer():
            return None
    with np.errstate(over="ignore"):  # an infinity is never valid anyway
        return kind(nodata)


@contextmanager
def open_pixels(
    store: ObjectStore, uri: str, profile: RasterProfile, *, cache_bytes: int = _CACHE_BYTES
) -> Iterator[Pixels]:
    """Open a raster for reading pixels, together with the mask file beside it if it has one.

    Raises:
        DataError: if no allowed driver reads them.
    """
    with ExitStack() as stack:
        # lines that are no part of a larger block go straight from the file to where they are wanted
        direct = profile.striped and profile.compression is None and not uri.startswith("s3://")
        stack.enter_context(rasterio.Env(GTIFF_DIRECT_IO=direct))
        # the mask is opened here and not found by GDAL, which would take other files beside the raster with it
        dataset = stack.enter_context(open_raster(store, uri, cache_bytes=cache_bytes))
        mask = None
        if profile.mask_file is not None:
            mask = stack.enter_context(open_raster(store, f"{uri}.msk", cache_bytes=cache_bytes))
        yield Pixels(profile, dataset, mask)


@dataclass(frozen=True)
class Batch:
    """Some tiles of a shard, ready for the model.

    The arrays are the batch's own for as long as anything refers to them; then their memory serves another batch.
    """

    positions: NDArray[np.intp]
    """Place of each tile in the shard's tile order, ascending, shape (n,)."""
    pixels: NDArray[np.generic]
    """Source values, zero outside the window, shape (n, channels, size, size); 1 channel if all three are the same."""
    valid: NDArray[np.bool_]
    """Valid pixels, false outside the window, shape (n, size, size)."""
    valid_fraction: NDArray[np.float32]
    """Valid pixels over the pixels of the exact window, shape (n,)."""


@dataclass
class Skipped:
    """Tiles that were not embedded: positions in the shard's tile order, by reason."""

    positions: dict[str, list[int]] = field(default_factory=dict)

    def add(self, position: int, reason: str) -> None:
        """Note one tile."""
        self.positions.setdefault(reason, []).append(position)

    def __len__(self) -> int:
        return sum(map(len, self.positions.values()))


@dataclass(frozen=True)
class ShardReader:
    """Reads the tiles of one shard."""

    store: ObjectStore
    source: Source
    profile: RasterProfile
    sharding: Sharding
    bands: tuple[int, ...]
    """Bands to read, from 1: one if all channels are the same, else three."""
    palette: NDArray[np.uint8] | None
    """Colours by index, shape (n, 3), if the band is an index."""
    batch_size: int
    """Tiles in a batch; the last may have fewer."""
    min_valid_fraction: float
    """Tiles below it are skipped; so is any tile without a valid pixel."""
    on_bad_window: OnBadWindow
    """Whether a window that cannot be decoded fails the shard or skips its tile."""
    cache_bytes: int
    """GDAL's block cache for the whole process, in bytes."""

    def batches(self, number: int, skipped: Skipped) -> Generator[Batch]:
        """Batches of shard `number` in tile order; tiles left out are noted in `skipped`.

        One thread must run the whole iteration: GDAL's settings belong to it.

        Raises:
            DataError: for a window that cannot be decoded, or if the raster was changed since it was registered.
            StoreUnavailableError: if the store does not answer.
        """
        self._check_unchanged()
        tiles = self.sharding.tiles(number)
        with ExitStack() as stack:
            handle = _Handle(self, stack)
            batch = _BatchInMaking(self)
            for run in _runs(tiles, *self._run_shape(number)):
                for position, pixels, shown in self._read_run(handle, tiles, run, skipped):
                    fraction = batch.lay(handle, pixels, shown)
                    if fraction == 0:
                        skipped.add(position, "no valid pixel")
                    elif fraction < self.min_valid_fraction:
                        skipped.add(position, f"valid fraction below {self.min_valid_fraction:g}")
                    else:
                        batch.keep(position, fraction)
                        if batch.full:
                            yield batch.take()
            if not batch.empty:
                yield batch.take()
        self._check_unchanged()  # else the shard may hold pixels of two states

    def _check_unchanged(self) -> None:
        check_unchanged(self.store, self.source)
        mask = self.profile.mask_file
        if mask is not None and mask_file_state(self.store, self.source.uri) != mask:
            raise DataError(
                f"{self.source.uri}.msk: the mask was changed while the raster was being read: run again to embed its "
                "new state"
            )

    def _run_shape(self, number: int) -> tuple[int, int]:
        """Rows of tiles, and tiles side by side, that one read may cover."""
        grid = self.sharding.grid
        if grid.step >= 2 * grid.size:
            return 1, 1  # mostly gaps between the tiles
        itemsize = np.dtype(self.profile.dtype).itemsize
        most = max(1, MAX_RUN_BYTES // (len(self.bands) * itemsize * grid.size * grid.step))
        _, (left, right) = self.sharding.block(number)
        if not self.source.remote or most < right - left:
            return 1, most  # of a file, what a read gives is best still in the processor's cache when tiles are cut
        return most // (right - left), right - left

    def _read_run(self, handle: _Handle, tiles: Tiles, run: slice, skipped: Skipped) -> Iterator[_Tile]:
        """The tiles of a run that is read in one go."""
        part = tiles.take(np.arange(run.start, run.stop))
        left, top = int(part.col_off[0]), int(part.row_off[0])
        right, bottom = int(part.col_off[-1] + part.width[-1]), int(part.row_off[-1] + part.height[-1])
        try:
            pixels, shown = handle.read(Window(left, top, right - left, bottom - top))
        except RasterioError as error:
            yield from self._read_singly(handle, part, run.start, skipped, error)
            return
        for i in range(len(part)):
            x, y = int(part.col_off[i]) - left, int(part.row_off[i]) - top
            rows, columns = slice(y, y + int(part.height[i])), slice(x, x + int(part.width[i]))
            yield run.start + i, pixels[:, rows, columns], None if shown is None else shown[rows, columns]

    def _read_singly(
        self,
        handle: _Handle,
        part: Tiles,
        first: int,
        skipped: Skipped,
        error: RasterioError,
    ) -> Iterator[_Tile]:
        """As `_read_run`, a window at a time, to tell the bad tiles of a run from the good."""
        for i in range(len(part)):
            window = Window(int(part.col_off[i]), int(part.row_off[i]), int(part.width[i]), int(part.height[i]))
            try:
                pixels, shown = handle.read(window)
            except RasterioError as single:
                self._check_unchanged()  # no tile is skipped for a store that went away
                if self.on_bad_window == "fail":
                    name = tile_id(int(part.row[i]), int(part.col[i]))
                    cause = one_line(single.__cause__ or single)
                    raise DataError(
                        f"{self.source.uri}: tile {name} (window col_off={window.col_off} "
                        f"row_off={window.row_off} width={window.width} height={window.height}) cannot be "
                        f"read: {cause}; mend the file, or skip such tiles with on_bad_window=skip"
                    ) from error
                skipped.add(first + i, "window cannot be decoded")
            else:
                yield first + i, pixels, shown


_Tile = tuple[int, NDArray[np.generic], NDArray[np.bool_] | None]
"""Position in the shard's tile order, and what `Pixels.fetch` gives of it, good until the next read."""


class _Handle:
    """An open raster that is opened afresh when a read from S3 fails."""

    def __init__(self, reader: ShardReader, stack: ExitStack) -> None:
        self._reader = reader
        self._stack = stack
        self._pixels = self._open()
        self._memory: NDArray[np.generic] = np.empty(0, self._pixels.dtype)

    def _open(self) -> Pixels:
        reader = self._reader
        return self._stack.enter_context(
            open_pixels(reader.store, reader.source.uri, reader.profile, cache_bytes=reader.cache_bytes)
        )

    def read(self, window: Window) -> tuple[NDArray[np.generic], NDArray[np.bool_] | None]:
        """What `Pixels.fetch` gives of a window, good until the next one is read."""
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
        shape = (self._pixels.layers(bands), int(window.height), int(window.width))
        length = math.prod(shape)
        if len(self._memory) < length:  # once a shard: page faults of new memory take longer than a fast read
            self._memory = np.empty(length, self._pixels.dtype)
        return self._pixels.fetch(bands, window, self._memory[:length].reshape(shape))

    def validate(self, pixels: NDArray[np.generic], shown: NDArray[np.bool_] | None, valid: NDArray[np.bool_]) -> int:
        """See `Pixels.validate`."""
        return self._pixels.validate(self._reader.bands, pixels, shown, valid)


class _BatchInMaking:
    """Arrays that fill up tile by tile."""

    def __init__(self, reader: ShardReader) -> None:
        size = reader.sharding.grid.size
        channels = 3 if reader.palette is not None else len(reader.bands)
        self._capacity = reader.batch_size
        self._shape = (self._capacity, channels, size, size)
        self._dtype = np.dtype(np.uint8 if reader.palette is not None else reader.profile.dtype)
        self._memory = _Memory(math.prod(self._shape) * self._dtype.itemsize + self._capacity * size * size)
        self._palette = reader.palette
        self._begun = False
        self._positions: list[int] = []
        self._fractions: list[np.float32] = []

    def _begin(self) -> None:
        memory = self._memory.take()
        length = math.prod(self._shape) * self._dtype.itemsize
        self._pixels = memory[:length].view(self._dtype).reshape(self._shape)
        self._valid = memory[length:].view(bool).reshape(self._capacity, *self._shape[2:])
        self._begun = True

    @property
    def empty(self) -> bool:
        return not self._positions

    @property
    def full(self) -> bool:
        return len(self._positions) == self._capacity

    def lay(self, handle: _Handle, pixels: NDArray[np.generic], shown: NDArray[np.bool_] | None) -> np.float32:
        """Put a tile in the next place, from where only `keep` makes it part of the batch; gives its valid fraction."""
        if not self._begun:
            self._begin()
        place, (height, width) = len(self._positions), pixels.shape[1:]
        if (height, width) != self._shape[2:]:
            self._pixels[place] = 0
            self._valid[place] = False
        valid = self._valid[place, :height, :width]
        tile = self._pixels[place, :, :height, :width]
        if self._palette is None:
            tile[:] = pixels
            pixels = tile  # which the processor's cache now has
        else:
            tile[:] = np.moveaxis(self._palette[pixels[0]], -1, 0)
        return np.float32(handle.validate(pixels, shown, valid) / valid.size)

    def keep(self, position: int, fraction: np.float32) -> None:
        self._positions.append(position)
        self._fractions.append(fraction)

    def take(self) -> Batch:
        count = len(self._positions)
        batch = Batch(
            positions=np.array(self._positions, dtype=np.intp),
            pixels=self._pixels[:count],
            valid=self._valid[:count],
            valid_fraction=np.array(self._fractions, dtype=np.float32),
        )
        del self._pixels, self._valid  # else they would hold the memory until the next batch begins
        self._begun = False
        self._positions, self._fractions = [], []
        return batch


class _Memory:
    """Memory for batches, taken anew from the system only while all that was taken is in use.

    The C library gives blocks of this size back as soon as they are free, and the system then hands them out again a
    page fault at a time, which costs more than reading an uncompressed raster into them.
    """

    def __init__(self, length: int) -> None:
        self._length = length
        self._free: list[mmap.mmap] = []

    def take(self) -> NDArray[np.uint8]:
        """Bytes with any content, free again when no array refers to them."""
        block = self._free.pop() if self._free else mmap.mmap(-1, self._length)
        memory = np.frombuffer(block, np.uint8)  # what views refer to, at any depth
        weakref.finalize(memory, self._free.append, block).atexit = False
        return memory


def _runs(tiles: Tiles, rows: int, columns: int) -> Iterator[slice]:
    """Stretches of at most `columns` tiles of a row of the grid; if those are all, of as many as `rows` rows."""
    starts = [*np.flatnonzero(np.diff(tiles.row, prepend=-1)), len(tiles)]
    for i in range(0, len(starts) - 1, rows):
        start, stop = int(starts[i]), int(starts[min(i + rows, len(starts) - 1)])
        for first in range(start, stop, rows * columns):
            yield slice(first, min(first + rows * columns, stop))


def block_cache_bytes(source: Source, profile: RasterProfile, sharding: Sharding, threads: int) -> int:
    """Bytes of GDAL's block cache that let each block be decoded once by every reading thread.

    A row of tiles touches the block rows that it lies in and the next row of tiles comes back to the last of them, so
    the cache holds two such rows across a shard for each thread; all bands of a pixel-interleaved block are decoded.
    Where bands lie apart, the other bands' blocks of a read come between.
    """
    grid = sharding.grid
    columns = min(profile.width, sharding.shard_cols * grid.step + grid.size + profile.block_width)
    rows = grid.size + 2 * profile.block_height
    apart = profile.interleave != "pixel"
    needed = columns * rows * (4 if apart else profile.count) * np.dtype(profile.dtype).itemsize
    if apart and source.remote:
        needed += MAX_RUN_BYTES
    return int(min(max(needed * threads, 16 * 2**20), 2**30))


def ahead(items: Generator[_T]) -> Generator[_T]:
    """The same items, made in a thread of their own: two while the one before them is used."""
    with ThreadPoolExecutor(1, thread_name_prefix="read-ahead") as thread:
        # the second is there so that the thread does not wait to be told to go on
        upcoming = deque(thread.submit(next, items, None) for _ in range(2))
        try:
            while (item := upcoming.popleft().result()) is not None:
                upcoming.append(thread.submit(next, items, None))
                yield item
        finally:
            for waiting in upcoming:
                waiting.cancel()
            # GDAL's settings belong to the thread that opened the raster: it must close it too
            thread.submit(items.close).result()
