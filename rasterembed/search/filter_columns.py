"""The columns of a segment that filters read, and the bounding boxes of its blocks of rows.

A filter must find the rows that pass before an engine looks for near vectors. The rows of a segment lie in the order of
a Hilbert curve or of the grid, so neighbouring rows are near each other on the ground. Blocks of rows that are wholly
inside or wholly outside an area are decided by one comparison. Only the other rows are looked at one by one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from rasterembed.dataset.arrow_arrays import view_of
from rasterembed.dataset.wkb import FootprintError, read_footprints
from rasterembed.errors import DataError
from rasterembed.search.areas import Areas, Bounds, meets_all
from rasterembed.search.row_selection import RowSelection

_BLOCKS = (1024, 32)
"""Number of rows in a large and in a small block. A large block consists of whole small ones."""

_FOOTPRINTS_AT_ONCE = 65_536
"""Largest number of footprints that are decoded at once. A footprint takes about 1 kB in memory."""


@dataclass(frozen=True, eq=False)
class _Level:
    """The blocks of one size."""

    sizes: NDArray[np.int64]
    """Number of rows of each block. The last block of a batch can be smaller than the others."""
    bounds: Bounds
    """Box around the footprints of each block. NaN for a block whose tiles have no place on Earth."""
    complete: NDArray[np.bool_]
    """Whether all tiles of the block have a place on Earth."""

    @cached_property
    def starts(self) -> NDArray[np.int64]:
        """Number of the first row of each block."""
        starts: NDArray[np.int64] = np.cumsum(self.sizes) - self.sizes
        return starts

    def rows_of(self, numbers: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return which rows are in some blocks, shape (rows,)."""
        chosen = np.zeros(len(self.sizes), bool)
        chosen[numbers] = True
        return np.repeat(chosen, self.sizes)


