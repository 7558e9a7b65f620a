"""Batches of tiles, and the memory that they are collected in."""

from __future__ import annotations

import math
import mmap
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rasterembed.raster.radiometry import expand_palette
from rasterembed.raster.skip_reason import SkipReason


@dataclass(frozen=True)
class SkippedTile:
    """A planned tile that is not embedded."""

    position: int
    """Place of the tile in the shard's tile order, from 0."""
    reason: SkipReason


@dataclass(frozen=True)
class TileBatch:
    """Tiles of a shard, ready for the model, and the tiles that were skipped since the previous batch.

    The arrays keep their content as long as any variable refers to them. Their memory is then used for a later batch.
    """

    positions: NDArray[np.intp]
    """Place of each tile in the shard's tile order, ascending, shape (n,). The last batch may hold no tile."""
    pixels: NDArray[np.generic]
    """Source values, shape (n, channels, size, size), zero outside the window. There is one channel if red, green and
    blue are the same band, else three."""
    valid: NDArray[np.bool_]
    """Whether each pixel is valid, shape (n, size, size), false outside the window."""
    valid_fraction: NDArray[np.float32]
    """Number of valid pixels divided by the number of pixels in the window, shape (n,)."""
    skipped: tuple[SkippedTile, ...]
    """Tiles that were skipped since the previous batch, in tile order."""


class TileWindow(NamedTuple):
    """Pixels of one tile's window. The next read overwrites their memory."""

    position: int
    """Place of the tile in the shard's tile order."""
    pixels: NDArray[np.generic]
    """Source values, shape (bands, rows, columns)."""
    mask: NDArray[np.bool_] | None
    """False where a mask or the alpha band hides a pixel, shape (rows, columns); see `Pixels.read_into`."""


FindValid = Callable[[NDArray[np.generic], NDArray[np.bool_] | None, NDArray[np.bool_]], int]
"""Function that takes the pixels and the mask of a tile. It writes into its third argument which pixels are valid, and
returns the number of valid pixels. See `Pixels.find_valid`."""


class BatchBuilder:
    """Collects tiles until they make a batch.

    A tile is first staged: copied into the next free place. Then it is either accepted, or the next staged tile
    overwrites it.

    Args:
        capacity: number of tiles in a full batch.
        channels: channels of a tile in the batch.
        size: side of a tile, px.
        dtype: dtype of a tile's channels.
        palette: colour of each index, shape (n, 3), if the band holds indexes into a palette; else None.
        find_valid: function that finds the valid pixels of a tile.
    """

    def __init__(
        self,
        *,
        capacity: int,
        channels: int,
        size: int,
        dtype: np.dtype[Any],
        palette: NDArray[np.uint8] | None,
        find_valid: FindValid,
    ) -> None:
        self._capacity = capacity
        self._shape = (capacity, channels, size, size)
        self._dtype = dtype
        self._palette = palette
        self._find_valid = find_valid
        self._pool = _MemoryPool(math.prod(self._shape) * dtype.itemsize + capacity * size * size)
        self._has_memory = False
        self._positions: list[int] = []
        self._fractions: list[np.float32] = []
        self._skipped: list[SkippedTile] = []

    @property
    def empty(self) -> bool:
        """Whether the batch has no tile and no skipped tile."""
        return not self._positions and not self._skipped

    @property
    def full(self) -> bool:
        """Whether the batch has as many tiles as it can hold."""
        return len(self._positions) == self._capacity

    def stage(self, window: TileWindow) -> np.float32:
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
            pixels = tile  # Continue with the copy, because it is now in the processor's cache.
        else:
            tile[:] = expand_palette(pixels, self._palette)
        return np.float32(self._find_valid(pixels, window.mask, valid) / valid.size)

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
        # Only the batch may refer to its memory from now on. The pool then gets the memory back after the last use.
        del self._pixels, self._valid
        self._has_memory = False
        self._positions, self._fractions, self._skipped = [], [], []
        return batch

    def _ensure_memory(self) -> None:
        """Take memory for the current batch from the pool, if the batch has none yet."""
        if self._has_memory:
            return
        memory = self._pool.take()
        length = math.prod(self._shape) * self._dtype.itemsize
        self._pixels = memory[:length].view(self._dtype).reshape(self._shape)
        self._valid = memory[length:].view(bool).reshape(self._capacity, *self._shape[2:])
        self._has_memory = True


class _MemoryPool:
    """Pieces of memory of equal length. A later batch uses the memory of an earlier batch again.

    Without this pool, the C library would return memory of this size to the system when it is free. Memory that comes
    anew from the system causes page faults, which take longer than reading an uncompressed raster into the memory.
    """

    def __init__(self, length: int) -> None:
        self._length = length
        self._free: list[mmap.mmap] = []

    def take(self) -> NDArray[np.uint8]:
        """Return a piece of memory with any content. When no array refers to it any more, the pool gets it back."""
        block = self._free.pop() if self._free else mmap.mmap(-1, self._length)
        memory = np.frombuffer(block, np.uint8)  # All views of the memory, even views of views, refer to this array.
        weakref.finalize(memory, self._free.append, block).atexit = False
        return memory
