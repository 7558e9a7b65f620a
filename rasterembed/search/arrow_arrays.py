"""Arrow arrays of numbers and texts, made without pandas.

pyarrow imports pandas, if it is installed, as soon as it converts a Python or NumPy value. This import would take a
fifth of the time of a process's first answer. The functions of this module describe memory to pyarrow, which converts
nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray


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

    Example:
        >>> view_of(pa.array([1.5, 2.0, 4.0]).slice(1)).tolist()
        [2.0, 4.0]
    """
    dtype = np.dtype(column.type.to_pandas_dtype())
    return np.frombuffer(column.buffers()[1], dtype, len(column), column.offset * dtype.itemsize)


def text_array(texts: Sequence[str]) -> pa.Array:
    """Return texts as an Arrow array. All texts together must have less than 2 GiB.

    Example:
        >>> text_array(["lake", "", "sauna"]).to_pylist()
        ['lake', '', 'sauna']
    """
    encoded = [text.encode() for text in texts]
    ends = np.cumsum([0, *map(len, encoded)], dtype=np.int32)
    return pa.Array.from_buffers(pa.string(), len(encoded), [None, pa.py_buffer(ends), pa.py_buffer(b"".join(encoded))])
