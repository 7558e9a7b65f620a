"""The columns that hold vectors: their types, how float32 numbers become the stored numbers, and back.

With `vector_dtype` float32 or float16, the column `embedding` holds the numbers of each vector. With int8, two columns
hold a vector: `embedding` has small integers, and `scale` has one float32 number a row. The vector is

    value = embedding * scale,    with scale = max(|value|) / 127 and embedding = round(value / scale).

Each row has its own scale, so a stored row depends on its vector alone. The cosine of two vectors does not change when
one of them is multiplied by a number. A search by cosine can therefore compare the integers, without the scale.
docs/decisions/0021-int8-per-row.md has the reasons and the measurements.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from rasterembed.dataset.arrow_arrays import number_array
from rasterembed.dataset.selection import VectorDtype

EMBEDDING = "embedding"
"""Name of the column with the stored numbers of each vector."""

SCALE = "scale"
"""Name of the column with the scale of each row. It exists only if the vectors are stored as int8."""

_ELEMENT = f"{EMBEDDING}.list.element"
"""Path of the numbers of the vectors in the schema of a Parquet file."""

_LARGEST = 127
"""Largest stored integer. -128 is not used, so that a vector and its opposite have opposite integers."""

VECTOR_TYPES: dict[VectorDtype, pa.DataType] = {"float32": pa.float32(), "float16": pa.float16(), "int8": pa.int8()}
"""Arrow type of the stored numbers, by the type of the vectors."""


def vector_fields(vector_dtype: VectorDtype, dimensions: int) -> tuple[pa.Field, ...]:
    """Return the fields of the columns that hold a vector: `embedding`, and `scale` for int8.

    Args:
        vector_dtype: type of the stored vectors.
        dimensions: length of a vector.
    """
    element = pa.field("element", VECTOR_TYPES[vector_dtype], nullable=False)
    embedding = pa.field(EMBEDDING, pa.list_(element, dimensions), nullable=False)
    return (embedding, pa.field(SCALE, pa.float32(), nullable=False)) if vector_dtype == "int8" else (embedding,)


def largest_number(vector_dtype: VectorDtype) -> float:
    """Return a bound for the numbers of a vector. The absolute value of each number must be below it.

    Args:
        vector_dtype: type of the stored vectors.
    """
    match vector_dtype:
        case "float32":
            return float("inf")
        case "float16":
            return float(np.finfo(np.float16).max)
        case "int8":
            # The scale may be rounded up. Twice the bound is the largest float32, so the decoded numbers are finite.
            return float(np.finfo(np.float32).max) / 2


def vector_columns(vector_dtype: str) -> tuple[str, ...]:
    """Return the names of the columns that hold a vector.

    Args:
        vector_dtype: type of the stored vectors, for example from `Manifest.vector_dtype`.
    """
    return (EMBEDDING, SCALE) if vector_dtype == "int8" else (EMBEDDING,)


def vector_encoding(vector_dtype: VectorDtype) -> dict[str, Any]:
    """Return the options of a Parquet writer for a table with vectors.

    Args:
        vector_dtype: type of the stored vectors.
    """
    # docs/encoding.md has the measurements. DuckDB reads BYTE_STREAM_SPLIT only for float32 and float64. Parquet has no
    # type of one byte, and stores an int8 in four bytes. A dictionary has at most 255 entries, so it takes one byte.
    return {
        "compression": "zstd",
        "use_dictionary": [_ELEMENT] if vector_dtype == "int8" else False,
        "column_encoding": {_ELEMENT: "BYTE_STREAM_SPLIT"} if vector_dtype == "float32" else None,
    }


@dataclass(frozen=True)
class StoredNumbers:
    """The numbers of n vectors as a file holds them."""

    numbers: NDArray[np.float32] | NDArray[np.float16] | NDArray[np.int8]
    """The column `embedding`, shape (n, dimensions)."""
    scale: NDArray[np.float32] | None = None
    """The column `scale`, shape (n,). None if the vectors are not stored as int8."""

    def arrays(self, fields: tuple[pa.Field, ...]) -> list[pa.Array]:
        """Return the columns for the fields from `vector_fields`."""
        numbers = pa.FixedSizeListArray.from_arrays(number_array(self.numbers.ravel()), type=fields[0].type)
        return [numbers] if self.scale is None else [numbers, number_array(self.scale)]

    def vectors(self) -> NDArray[np.float32]:
        """Return the vectors, shape (n, dimensions)."""
        if self.scale is None:
            return self.numbers.astype(np.float32, copy=False)
        return self.numbers.astype(np.float32) * self.scale[:, None]


def store_vectors(vectors: NDArray[np.float32], vector_dtype: VectorDtype) -> StoredNumbers:
    """Convert vectors to the numbers that a file holds.

    A float16 is the nearest one. An int8 is rounded to the nearest integer, and a number in the middle between two
    integers to the even one. A zero vector has the scale 0.

    Args:
        vectors: numbers within `largest_number`, shape (n, dimensions), float32.
        vector_dtype: type of the stored vectors.

    Raises:
        ValueError: if a number is not finite, and the type is int8, which cannot store such a number.
    """
    match vector_dtype:
        case "float32":
            return StoredNumbers(vectors)
        case "float16":
            return StoredNumbers(vectors.astype(np.float16))
    scale = np.abs(vectors).max(axis=1, initial=0.0) / np.float32(_LARGEST)
    if not np.isfinite(scale).all():
        raise ValueError("a vector with a number that is not finite cannot be stored as int8")
    # The scale of a vector of tiny numbers is rounded. Without the bounds, a quotient could exceed 127.
    quotients = np.divide(vectors, scale[:, None], out=np.zeros_like(vectors), where=scale[:, None] > 0)
    return StoredNumbers(np.rint(quotients).clip(-_LARGEST, _LARGEST).astype(np.int8), scale)


def decode_vectors(rows: pa.RecordBatch | pa.Table) -> NDArray[np.float32]:
    """Return the vectors of rows that were read from a shard or from the table of a collection.

    Args:
        rows: n rows with the column `embedding`, and with the column `scale` if `embedding` holds int8.

    Returns:
        Shape (n, dimensions), dtype float32, not normalised.

    Raises:
        ValueError: if the column `embedding` does not hold vectors of one length, or if int8 numbers have no scale.

    Example:
        >>> import pyarrow.parquet as pq
        >>> from rasterembed import decode_vectors
        >>> decode_vectors(pq.read_table("shard.parquet", columns=["embedding", "scale"]))  # doctest: +SKIP
    """
    column = _whole(rows, EMBEDDING)
    if not pa.types.is_fixed_size_list(column.type) or column.null_count:
        raise ValueError(f"the column {EMBEDDING!r} does not hold vectors of one length in every row")
    numbers = column.flatten().to_numpy(zero_copy_only=False).reshape(len(column), column.type.list_size)
    if column.type.value_type != pa.int8():
        return StoredNumbers(numbers).vectors()
    if SCALE not in rows.schema.names:
        raise ValueError(f"the column {EMBEDDING!r} holds int8, so the column {SCALE!r} is needed too")
    return StoredNumbers(numbers, _whole(rows, SCALE).to_numpy(zero_copy_only=False)).vectors()


def decode_vector(numbers: Sequence[float], scale: float = 1.0) -> NDArray[np.float32]:
    """Return one vector from Python numbers, as DuckDB returns them, shape (dimensions,).

    Args:
        numbers: value of the column `embedding`.
        scale: value of the column `scale`, if the file has it.
    """
    stored = StoredNumbers(np.array([numbers], dtype=np.float32), np.array([scale], dtype=np.float32))
    vector: NDArray[np.float32] = stored.vectors()[0]
    return vector


def _whole(rows: pa.RecordBatch | pa.Table, name: str) -> pa.Array:
    column = rows.column(name)
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
