"""Write and map Arrow IPC files. A mapped file is checked, because it may come from a stranger."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa

from rasterembed.search.engines.engine import IndexUnusableError, NoIndexReason
from rasterembed.search.index.stored_rows import BLOCK_ROWS

_MAGIC = b"ARROW1\0\0"
"""The first bytes of an Arrow file."""


class ArrowFileWriter:
    """Writes rows into batches of `BLOCK_ROWS` rows. Only the last batch has fewer.

    Args:
        writer: writer of the file.
        schema: columns of the file.
    """

    def __init__(self, writer: pa.ipc.RecordBatchFileWriter, schema: pa.Schema) -> None:
        self._writer, self._schema = writer, schema
        self._waiting = schema.empty_table()

    def write(self, rows: pa.Table) -> None:
        """Add rows with the columns of the file."""
        self._waiting = pa.concat_tables([self._waiting, rows.cast(self._schema)])
        full = len(self._waiting) // BLOCK_ROWS * BLOCK_ROWS
        for start in range(0, full, BLOCK_ROWS):
            self._write(self._waiting.slice(start, BLOCK_ROWS))
        if full:
            self._waiting = self._waiting.slice(full)

    def finish(self) -> None:
        """Write the last rows."""
        if len(self._waiting):
            self._write(self._waiting)

    def _write(self, rows: pa.Table) -> None:
        self._writer.write_batch(rows.combine_chunks().to_batches()[0])


@contextmanager
def arrow_file(path: Path, schema: pa.Schema) -> Iterator[ArrowFileWriter]:
    """Yield a writer for a new Arrow file without compression. The file is complete at the end of the block.

    Args:
        path: the new file.
        schema: columns of the file.

    Raises:
        OSError: if the file cannot be written.
    """
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
        rows = ArrowFileWriter(writer, schema)
        yield rows
        rows.finish()


def map_arrow_file(path: Path, schema: pa.Schema, rows: int | None, *, validate: bool) -> pa.Table:
    """Map a file that `arrow_file` wrote. Nothing is copied into memory.

    Args:
        path: the file.
        schema: columns that the file must have.
        rows: number of rows that the file must have. None: any number.
        validate: whether to look at every row. Do this when the file is opened for the first time.

    Raises:
        IndexUnusableError: if the file is not one that `arrow_file` can have written for these columns.
    """
    try:
        batches = _map_batches(path, schema)
        table = pa.Table.from_batches(batches, schema)
        sizes = [min(BLOCK_ROWS, len(table) - start) for start in range(0, len(table), BLOCK_ROWS)]
        if rows not in (None, len(table)) or [len(batch) for batch in batches] != sizes:
            raise IndexUnusableError(NoIndexReason.FOREIGN_CONTENT)
        if validate:
            table.validate(full=True)  # It checks every offset, and that every text is UTF-8.
            if any(table[field.name].null_count for field in schema if not field.nullable):
                raise IndexUnusableError(NoIndexReason.FOREIGN_CONTENT)
    except (pa.ArrowException, OSError, ValueError, struct.error) as error:
        raise IndexUnusableError(NoIndexReason.FOREIGN_CONTENT) from error
    return table


def _map_batches(path: Path, schema: pa.Schema) -> list[pa.RecordBatch]:
    """Map the batches of a file without compression. Nothing of the content is checked, except the columns.

    The file is read from its beginning, like a stream: the messages with the columns and with each batch. The footer
    could lead to other batches.
    """
    with pa.memory_map(str(path)) as source:
        if source.read(len(_MAGIC)) != _MAGIC:
            raise ValueError("it does not begin as an Arrow file")
        messages = pa.ipc.MessageReader.open_stream(source)
        if not pa.ipc.read_schema(messages.read_next_message()).equals(schema):
            raise ValueError("it has other columns")
        batches = []
        for message in messages:
            # A compressed batch of a few bytes could fill the memory.
            if message.type != "record batch" or _is_compressed(message.metadata.to_pybytes()):
                raise ValueError("it has a batch that is compressed or of another kind")
            batches.append(pa.ipc.read_record_batch(message, schema))
    return batches


def _is_compressed(metadata: bytes) -> bool:
    """Return whether the message of a batch says that its body is compressed.

    pyarrow does not show this. The metadata is a flatbuffer with the tables `Message` and `RecordBatch` of the Arrow
    format: https://github.com/apache/arrow/blob/main/format/Message.fbs
    """
    (message,) = struct.unpack_from("<I", metadata)
    header = _field(metadata, message, 2)
    if header is None:
        raise ValueError("the message has no header")
    batch = header + struct.unpack_from("<I", metadata, header)[0]
    return _field(metadata, batch, 3) is not None


def _field(data: bytes, table: int, number: int) -> int | None:
    """Return the position of a field of a table in a flatbuffer, or None if the table has no such field."""
    entries = table - struct.unpack_from("<i", data, table)[0]
    (size,) = struct.unpack_from("<H", data, entries)
    if 4 + 2 * number >= size:
        return None
    (offset,) = struct.unpack_from("<H", data, entries + 4 + 2 * number)
    return table + offset if offset else None
