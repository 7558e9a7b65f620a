"""Write and map Arrow IPC files. A mapped file is checked, because it may come from a stranger."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa

from rasterembed.search.engines.engine import IndexUnusableError, NoIndexReason
from rasterembed.search.index.stored_rows import BLOCK_ROWS


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
        with pa.memory_map(str(path)) as source:
            reader = pa.ipc.open_file(source)
            if not reader.schema.equals(schema):
                raise IndexUnusableError(NoIndexReason.FOREIGN_CONTENT)
            batches = [reader.get_batch(number) for number in range(reader.num_record_batches)]
        table = pa.Table.from_batches(batches, schema)
        sizes = [min(BLOCK_ROWS, len(table) - start) for start in range(0, len(table), BLOCK_ROWS)]
        if rows not in (None, len(table)) or [len(batch) for batch in batches] != sizes:
            raise IndexUnusableError(NoIndexReason.FOREIGN_CONTENT)
        if validate:
            table.validate(full=True)  # It checks every offset, and that every text is UTF-8.
            if any(table[field.name].null_count for field in schema if not field.nullable):
                raise IndexUnusableError(NoIndexReason.FOREIGN_CONTENT)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise IndexUnusableError(NoIndexReason.FOREIGN_CONTENT) from error
    return table
