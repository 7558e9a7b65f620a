"""Write the results of questions about all tiles: a Parquet file with its facts in the metadata, and a picture."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from rasterembed.collection.collection import Collection
from rasterembed.dataset.dataset import Dataset
from rasterembed.search.batch.all_tiles import AllTiles
from rasterembed.search.output_file import OutputFile, find_output

FACTS_KEY = b"raster_embeddings_result"
"""Key of the facts in the metadata of the Parquet file. The value is a JSON object."""

BATCH_ROWS = 500_000
"""Largest number of rows of a file in memory at once, and in a row group."""

TILE_FIELDS = (
    pa.field("dataset_id", pa.dictionary(pa.int32(), pa.string()), nullable=False),
    pa.field("tile_id", pa.string(), nullable=False),
)
"""Columns that name the tile of a row, as `AllTiles.ids` returns them."""


@dataclass(frozen=True)
class BatchResult:
    """The result of a question about all tiles."""

    summary: str
    """The result in one line, for people."""
    facts: Mapping[str, Any]
    """Parameters and measured values. The metadata of the file has them too."""
    file: str
    """Path or URI of the file with the result."""
    picture: str | None
    """Path or URI of the picture. None if none was asked for."""

    def __repr__(self) -> str:
        """Return the text of `print`. The facts are left out."""
        return f"BatchResult: {self}"

    def __str__(self) -> str:
        """Return the result as text for people."""
        written = [f"written: {file}" for file in (self.file, self.picture) if file is not None]
        return "\n".join([self.summary, *written])


@dataclass(frozen=True)
class Drawn:
    """A picture."""

    png: bytes
    """The content of the PNG file."""
    datasets: Sequence[Dataset]
    """Datasets whose rasters were read."""


@dataclass(frozen=True)
class ResultFiles:
    """The files that a question writes."""

    table: OutputFile
    picture: OutputFile | None

    def write_picture(self, drawn: Drawn) -> None:
        """Write the picture, if one was asked for.

        Raises:
            UsageError: if the picture would replace a raster that it shows.
            StoreError: if the file cannot be written.
        """
        if self.picture is not None:
            self.picture.check_not_read(address for dataset in drawn.datasets for address in dataset.plan.rasters)
            self.picture.write(drawn.png)

    def result(self, summary: str, facts: Mapping[str, Any]) -> BatchResult:
        """Return the result with the names of the files."""
        return BatchResult(summary, facts, str(self.table), None if self.picture is None else str(self.picture))


def find_result_files(
    owner: Dataset | Collection,
    out: OutputFile | Path | str,
    picture: OutputFile | Path | str | None,
    endings: Iterable[str] = (".parquet",),
) -> ResultFiles:
    """Return the files for a result. Call this function first, so that a wrong name is found before the work.

    Args:
        owner: the dataset or the collection. Its files, and the rasters that pictures are cut from, are not replaced.
        out: file for the table: a local file, or `store:KEY` for an object of the store.
        picture: file for the picture, or None.
        endings: allowed endings of the name of the table.

    Raises:
        UsageError: if a name is wrong, or if the file is one that is read. See `find_output`.
    """
    files = ResultFiles(
        out if isinstance(out, OutputFile) else find_output(owner.store, out, *endings),
        picture if isinstance(picture, OutputFile | None) else find_output(owner.store, picture, ".png"),
    )
    read = owner.plan.rasters if isinstance(owner, Dataset) else owner.catalogue.table["source"].to_pylist()
    for file in (files.table, files.picture):
        if file is not None:
            file.check_not_read(read)
    return files


def write_table(
    tiles: AllTiles,
    file: OutputFile,
    question: str,
    facts: Mapping[str, Any],
    schema: pa.Schema,
    batches: Iterable[pa.RecordBatch],
) -> None:
    """Write rows to a Parquet file in one atomic step. Only some batches are in memory.

    The metadata of the file has the facts, and says which vectors they are about.

    Args:
        tiles: the tiles that the result is about.
        file: the file.
        question: name of the question, such as `neighbours`.
        facts: parameters and measured values.
        schema: columns of the file.
        batches: the rows.

    Raises:
        StoreError: if the file cannot be written.
    """
    about = {
        "question": question,
        "collection" if tiles.files.of_collection else "dataset": tiles.files.owner_id,
        "vectors": tiles.files.digest,
        "model": tiles.model,
        "tiles": tiles.count,
        **facts,
    }
    schema = schema.with_metadata({FACTS_KEY: json.dumps(about).encode()})
    with file.new_local_file() as path, pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for batch in batches:
            writer.write_batch(batch.replace_schema_metadata(schema.metadata))