class FilterColumns:
    """The columns of a segment, as filters read them. Several threads may use one object.

    Each column is read when a filter needs it for the first time. Columns of numbers stay in the mapped file.

    Args:
        name: name of the owner of the segment for people, such as `dataset 'scene'`.
        table: the columns of the rows file. See `rasterembed.search.vector_files.VectorFiles.index_schema`.
        live: the rows that can be in an answer. None: all rows.
    """

    def __init__(self, name: str, table: pa.Table, live: RowSelection | None = None) -> None:
        self.name = name
        self.live = live
        """The rows that can be in an answer. None: all rows."""
        self.table = table
        self.rows = len(table)
        """Number of rows."""
        self._batches = [batch for batch in table.to_batches() if len(batch)]
        self._starts = np.cumsum([0, *(len(batch) for batch in self._batches)])
        self._datasets: tuple[pa.Array, NDArray[np.int32]] | None = None
        """See `datasets`. None until a filter needs it."""
        self._levels: list[_Level] | None = None
        """The blocks of rows with their bounds, large blocks first. None until a filter needs them."""

    @property
    def nbytes(self) -> int:
        """Memory in bytes, without the mapped file. It grows when a filter needs a column for the first time."""
        codes = [] if self._datasets is None else [self._datasets[1]]
        arrays = [array for level in self._levels or () for array in (level.sizes, level.complete, *level.bounds)]
        return sum(array.nbytes for array in (*codes, *arrays))

    def live_rows(self) -> NDArray[np.bool_]:
        """Return which rows can be in an answer, shape (rows,). The caller may change the array."""
        return np.ones(self.rows, bool) if self.live is None else self.live.mask.copy()

    def at_least_valid(self, min_valid_fraction: float) -> NDArray[np.bool_]:
        """Return which rows have at least this share of valid pixels, shape (rows,)."""
        # Valid fractions are stored as float32, so the bound is rounded to float32.
        bound = np.float32(min_valid_fraction)
        parts = [view_of(batch["valid_fraction"]) >= bound for batch in self._batches]
        return np.concatenate([np.empty(0, bool), *parts])

    def with_tile_ids(self, tile_ids: pa.Array) -> NDArray[np.bool_]:
        """Return which rows have one of some tile ids, shape (rows,)."""
        return np.asarray(pc.is_in(self.table["tile_id"], tile_ids).to_numpy(), bool)

    def with_names(self, names: pa.Table) -> NDArray[np.bool_]:
        """Return which rows have the dataset id and the tile id of a row of another table, shape (rows,).

        Args:
            names: the columns `dataset_id` and `tile_id`. The segment is of a collection.
        """
        datasets, codes = self.datasets
        names = names.combine_chunks()
        tile_ids = pc.unique(names["tile_id"])
        # Each pair of ids gets one number. -1 stands for an id that the other table does not have.
        wanted = pc.fill_null(pc.index_in(names["dataset_id"], datasets), -1).to_numpy().astype(np.int64)
        wanted = wanted * len(tile_ids) + pc.index_in(names["tile_id"], tile_ids).to_numpy()
        numbers = pc.fill_null(pc.index_in(self.table["tile_id"], tile_ids), -1).to_numpy().astype(np.int64)
        found: NDArray[np.bool_] = (numbers >= 0) & np.isin(codes * np.int64(len(tile_ids)) + numbers, wanted)
        return found

    def of_datasets(self, dataset_ids: pa.Array | pa.ChunkedArray) -> NDArray[np.bool_]:
        """Return which rows belong to one of some datasets, shape (rows,). The segment is of a collection."""
        names, codes = self.datasets
        return np.asarray(pc.is_in(names, _array(dataset_ids)).to_numpy(zero_copy_only=False)[codes], bool)

    @property
    def datasets(self) -> tuple[pa.Array, NDArray[np.int32]]:
        """The ids of the datasets in a segment of a collection, and for each row the number of its id."""
        if self._datasets is None:
            encoded = self.table["dataset_id"].combine_chunks().dictionary_encode()
            self._datasets = encoded.dictionary, encoded.indices.to_numpy(zero_copy_only=False)
        return self._datasets

    def lattices(self, dataset_ids: pa.Array) -> dict[str, str | None]:
        """Return the lattice of each of some datasets that has rows in this segment of a collection."""
        names, codes = self.datasets
        found = {}
        for number in pc.index_in(dataset_ids.unique(), names).drop_null().to_pylist():
            row = int(np.argmax(codes == number))
            found[names[number].as_py()] = self.table["lattice"][row].as_py()
        return found

    def in_areas(self, areas: Areas) -> NDArray[np.bool_]:
        """Return which rows have a footprint that intersects every area, shape (rows,).

        Raises:
            DataError: if a footprint cannot be read.
        """
        result, unsure = np.zeros(self.rows, bool), np.ones(self.rows, bool)
        if self._levels is None:
            self._levels = self._make_levels()
        for level in self._levels:
            # Blocks that the level above decided are not looked at again.
            numbers = np.flatnonzero(np.logical_or.reduceat(unsure, level.starts))
            pairs = [area.classify([side[numbers] for side in level.bounds]) for area in areas]
            possible = np.logical_and.reduce([possible for possible, _ in pairs])
            sure = np.logical_and.reduce([sure for _, sure in pairs]) & level.complete[numbers]
            result |= level.rows_of(numbers[sure])
            unsure = level.rows_of(numbers[possible & ~sure])
        decided, rest = self._by_bounds(areas, np.flatnonzero(unsure))
        result[decided] = True
        for start in range(0, len(rest), _FOOTPRINTS_AT_ONCE):
            some = rest[start : start + _FOOTPRINTS_AT_ONCE]
            result[some] = meets_all(areas, self._footprints(some))
        return result

    def _by_bounds(self, areas: Areas, rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the rows whose bounding boxes are in all areas, and those whose footprints must be looked at.

        Args:
            areas: the areas.
            rows: row numbers, ascending.
        """
        inside, unsure = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
        for number, own in self._by_batch(rows):
            bounds = [side[own - self._starts[number]] for side in self._bounds(number)]
            possible = np.logical_and.reduce([area.may_meet(bounds) for area in areas])
            sure = np.logical_and.reduce([area.in_a_box(bounds) for area in areas])
            inside.append(own[sure])
            unsure.append(own[possible & ~sure])
        return np.concatenate(inside), np.concatenate(unsure)

    def _make_levels(self) -> list[_Level]:
        if not self.rows:
            return []
        bounds = [self._bounds(number) for number in range(len(self._batches))]
        return [self._level(bounds, size) for size in _BLOCKS]

    def _level(self, bounds: Sequence[Bounds], size: int) -> _Level:
        sizes, low_high, complete = [], [], []
        for xmin, ymin, xmax, ymax in bounds:
            starts = np.arange(0, len(xmin), size)
            sizes.append(np.diff([*starts, len(xmin)]))
            # NaN stands for a tile without a place on Earth. `fmin` and `fmax` pass over it, `minimum` does not.
            low = [np.fmin.reduceat(side, starts) for side in (xmin, ymin)]
            low_high.append(low + [np.fmax.reduceat(side, starts) for side in (xmax, ymax)])
            complete.append(~np.isnan(np.minimum.reduceat(xmin, starts)))
        sides = [np.concatenate(side) for side in zip(*low_high, strict=True)]
        return _Level(np.concatenate(sizes), sides, np.concatenate(complete))

    def _by_batch(self, rows: NDArray[np.int64]) -> Iterator[tuple[int, NDArray[np.int64]]]:
        """Yield the number of each batch and those of some ascending rows that are in it."""
        ends = np.searchsorted(rows, self._starts)
        for number in np.flatnonzero(np.diff(ends)):
            yield int(number), rows[ends[number] : ends[number + 1]]

    def _bounds(self, number: int) -> Bounds:
        """Return the bounding boxes of the rows of a batch. A tile without a place on Earth has NaN."""
        # `struct_field` makes a number null where the whole box is null.
        return [_numbers(pc.struct_field(self._batches[number]["bbox"], [i])) for i in range(4)]

    def _footprints(self, rows: NDArray[np.int64]) -> NDArray[np.object_]:
        """Return the footprints of some rows, whose numbers ascend."""
        parts = [
            self._batches[number]["geometry"].take(pa.array(own - self._starts[number]))
            for number, own in self._by_batch(rows)
        ]
        try:
            return read_footprints(pa.chunked_array(parts, pa.binary()))
        except FootprintError as error:
            raise DataError(f"{self.name}: a footprint in its vector index cannot be read ({error})") from error


def _numbers(column: pa.Array) -> NDArray[np.float64]:
    """Return a column of floating-point numbers. It is not copied if it has no null. A null becomes NaN."""
    values: NDArray[np.float64]
    values = column.to_numpy(zero_copy_only=False) if column.null_count else view_of(column)
    return values


def _array(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
