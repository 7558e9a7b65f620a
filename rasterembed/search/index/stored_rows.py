"""The rows and the stored vectors of a segment, opened memory-mapped.

The rows file is an Arrow IPC file without compression. The vectors file has the vectors one after the other, in their
dtype at rest and in C order. Row number n is the n-th row of both files.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from rasterembed.dataset.arrow_arrays import number_array, view_of
from rasterembed.dataset.selection import VectorDtype

BLOCK_ROWS = 16_384
"""Number of rows in a block of `StoredVectors.blocks`, and in a batch of a rows file. Only the last one has fewer."""

_SMALLEST_SQUARE = 1e-30
_LARGEST_SQUARE = 1e37
"""Squared lengths between these two numbers are exact enough in float32. Other lengths are computed in float64."""


class JoinedValues:
    """The numbers of vectors in several mapped files, as if they were in one. They are read when they are asked for.

    Args:
        parts: the numbers of each file, shape (rows of the file, dimensions). All have the same dtype.
        part: for each row, the number of its file, shape (rows,).
        row: for each row, its row number in the file, shape (rows,).
    """

    def __init__(self, parts: Sequence[NDArray[np.generic]], part: NDArray[np.uint8], row: NDArray[np.int64]) -> None:
        self._parts, self._part, self._row = parts, part, row
        self.shape = len(row), parts[0].shape[1]
        """Number of rows and of dimensions."""
        self.dtype = parts[0].dtype
        """Type of the numbers."""

    def __len__(self) -> int:
        """Return the number of rows."""
        return self.shape[0]

    def __getitem__(self, rows: slice | NDArray[np.int64]) -> NDArray[np.generic]:
        """Return some rows in a new array, shape (n, dimensions)."""
        part, row = self._part[rows], self._row[rows]
        found = np.empty((len(row), self.shape[1]), self.dtype)
        for number, values in enumerate(self._parts):
            here = np.flatnonzero(part == number)
            if len(here):
                found[here] = values[row[here]]
        return found


class StoredVectors:
    """The stored vectors of a segment, or of several. Several threads may use one object.

    Args:
        values: the stored numbers, shape (rows, dimensions), with at least one row.
    """

    def __init__(self, values: NDArray[np.generic] | JoinedValues) -> None:
        self.values = values
        """The stored numbers, shape (rows, dimensions). Ask for slices or for row numbers: a slice of one file is
        mapped, and everything else is copied. int8 vectors lack their scales, which do not change a cosine."""
        self.rows: int = values.shape[0]
        """Number of vectors."""
        self.dimensions: int = values.shape[1]
        """Length of a vector."""

    @classmethod
    def of_file(cls, path: Path, rows: int, dimensions: int, dtype: VectorDtype) -> StoredVectors:
        """Map a vectors file, read-only.

        Args:
            path: the vectors file. Its size must be that of `rows` vectors.
            rows: number of vectors, at least 1.
            dimensions: length of a vector.
            dtype: type of the stored numbers.
        """
        mapped = np.memmap(path, np.dtype(dtype).newbyteorder("<"), "r", 0, (rows, dimensions))
        # NumPy's class for mapped files would make each copy of some rows slower.
        return cls(np.asarray(mapped))

    def take(self, numbers: NDArray[np.int64]) -> NDArray[np.generic]:
        """Return the stored numbers of some rows, in a new array of shape (n, dimensions).

        NumPy's `take` lets other threads use the interpreter while it reads, which indexing with few numbers does not.

        Args:
            numbers: row numbers, shape (n,), in any order.

        Raises:
            IndexError: if a row number is too large.
        """
        values = self.values
        return values.take(numbers, 0) if isinstance(values, np.ndarray) else values[numbers]

    def unit(self, numbers: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return some vectors, scaled to length 1. A zero vector stays zero.

        Args:
            numbers: row numbers, shape (n,), in any order.

        Returns:
            The unit vectors, shape (n, dimensions).

        Raises:
            IndexError: if a row number is not from 0 to `rows` - 1.
        """
        return unit_vectors(self.take(numbers))

    def blocks(self, size: int = BLOCK_ROWS) -> Iterator[NDArray[np.float32]]:
        """Yield the unit vectors of all rows in order. Only one block is in memory at a time.

        Args:
            size: number of vectors in a block. The last block may have fewer.
        """
        for start in range(0, self.rows, size):
            yield unit_vectors(self.values[start : start + size])


