"""Cells of a collection's table: stretches of the Hilbert curve. Each file of the table has the rows of one cell.

The cells are halves of halves of the whole curve. A cell with too many rows is cut in the middle of its stretch, and
not in the middle of its rows. The borders of cells therefore never move: a new scene changes only the cells that it has
rows in. The same rows always give the same cells, in whatever order the scenes came.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from rasterembed.collection.hilbert import NOWHERE, ORDER, curve_positions, hilbert_keys

KEY_BITS = 2 * ORDER + 1
"""Number of bits of a row's key. The first bit is 1 for rows without a place on Earth."""

_NOWHERE_ORDER = 16
"""Number of bits of a row and of a column of the grid in the key of a tile without a place on Earth."""


@dataclass(frozen=True, order=True)
class Cell:
    """A stretch of the curve."""

    first: int
    """Smallest key in the cell."""
    level: int
    """Number of cuts from the whole curve to this cell, 0 to `KEY_BITS`."""

    @property
    def end(self) -> int:
        """Smallest key after the cell."""
        return self.first + (1 << (KEY_BITS - self.level))

    @property
    def is_possible(self) -> bool:
        """Whether cuts of the whole curve can lead to this cell."""
        inside = 0 <= self.level <= KEY_BITS and 0 <= self.first < 1 << KEY_BITS
        return inside and self.first % (1 << (KEY_BITS - self.level)) == 0


def row_keys(
    bounds: NDArray[np.float64], dataset_ids: pa.Array, rows: NDArray[np.int64], cols: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Return the key of each row of a table: its place on the Hilbert curve.

    A tile without a place on Earth comes after all others. Its key is made from the id of the dataset and from the
    tile's place in the grid.

    Args:
        bounds: west, south, east, north of each footprint in degrees, shape (n, 4). NaN for a row without a place.
        dataset_ids: id of each row's dataset, n texts.
        rows: row of each tile in its grid, shape (n,).
        cols: column of each tile in its grid, shape (n,).

    Returns:
        Keys from 0 to 2**KEY_BITS - 1, shape (n,).
    """
    keys = hilbert_keys((bounds[:, 0] + bounds[:, 2]) / 2, (bounds[:, 1] + bounds[:, 3]) / 2)
    nowhere = np.flatnonzero(keys == NOWHERE)
    if len(nowhere):
        names = dataset_ids.take(pa.array(nowhere)).dictionary_encode()
        places = np.array([_place_of_name(name) for name in names.dictionary.to_pylist()], np.int64)
        x, y = (np.clip(values[nowhere], 0, 2**_NOWHERE_ORDER - 1).astype(np.int64) for values in (cols, rows))
        of_tile = curve_positions(x, y, _NOWHERE_ORDER)
        keys[nowhere] = (np.int64(1) << (KEY_BITS - 1)) + places[names.indices.to_numpy()] + of_tile
    return keys


def _place_of_name(dataset_id: str) -> int:
    """Return the smallest key of a dataset's rows without a place on Earth, without the first bit."""
    tile_bits = 2 * _NOWHERE_ORDER
    digest = int.from_bytes(hashlib.sha256(dataset_id.encode()).digest()[:8])
    return (digest >> (64 - (KEY_BITS - 1 - tile_bits))) << tile_bits


def cut_into_cells(keys: NDArray[np.int64], most: int) -> list[Cell]:
    """Return the cells of a table, in the order of the curve. Cells without a row are left out.

    Args:
        keys: keys of all rows in ascending order, shape (n,).
        most: largest number of rows in a cell. A cell with one key has more rows, if so many rows have this key.
    """
    cells = []
    waiting = [(Cell(0, 0), 0, len(keys))]
    while waiting:
        cell, start, stop = waiting.pop()
        if stop - start > most and cell.level < KEY_BITS:
            left = Cell(cell.first, cell.level + 1)
            middle = start + int(np.searchsorted(keys[start:stop], left.end))
            waiting += [(Cell(left.end, left.level), middle, stop), (left, start, middle)]
        elif stop > start:
            cells.append(cell)
    return cells
