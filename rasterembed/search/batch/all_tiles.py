"""Open all tiles of a dataset or a collection: their rows, and their vectors in a mapped file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from rasterembed.collection.collection import Collection
from rasterembed.collection.scene_row import SceneState
from rasterembed.collection.table import table_batches
from rasterembed.dataset.dataset import Dataset
from rasterembed.dataset.manifest import State
from rasterembed.dataset.vector_column import decode_vectors, vector_columns
from rasterembed.errors import Access, DataError, os_errors
from rasterembed.search.batch.joined_segments import join_segments
from rasterembed.search.collection_searcher import open_table_files
from rasterembed.search.datasets import choose_datasets
from rasterembed.search.engines.engine import IndexUnusableError
from rasterembed.search.index.arrow_file import arrow_file, map_arrow_file
from rasterembed.search.index.opening import open_segments
from rasterembed.search.index.stored_rows import StoredRows, StoredVectors
from rasterembed.search.vector_files import VectorFiles
from rasterembed.store.local_cache import temporary_folder

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
"""Columns of the rows of a dataset."""

_TABLE_SCHEMA = _SCHEMA.append(pa.field("lattice", pa.string()))
"""Columns of the rows of a collection."""

_ROWS_FILE = "rows.arrow"
"""Name of the temporary file with rows."""


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
    """Rows in the order of the shards or of the table, with the columns of
    `rasterembed.search.vector_files.VectorFiles.index_schema`, except for `bbox` and `datetime`."""
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
        if isinstance(self.owner, Dataset):
            # The rows of a dataset's vector index do not have this column.
            return pa.DictionaryArray.from_arrays(pa.repeat(pa.scalar(0, pa.int32()), self.count), [self.owner.id])
        return self.rows.table["dataset_id"].dictionary_encode().combine_chunks()

    @cached_property
    def id_rank(self) -> NDArray[np.int64]:
        """Place of each tile in the order of the tile ids and then of the dataset ids, from 0, shape (n,)."""
        keys = ["tile_id", "dataset_id"] if self.files.of_collection else ["tile_id"]
        ids = pa.table({name: self.rows.table[name] for name in keys})
        order = pc.sort_indices(ids, [(name, "ascending") for name in keys]).to_numpy()
        rank = np.empty(self.count, np.int64)
        rank[order] = np.arange(self.count)
        return rank

    @cached_property
    def valid_fraction(self) -> NDArray[np.float32]:
        """Share of valid pixels of each tile, shape (n,)."""
        fraction: NDArray[np.float32] = self.rows.table["valid_fraction"].to_numpy()
        return fraction

    def take(self, numbers: NDArray[np.int64]) -> list[dict[str, Any]]:
        """Return some rows as dictionaries with the columns `dataset_id`, `tile_id`, `row`, `col`, `col_off`,
        `row_off`, `width`, `height`, `valid_fraction` and `geometry`.

        Args:
            numbers: row numbers.
        """
        names = tuple(name for name in _SCHEMA.names if name != "dataset_id")
        ids = self.dataset_ids.take(pa.array(numbers, pa.int64())).to_pylist()
        rows = self.rows.values(np.asarray(numbers, np.int64), names)
        return [{"dataset_id": dataset_id, **row} for dataset_id, row in zip(ids, rows, strict=True)]

    def ids(self, part: slice) -> tuple[pa.Array, pa.Array]:
        """Return the columns `dataset_id` and `tile_id` of successive tiles."""
        start, stop, _ = part.indices(self.count)
        return self.dataset_ids.slice(start, stop - start), self.tile_ids.slice(start, stop - start)

    def name_of(self, number: int) -> str:
        """Return the name of a tile for people: `dataset/tile`."""
        return f"{self.dataset_ids[number].as_py()}/{self.tile_ids[number].as_py()}"


@contextmanager
def open_all_tiles(
    owner: Dataset | Collection, *, check_directions: bool = True, states: Sequence[State] = ("ready",)
) -> Iterator[AllTiles]:
    """Open all tiles with their vectors. The files of a vector index are used, if the index has the same tiles.

    If the index of a collection has several segments, or more rows than the tiles of a search, the rows are copied into
    a temporary local file, in the order of the table. The vectors stay in the files of the index. Without an index, all
    tiles are read into temporary local files. These files are removed at the end.

    The rules are those of a search: a dataset must be in one of `states`, and of a collection, the tiles of all ready
    scenes in the table are read.

    Args:
        owner: the dataset or the collection.
        check_directions: whether all vectors are read once, to find one without a direction.
        states: states in which a dataset is accepted. The explorer shows the tiles of a dataset in any state.

    Raises:
        DataError: if there is no ready tile, if a file cannot be read, or if a vector has no direction.
        StoreError: if the store refuses or does not answer, or if the disk is full.
    """
    if isinstance(owner, Dataset):
        (owner,) = choose_datasets(owner.store, [owner.id], states=states).datasets
        files, model = VectorFiles.of_dataset(owner), owner.manifest.model
    else:
        owner, files = open_table_files(owner)
        model = owner.configuration.model.name
    with ExitStack() as stack:
        folder = stack.enter_context(temporary_folder("all-tiles"))
        rows = _rows_of_index(owner, files, folder, stack)
        if rows is None:
            rows = _write(folder, files, _batches_with_vectors(owner))
        tiles = AllTiles(owner, files, model, rows, folder)
        if check_directions:
            refuse_without_direction(tiles)
        yield tiles


def _rows_of_index(
    owner: Dataset | Collection, files: VectorFiles, folder: Path, stack: ExitStack
) -> StoredRows | None:
    """Return the rows of the vector index, or None if there is no index that has exactly the tiles of a search."""
    try:
        index = open_segments(files)
    except IndexUnusableError:
        return None
    stack.callback(index.close)
    first, *more = index.segments
    if isinstance(owner, Dataset):
        return None if more else first.rows
    ready = _ready(owner)
    if not more and first.live is None and pc.all(pc.is_in(first.rows.table["dataset_id"], ready)).as_py():
        return first.rows
    batches = _collection_batches(owner, _TABLE_SCHEMA.names)
    return join_segments(index, ready, batches, _TABLE_SCHEMA, folder / _ROWS_FILE)


def _ready(collection: Collection) -> pa.Array:
    """Return the ids of the scenes that are ready."""
    return collection.catalogue.filter(states=[SceneState.READY]).table["id"].combine_chunks()


def _dataset_batches(dataset: Dataset) -> Iterator[pa.RecordBatch]:
    names = [name for name in _SCHEMA.names if name != "dataset_id"]
    for batch in dataset.batches([*names, *dataset.vector_columns]):
        yield batch.append_column("dataset_id", pa.repeat(pa.scalar(dataset.id), len(batch)))


def _collection_batches(collection: Collection, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """Yield columns of the rows of all ready scenes, in the order of the table."""
    ready = _ready(collection)
    assert collection.table is not None  # `open_table_files` has checked it.
    for batch in table_batches(collection.store, collection.layout, collection.table, columns):
        yield batch.filter(pc.is_in(batch.column("dataset_id"), ready))


def _batches_with_vectors(owner: Dataset | Collection) -> Iterator[pa.RecordBatch]:
    """Yield the rows and the vectors of all tiles of a search."""
    if isinstance(owner, Dataset):
        return _dataset_batches(owner)
    vectors = vector_columns(owner.configuration.selection.vector_dtype)
    return _collection_batches(owner, [*_TABLE_SCHEMA.names, *vectors])


def _write(folder: Path, files: VectorFiles, batches: Iterator[pa.RecordBatch]) -> StoredRows:
    """Write the rows and the vectors to two files, and map them."""
    rows_path, vectors_path, count = folder / _ROWS_FILE, folder / "vectors.bin", 0
    schema = _TABLE_SCHEMA if files.of_collection else _SCHEMA
    with (
        os_errors(str(folder), Access.WRITE),
        arrow_file(rows_path, schema) as rows,
        vectors_path.open("wb") as vectors,
    ):
        for batch in batches:
            try:
                matrix = np.ascontiguousarray(decode_vectors(batch), np.float32)
                if matrix.shape[1] != files.dimensions:
                    raise ValueError(f"a vector has {matrix.shape[1]} numbers, and not {files.dimensions}")
                rows.write(pa.table(batch.select(schema.names)))
            except (pa.ArrowException, ValueError) as error:
                raise files.impossible_row(error) from error
            vectors.write(matrix.data)
            count += len(batch)
    if count == 0:
        raise DataError(f"{files.name} has no vector of a scene that is ready: {files.advice}")
    table = map_arrow_file(rows_path, schema, count, validate=False)
    return StoredRows(table, StoredVectors.of_file(vectors_path, count, files.dimensions, "float32"))


def refuse_without_direction(tiles: AllTiles) -> None:
    """Refuse a vector of zeros, or with a number that is not finite: it has no direction.

    Raises:
        DataError: if there is such a vector.
    """
    start = 0
    for block in tiles.vectors.blocks():
        wrong = np.flatnonzero(~(np.einsum("ij,ij->i", block, block) > 0.5))
        if len(wrong):
            raise DataError(
                f"{tiles.files.name}: the vector of tile {tiles.name_of(start + int(wrong[0]))} has no direction, "
                f"because it is zero or not finite: {tiles.files.advice}"
            )
        start += len(block)


def open_datasets(tiles: AllTiles, numbers: Sequence[int] | NDArray[np.int64]) -> list[Dataset]:
    """Open the datasets of some tiles, each once.

    Args:
        tiles: all tiles.
        numbers: row numbers of the tiles.
    """
    ids = dict.fromkeys(tiles.dataset_ids.take(pa.array(numbers, pa.int64())).to_pylist())
    if isinstance(tiles.owner, Dataset):
        return [tiles.owner]
    return [Dataset.open(tiles.store, dataset_id) for dataset_id in ids]
