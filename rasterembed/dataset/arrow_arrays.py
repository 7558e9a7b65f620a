"""Arrow arrays of numbers and texts, made and read without pandas.

pyarrow imports pandas, if it is installed, as soon as it converts a Python or NumPy value. This import would take a
fifth of the time of a process's first answer, and a tenth of the time of a small run. The functions of this module
describe memory to pyarrow, which converts nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
"""Time that Arrow counts from."""


def number_array(values: NDArray[Any]) -> pa.Array:
    """Return numbers as an Arrow array of the same type. The memory is shared, so the numbers must not change.

    Args:
        values: integers or floating-point numbers, shape (n,). NaN stays NaN.

    Example:
        >>> number_array(np.array([3, 1])).to_pylist()
        [3, 1]
    """
    values = np.ascontiguousarray(values)
    return pa.Array.from_buffers(pa.from_numpy_dtype(values.dtype), len(values), [None, pa.py_buffer(values)])


def view_of(column: pa.Array) -> NDArray[Any]:
    """Return a column of numbers without nulls as a NumPy array that shares its memory.

    Raises:
        pyarrow.ArrowInvalid: If the column has a null.

    Example:
        >>> view_of(pa.array([1.5, 2.0, 4.0]).slice(1)).tolist()
        [2.0, 4.0]
    """
    if column.null_count:
        raise pa.ArrowInvalid(f"{column.null_count} values are null")
    dtype = np.dtype(column.type.to_pandas_dtype())
    if len(column) == 0:  # Such a column may have no memory.
        return np.empty(0, dtype)
    return np.frombuffer(column.buffers()[1], dtype, len(column), column.offset * dtype.itemsize)


def whole_view_of(column: pa.ChunkedArray) -> NDArray[Any]:
    """Return a column of a table as `view_of` does. A column of several chunks is copied."""
    return view_of(column.combine_chunks())


def values_of(column: pa.Array) -> NDArray[np.object_]:
    """Return a column of texts or booleans as Python values, shape (n,). A null is None.

    Example:
        >>> values_of(pa.array(["lake", None])).tolist()
        ['lake', None]
    """
    values = np.empty(len(column), dtype=object)
    values[:] = column.to_pylist()
    return values


def booleans_of(column: pa.Array) -> NDArray[np.bool_]:
    """Return a column of booleans, shape (n,). A null is False.

    Example:
        >>> booleans_of(pa.array([True, None])).tolist()
        [True, False]
    """
    return values_of(column).astype(bool)


def time_array(time: datetime, count: int) -> pa.Array:
    """Return a time with a time zone `count` times, in UTC, in whole milliseconds.

    Example:
        >>> time_array(datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC), 2).type
        TimestampType(timestamp[ms, tz=UTC])
    """
    milliseconds = (time - _EPOCH) // timedelta(milliseconds=1)
    return number_array(np.full(count, milliseconds, dtype=np.int64)).view(pa.timestamp("ms", tz="UTC"))


def text_array(texts: Iterable[str | None]) -> pa.Array:
    """Return texts as an Arrow array. All texts together must have less than 2 GiB. None becomes null.

    Example:
        >>> text_array(["lake", "", None]).to_pylist()
        ['lake', '', None]
    """
    return bytes_array((None if text is None else text.encode() for text in texts), pa.string())


def bytes_array(values: Iterable[bytes | None], kind: pa.DataType) -> pa.Array:
    """Return bytes as an Arrow array. All values together must have less than 2 GiB. None becomes null.

    Args:
        values: The values, n of them.
        kind: `pa.binary()`, or `pa.string()` for texts in UTF-8.

    Example:
        >>> bytes_array([b"ab", None], pa.binary()).to_pylist()
        [b'ab', None]
    """
    given = list(values)
    whole = [b"" if value is None else value for value in given]
    ends = np.cumsum([0, *map(len, whole)], dtype=np.int32)
    present = np.array([value is not None for value in given], dtype=bool)
    # Arrow marks the values that are not null by bits. A column without nulls needs no such bits.
    bits = None if present.all() else pa.py_buffer(np.packbits(present, bitorder="little"))
    return pa.Array.from_buffers(kind, len(whole), [bits, pa.py_buffer(ends), pa.py_buffer(b"".join(whole))])