class StoredRows:
    """The rows of a segment and their vectors. Several threads may use one object.

    Args:
        table: the columns of the rows file, mapped. Every chunk except the last has `BLOCK_ROWS` rows.
        vectors: the vectors of the same rows.
    """

    def __init__(self, table: pa.Table, vectors: StoredVectors) -> None:
        self.table = table
        """The columns of the rows file. `rasterembed.search.vector_files.VectorFiles.index_schema` lists them."""
        self.vectors = vectors
        """The vectors of the same rows."""
        self._batches = table.to_batches()
        self._readers: dict[tuple[int, tuple[str, ...]], list[Callable[[int], Any]]] = {}
        """Functions that return the values of a row, one for each column, by the number of the batch and the names of
        the columns. They are made when a row of the batch is read for the first time."""

    def values(self, numbers: NDArray[np.int64], columns: tuple[str, ...]) -> list[dict[str, Any]]:
        """Return some rows as Python values, in the order of `numbers`. Only these values are read.

        For the few rows of an answer, this takes a small part of the time of `take` and Arrow's conversion to Python.

        Args:
            numbers: row numbers, shape (n,), from 0 to the number of rows - 1, in any order.
            columns: names of the columns.

        Raises:
            IndexError: if a row number is too large or negative.
        """
        wanted = numbers.tolist()
        if wanted and not 0 <= min(wanted) <= max(wanted) < len(self.table):
            raise IndexError(f"a row number is not from 0 to {len(self.table) - 1}")
        rows = []
        for number in wanted:
            batch, row = divmod(number, BLOCK_ROWS)
            readers = self._readers.get((batch, columns))
            if readers is None:
                readers = [_reader_of(self._batches[batch][name]) for name in columns]
                self._readers[batch, columns] = readers
            rows.append(dict(zip(columns, [read(row) for read in readers], strict=True)))
        return rows

    def take(self, numbers: NDArray[np.int64], columns: Sequence[str] | None = None) -> pa.Table:
        """Return some rows in the order of `numbers`. Only these rows are read.

        Args:
            numbers: row numbers, shape (n,), from 0 to the number of rows - 1, in any order.
            columns: names of the columns to return. By default, all columns.

        Raises:
            pyarrow.ArrowIndexError: if a row number is too large or negative.
        """
        # `Table.take` would first join the chunks of a text column, which copies the whole column.
        schema = self.table.schema if columns is None else pa.schema([self.table.schema.field(n) for n in columns])
        order = np.argsort(numbers, kind="stable")
        ascending = np.asarray(numbers, np.int64)[order]
        if len(ascending) and not 0 <= ascending[0] <= ascending[-1] < len(self.table):
            raise pa.ArrowIndexError(f"a row number is not from 0 to {len(self.table) - 1}")
        parts, batches = [], ascending // BLOCK_ROWS
        for batch in np.unique(batches):
            inside = ascending[batches == batch] - batch * BLOCK_ROWS
            parts.append(self._batches[batch].select(schema.names).take(number_array(inside)))
        back = np.empty(len(order), np.int64)
        back[order] = np.arange(len(order))
        return pa.Table.from_batches(parts, schema).combine_chunks().take(number_array(back))


def _reader_of(column: pa.Array) -> Callable[[int], Any]:
    """Return a function that returns a value of a column as a Python value, by its position."""
    kind = column.type
    if column.null_count or len(column) == 0:
        return lambda row: column[row].as_py()
    if pa.types.is_integer(kind) or pa.types.is_floating(kind):
        return view_of(column).item
    if not (kind.equals(pa.string()) or kind.equals(pa.binary())):
        return lambda row: column[row].as_py()
    # A column of texts or bytes has the places where its values begin and end, and the bytes of all values.
    _, places, values = column.buffers()
    place = np.frombuffer(places, np.int32)[column.offset :].item
    whole = memoryview(values or b"")
    if kind.equals(pa.binary()):
        return lambda row: bytes(whole[place(row) : place(row + 1)])
    return lambda row: str(whole[place(row) : place(row + 1)], "utf-8")


def unit_vectors(values: NDArray[np.generic]) -> NDArray[np.float32]:
    """Scale vectors to length 1. A zero vector stays zero. A vector that is not finite gets a NaN.

    Args:
        values: vectors of float32, float16 or int8, shape (n, dimensions).

    Returns:
        A new array of the same shape.
    """
    vectors = np.array(values, np.float32)
    squares = np.einsum("ij,ij->i", vectors, vectors)
    unsure = np.flatnonzero(~((squares >= _SMALLEST_SQUARE) & (squares <= _LARGEST_SQUARE)))
    if len(unsure):
        exact = vectors[unsure].astype(np.float64)
        lengths = np.linalg.norm(exact, axis=1, keepdims=True)
        # An infinite vector becomes NaN. Callers look for NaN, so a warning would say nothing new.
        with np.errstate(invalid="ignore"):
            vectors[unsure] = exact / np.where(lengths == 0.0, 1.0, lengths)
        squares[unsure] = 1.0
    vectors /= np.sqrt(squares)[:, None]
    return vectors
