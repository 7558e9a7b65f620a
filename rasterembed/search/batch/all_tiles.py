"""Open all tiles of a dataset or a collection: their rows, and their vectors in a mapped file."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from rasterembed.collection.collection import Collection
from rasterembed.collection.scene_row import SceneState
from rasterembed.dataset.dataset import Dataset
from rasterembed.dataset.geoparquet import PARQUET_ERRORS
from rasterembed.errors import DataError, os_errors
from rasterembed.search.collection_searcher import open_table_files
from rasterembed.search.datasets import choose_datasets
from rasterembed.search.index.stored_rows import BLOCK_ROWS, StoredRows, StoredVectors
from rasterembed.search.vector_files import VectorFiles
from rasterembed.store.local_cache import scratch_folder

if TYPE_CHECKING:
    from rasterembed.store.object_store import ObjectStore

_NUMBERS = ("row", "col", "col_off", "row_off", "width", "height")
_SCHEMA = pa.schema(
    [
        pa.field("dataset_id", pa.string(), nullable=False),
        pa.field("tile_id", pa.string(), nullable=False),
        *(pa.field(name, pa.int32(), nullable=False) for name in _NUMBERS),
        pa.field("valid_fraction", pa.float32(), nullable=False),
        pa.field("geometry", pa.binary()),
    ]
)
"""Columns of the rows."""


@dataclass(frozen=True)
class AllTiles:
    """All tiles of a dataset or a collection that have a vector and are ready to be searched. n is their number.

    The rows and the vectors are mapped from files, so they take little memory.
    """

    owner: Dataset | Collection
    files: VectorFiles
    """The Parquet files that the tiles were read from."""
    model: str
    """Id of the model that computed the vectors, or `demo (untrained)`."""
    rows: StoredRows
    """Rows with the columns `dataset_id`, `tile_id`, `row`, `col`, `col_off`, `row_off`, `width`, `height`,
    `valid_fraction` and `geometry`, in the order of the shards or of the table."""
    folder: Path
    """Local folder for temporary files. It is removed when the tiles are closed."""

    @property
    def count(self) -> int:
        """Number of tiles."""
        return self.rows.vectors.rows

    @property
    def vectors(self) -> StoredVectors:
        """The vectors of the tiles, in the order of the rows."""
        return self.rows.vectors

    @property
    def store(self) -> ObjectStore:
        """The store of the dataset or the collection."""
        return self.owner.store

    @cached_property
    def tile_ids(self) -> pa.Array:
        """The column `tile_id`, shape (n,)."""
        return self.rows.table["tile_id"].combine_chunks()

    @cached_property
    def dataset_ids(self) -> pa.DictionaryArray:
        """The column `dataset_id`, shape (n,). Each id is stored once."""
        return self.rows.table["dataset_id"].dictionary_encode().combine_chunks()

    @cached_property
    def id_rank(self) -> NDArray[np.int64]:
        """Place of each tile in the order of the tile ids and then of the dataset ids, from 0, shape (n,)."""
        ids = pa.table({"tile_id": self.tile_ids, "dataset_id": self.rows.table["dataset_id"]})
        order = pc.sort_indices(ids, [("tile_id", "ascending"), ("dataset_id", "ascending")]).to_numpy()
        rank = np.empty(self.count, np.int64)
        rank[order] = np.arange(self.count)
        return rank

    @cached_property
    def valid_fraction(self) -> NDArray[np.float32]:
        """Share of valid pixels of each tile, shape (n,)."""
        fraction: NDArray[np.float32] = self.rows.table["valid_fraction"].to_numpy()
        return fraction

    def ids(self, part: slice) -> tuple[pa.Array, pa.Array]:
        """Return the columns `dataset_id` and `tile_id` of successive tiles."""
        start, stop, _ = part.indices(self.count)
        return self.dataset_ids.slice(start, stop - start), self.tile_ids.slice(start, stop - start)

    def name_of(self, number: int) -> str:
        """Return the name of a tile for people: `dataset/tile`."""
        return f"{self.dataset_ids[number].as_py()}/{self.tile_ids[number].as_py()}"


@contextmanager
def open_all_tiles(owner: Dataset | Collection) -> Iterator[AllTiles]:
    """Read all tiles with their vectors into temporary local files, and map the files. They are removed at the end.

    The rules are those of a search: a dataset must be ready, and of a collection, the tiles of all ready scenes in the
    table are read.

    Args:
        owner: the dataset or the collection.

    Raises:
        DataError: if there is no ready tile, if a file cannot be read, or if a vector has no direction.
        StoreError: if the store refuses or does not answer, or if the disk is full.
    """
    if isinstance(owner, Dataset):
        (dataset,) = choose_datasets(owner.store, [owner.id]).datasets
        owner, files, model = dataset, VectorFiles.of_dataset(dataset), dataset.manifest.model
        batches: Iterator[pa.RecordBatch] = _dataset_batches(dataset)
    else:
        files, model = open_table_files(owner), owner.configuration.model.name
        batches = _collection_batches(owner)
    with tempfile.TemporaryDirectory(prefix="all-tiles-", dir=scratch_folder()) as folder:
        rows = _write(Path(folder), files, batches)
        yield AllTiles(owner, files, model, rows, Path(folder))


def _dataset_batches(dataset: Dataset) -> Iterator[pa.RecordBatch]:
    names = [name for name in _SCHEMA.names if name != "dataset_id"]
    for batch in dataset.batches([*names, "embedding"]):
        ids = pa.repeat(pa.scalar(dataset.id), len(batch))
        columns = [ids, *(batch.column(name) for name in (*names, "embedding"))]
        yield pa.RecordBatch.from_arrays(columns, names=["dataset_id", *names, "embedding"])


def _collection_batches(collection: Collection) -> Iterator[pa.RecordBatch]:
    from rasterembed.collection.table import table_batches

    ready = collection.catalogue.filter(states=[SceneState.READY]).table["id"].combine_chunks()
    assert collection.table is not None  # `open_table_files` has checked it.
    for batch in table_batches(collection.store, collection.layout, collection.table, [*_SCHEMA.names, "embedding"]):
        yield batch.filter(pc.is_in(batch.column("dataset_id"), ready))


def _write(folder: Path, files: VectorFiles, batches: Iterator[pa.RecordBatch]) -> StoredRows:
    """Write the rows and the vectors to two files, and map them."""
    rows_file, vectors_file = folder / "rows.arrow", folder / "vectors.bin"
    count, waiting, waiting_rows = 0, list[pa.RecordBatch](), 0
    with (
        os_errors(str(folder)),
        pa.OSFile(str(rows_file), "wb") as sink,
        vectors_file.open("wb") as vectors,
        pa.ipc.new_file(sink, _SCHEMA) as writer,
    ):
        for batch in batches:
            vectors.write(_matrix(files, batch).data)
            try:
                waiting.append(batch.select(_SCHEMA.names).cast(_SCHEMA))
            except PARQUET_ERRORS as error:
                raise files.impossible_row(error) from error
            count, waiting_rows = count + len(batch), waiting_rows + len(batch)
            if waiting_rows >= BLOCK_ROWS:
                table = pa.Table.from_batches(waiting)
                whole = waiting_rows // BLOCK_ROWS * BLOCK_ROWS
                _write_blocks(writer, table.slice(0, whole))
                rest = table.slice(whole)
                waiting, waiting_rows = rest.to_batches(), len(rest)
        _write_blocks(writer, pa.Table.from_batches(waiting, _SCHEMA))
    if count == 0:
        raise DataError(f"{files.name} has no vector of a scene that is ready: {files.advice}")
    table = pa.ipc.open_file(pa.memory_map(str(rows_file))).read_all()
    return StoredRows(table, StoredVectors(vectors_file, count, files.dimensions, "float32"))


def _write_blocks(writer: pa.ipc.RecordBatchFileWriter, table: pa.Table) -> None:
    for start in range(0, len(table), BLOCK_ROWS):
        for batch in table.slice(start, BLOCK_ROWS).combine_chunks().to_batches():
            writer.write_batch(batch)


def _matrix(files: VectorFiles, batch: pa.RecordBatch) -> NDArray[np.float32]:
    """Return the vectors of a batch, shape (rows, dimensions).

    Raises:
        DataError: if a vector has another length, a number that is not finite, or only zeros.
    """
    values = batch.column("embedding").flatten().to_numpy(zero_copy_only=False)
    if len(values) != len(batch) * files.dimensions:
        raise DataError(f"{files.name}: a vector does not have {files.dimensions} numbers: {files.advice}")
    matrix = np.ascontiguousarray(values.reshape(len(batch), files.dimensions), np.float32)
    largest = np.abs(matrix).max(axis=1, initial=0.0)
    wrong = np.flatnonzero(~(np.isfinite(largest) & (largest > 0.0)))
    if len(wrong):
        tile = f"{batch.column('dataset_id')[wrong[0]].as_py()}/{batch.column('tile_id')[wrong[0]].as_py()}"
        raise DataError(
            f"{files.name}: the vector of tile {tile} has no direction, because it is zero or not finite: "
            f"{files.advice}"
        )
    return matrix


def scenes_shown(tiles: AllTiles, numbers: Sequence[int] | NDArray[np.int64]) -> list[Dataset]:
    """Open the datasets of some tiles, each once.

    Args:
        tiles: all tiles.
        numbers: row numbers of the tiles.
    """
    ids = dict.fromkeys(tiles.dataset_ids.take(pa.array(numbers, pa.int64())).to_pylist())
    if isinstance(tiles.owner, Dataset):
        return [tiles.owner]
    return [Dataset.open(tiles.store, dataset_id) for dataset_id in ids]
