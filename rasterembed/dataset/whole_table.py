"""Read a whole Parquet file into memory, within limits.

A small file can hold a table that is larger than the memory: Parquet stores equal values once, and compresses them. The
numbers in the footer are compared with the limits before rows are read. The footer may lie, so texts are also counted
while they are read, and equal texts are kept once until then.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import IO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

_BATCH_ROWS = 4096
"""Largest number of rows that are read before their size is compared with the limits."""

_NUMBER_BYTES = 8
"""Largest size of a number in memory."""


@dataclass(frozen=True)
class TableLimits:
    """Largest size of a table that is read whole."""

    rows: int
    """Largest number of rows."""
    bytes: int
    """Largest size of the file, and of the rows in memory, in bytes."""


class TableTooLargeError(ValueError):
    """A Parquet file exceeds its limits. The text says which one, without the name of the file.

    It is one of the errors in `rasterembed.dataset.geoparquet.PARQUET_ERRORS`.
    """


def read_whole_table(file: IO[bytes], limits: TableLimits, columns: Sequence[str] | None = None) -> pa.Table:
    """Read a Parquet file into memory.

    Args:
        file: the file.
        limits: largest size that is believed.
        columns: names of the columns to read, in the order of the result. By default, all columns.

    Returns:
        The table. It has the types of the file.

    Raises:
        TableTooLargeError: if the file exceeds the limits.
        KeyError: if the file has no such column.
        pyarrow.ArrowException, OSError: if the file is damaged.
    """
    size = file.seek(0, 2)
    if size > limits.bytes:
        raise TableTooLargeError(f"it has {size} bytes, more than {limits.bytes}")
    file.seek(0)
    parquet = pq.ParquetFile(file)
    schema = parquet.schema_arrow
    names = schema.names if columns is None else list(columns)
    for name in names:
        if schema.names.count(name) != 1:
            raise KeyError(f"it has no column {name}, or several")
    _check_footer(parquet.metadata, limits, set(names))
    # pyarrow keeps equal values of these columns once. The size of the column is then known before it is unpacked.
    texts = [name for name in names if _is_text(schema.field(name).type)]
    file.seek(0)
    parquet = pq.ParquetFile(file, metadata=parquet.metadata, read_dictionary=texts)
    batches, total = [], 0
    for batch in parquet.iter_batches(_BATCH_ROWS, columns=names):
        total += sum(_size(column) for column in batch.columns)
        if total > limits.bytes:
            raise TableTooLargeError(f"its rows need more than {limits.bytes} bytes of memory")
        batches.append(batch.select(names).cast(pa.schema([schema.field(name) for name in names])))
    wanted = pa.schema([schema.field(name) for name in names], metadata=schema.metadata)
    return pa.Table.from_batches(batches, wanted.remove_metadata()).replace_schema_metadata(wanted.metadata)


def _check_footer(footer: pq.FileMetaData, limits: TableLimits, names: set[str]) -> None:
    """Compare the number of rows in a footer, and the sizes of some columns, with the limits.

    Raises:
        TableTooLargeError: if the rows are too many or too large.
    """
    if footer.num_rows > limits.rows:
        raise TableTooLargeError(f"it has {footer.num_rows} rows, more than {limits.rows}")
    total = 0
    for number in range(footer.num_row_groups):
        group = footer.row_group(number)
        for place in range(group.num_columns):
            column = group.column(place)
            if column.path_in_schema.partition(".")[0] not in names:
                continue
            numbers = 0 if column.physical_type == "BYTE_ARRAY" else column.num_values * _NUMBER_BYTES
            total += max(column.total_uncompressed_size, numbers)
    if total > limits.bytes:
        raise TableTooLargeError(f"its rows have {total} bytes, more than {limits.bytes}")


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_binary(kind))


def _size(column: pa.Array) -> int:
    """Return the size of a column in bytes after it is unpacked."""
    if not pa.types.is_dictionary(column.type):
        return int(column.nbytes)
    lengths = pc.binary_length(column.dictionary).take(column.indices)
    return int(pc.sum(pc.cast(lengths, pa.int64())).as_py() or 0)
