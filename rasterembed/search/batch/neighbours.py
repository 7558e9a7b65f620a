"""Find the nearest tiles of every tile, and write them as a table."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from rasterembed.collection.collection import Collection
from rasterembed.dataset.dataset import Dataset
from rasterembed.errors import Access, UsageError, os_errors
from rasterembed.number_text import counted
from rasterembed.search.batch.all_tiles import AllTiles, open_all_tiles
from rasterembed.search.batch.equal_vectors import EqualVectors, find_equal_vectors, write_vectors
from rasterembed.search.batch.limits import DEFAULT_NEIGHBOURS, MAX_NEIGHBOURS
from rasterembed.search.batch.nearest import distances, nearest
from rasterembed.search.batch.result_file import BATCH_ROWS, TILE_FIELDS, BatchResult, find_result_files, write_table
from rasterembed.search.batch.vector_lists import EXACT_ROWS, VectorLists, find_true_neighbours, make_lists
from rasterembed.search.index.stored_rows import StoredVectors
from rasterembed.search.output_file import OutputFile, picture_after

_SPARE = 4
"""Number of candidates above those that are asked for. Their distances are computed again more exactly."""

_BLOCK = 4096
"""Number of tiles whose neighbours are put in order at once."""

_SCHEMA = pa.schema(
    [
        *TILE_FIELDS,
        pa.field("rank", pa.int32(), nullable=False),
        pa.field("neighbour_dataset_id", pa.dictionary(pa.int32(), pa.string()), nullable=False),
        pa.field("neighbour_tile_id", pa.string(), nullable=False),
        pa.field("distance", pa.float32(), nullable=False),
    ]
)


@dataclass(frozen=True)
class NeighbourTable:
    """The nearest tiles of all tiles. n is the number of tiles."""

    numbers: NDArray[np.int64]
    """Row numbers of the neighbours, nearest first, shape (n, k). -1 where there are fewer. Mapped from a file."""
    distances: NDArray[np.float32]
    """Cosine distances of the neighbours, shape (n, k). Mapped from a file."""
    lists: VectorLists | None
    """The lists of vectors that were compared. None if every tile was compared with every other."""
    recall: float
    """Share of the true neighbours that were found, in a sample. 1 if every tile was compared with every other."""
    sample: int
    """Number of tiles in the sample. 0 if every tile was compared with every other."""


def write_neighbours(
    owner: Dataset | Collection,
    out: OutputFile | Path | str,
    k: int = DEFAULT_NEIGHBOURS,
    *,
    picture: OutputFile | Path | str | None = None,
) -> BatchResult:
    """Write the k nearest other tiles of every tile to a Parquet file, with a row for each pair.

    Up to `EXACT_ROWS` tiles, every tile is compared with every other. Of more tiles, a tile is compared with the tiles
    of the nearest lists. The metadata of the file then says which share of the true neighbours was found in a sample.

    Neighbours with the same distance are in the order of their tile ids, and then of their dataset ids. The order of
    neighbours whose distances differ by less than 1e-6 may be another on other machines.

    Args:
        owner: a dataset or a collection.
        out: the file, such as `neighbours.parquet`. An existing file is replaced.
        k: number of neighbours of a tile, 1 to `MAX_NEIGHBOURS`.
        picture: PNG file for a histogram of the distances, with example tiles and their neighbours.

    Returns:
        A summary. The file has the columns `dataset_id`, `tile_id`, `rank` (from 1), `neighbour_dataset_id`,
        `neighbour_tile_id` and `distance` (cosine distance, 0 to 2).

    Raises:
        UsageError: if k is out of bounds, or if a file name is wrong.
        DataError: if the dataset is not ready, or if a file cannot be read.
        StoreError: if a file cannot be written.

    Example:
        >>> print(write_neighbours(dataset, "neighbours.parquet", k=5))  # doctest: +SKIP
    """
    if not 1 <= k <= MAX_NEIGHBOURS:
        raise UsageError(f"`k` is {k}: ask for 1 to {MAX_NEIGHBOURS} neighbours")
    files = find_result_files(owner, out, picture)
    with open_all_tiles(owner) as tiles:
        table = find_neighbours(tiles, k)
        facts = {
            "k": k,
            "method": "exact" if table.lists is None else "lists",
            **({} if table.lists is None else {"lists": table.lists.count, "compared_lists": table.lists.probed}),
            "recall": round(table.recall, 4),
            "recall_sample": table.sample,
        }
        write_table(tiles, files.table, "neighbours", facts, _SCHEMA, _batches(tiles, table))
        if files.picture is not None:
            from rasterembed.search.batch.pictures import draw_neighbours  # matplotlib takes long to import.

            with picture_after(files.table):
                files.write_picture(draw_neighbours(tiles, table.numbers, table.distances))
    found = "every tile was compared with every other"
    if table.lists is not None:
        found = (
            f"{table.recall:.1%} of the true neighbours were found for {table.sample} tiles of a sample; each of "
            f"{table.lists.count} lists was compared with {table.lists.probed}"
        )
    return files.result(f"neighbours of {counted(tiles.count, 'tile')}, {k} of each: {found}", facts)


def find_neighbours(tiles: AllTiles, k: int) -> NeighbourTable:
    """Find the k nearest other tiles of every tile.

    Args:
        tiles: all tiles.
        k: number of neighbours.
    """
    equal = find_equal_vectors(tiles.vectors, tiles.id_rank)
    different = len(equal.first)
    vectors = tiles.vectors
    if different < tiles.count:
        vectors = write_vectors(vectors, equal.first, tiles.folder / "different.bin")
    # `find_equal_vectors` orders groups by a digest of their vector, so groups and rows have different numbers.
    to_row = equal.first if vectors is tiles.vectors else np.arange(different)
    lists = make_lists(vectors, k) if different > EXACT_ROWS else None
    numbers = _new_map(tiles.folder / "numbers.bin", np.int64, (tiles.count, k))
    far = _new_map(tiles.folder / "distances.bin", np.float32, (tiles.count, k))
    group_of_row = np.empty(different, np.int64)
    group_of_row[to_row] = np.arange(different)
    every = np.arange(different)
    for queries, candidates in [(every, None)] if lists is None else lists:
        for start in range(0, len(queries), _BLOCK):
            part = queries[start : start + _BLOCK]
            found = _candidates(vectors, part, candidates, k)
            near = distances(vectors, part, found)
            groups = np.where(found >= 0, group_of_row[found], -1)
            _expand(equal, tiles.id_rank, group_of_row[part], groups, near, numbers, far)
    if lists is None:
        return NeighbourTable(numbers, far, None, 1.0, 0)
    sample = find_true_neighbours(tiles.vectors, k, 1)
    return NeighbourTable(numbers, far, lists, sample.recall(far[sample.numbers]), len(sample.numbers))


def _new_map(path: Path, dtype: type[np.generic], shape: tuple[int, int]) -> NDArray[Any]:
    """Map a new file.

    The space on the disk is taken now. The system ends a process that writes to a mapped file when the disk is full.

    Raises:
        StoreError: if the disk is full.
    """
    with os_errors(str(path), Access.WRITE), path.open("xb") as file:
        os.posix_fallocate(file.fileno(), 0, math.prod(shape) * np.dtype(dtype).itemsize)
    return np.memmap(path, dtype, "r+", 0, shape)


def _candidates(
    vectors: StoredVectors, queries: NDArray[np.int64], candidates: NDArray[np.int64] | None, k: int
) -> NDArray[np.int64]:
    """Return the nearest vectors of each query. The query itself is always among them.

    Returns:
        Row numbers of `vectors`, shape (n, k + 1 + `_SPARE`), -1 where there are fewer.
    """
    found = nearest(vectors, queries, candidates, k + 1 + _SPARE)
    missing = ~(found == queries[:, None]).any(axis=1)
    found[missing, -1] = queries[missing]
    return found


def _expand(
    equal: EqualVectors,
    id_rank: NDArray[np.int64],
    queries: NDArray[np.int64],
    groups: NDArray[np.int64],
    near: NDArray[np.float32],
    numbers: NDArray[np.int64],
    far: NDArray[np.float32],
) -> None:
    """Write the neighbours of all tiles of some groups, in the order of distance and ids.

    Args:
        equal: all groups.
        id_rank: place of each tile in the order of the ids.
        queries: the groups, shape (q,).
        groups: the nearest groups of each group, itself included, shape (q, c). -1 where there are fewer.
        near: their distances, shape (q, c).
        numbers: the table of the tiles' neighbours, shape (n, k). The rows of the groups' tiles are written.
        far: the table of their distances.
    """
    k = numbers.shape[1]
    # No tile needs more than k + 1 tiles of one group: its k neighbours and itself.
    sizes = np.where(groups >= 0, np.minimum(equal.sizes[groups], k + 1), 0).ravel()
    row = np.repeat(np.repeat(np.arange(len(queries)), groups.shape[1]), sizes)
    place = np.arange(len(row)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    tile = equal.members[np.repeat(equal.starts[groups.ravel()], sizes) + place]
    distance = np.repeat(near.ravel(), sizes)
    order = np.lexsort((id_rank[tile], distance, row))
    row, tile, distance = row[order], tile[order], distance[order]
    begin = np.searchsorted(row, np.arange(len(queries)))
    column = np.arange(len(row)) - begin[row]
    kept = column <= k
    nearest_tiles = np.full((len(queries), k + 1), -1, np.int64)
    nearest_distances = np.full((len(queries), k + 1), np.inf, np.float32)
    nearest_tiles[row[kept], column[kept]] = tile[kept]
    nearest_distances[row[kept], column[kept]] = distance[kept]
    of_query = np.repeat(np.arange(len(queries)), equal.sizes[queries])
    offset = np.arange(len(of_query)) - np.searchsorted(of_query, of_query)
    members = equal.members[equal.starts[queries][of_query] + offset]
    for start in range(0, len(members), 16 * _BLOCK):
        own, query = members[start : start + 16 * _BLOCK], of_query[start : start + 16 * _BLOCK]
        others = np.argsort(nearest_tiles[query] == own[:, None], axis=1, kind="stable")[:, :k]
        numbers[own] = np.take_along_axis(nearest_tiles[query], others, axis=1)
        far[own] = np.take_along_axis(nearest_distances[query], others, axis=1)


def _batches(tiles: AllTiles, table: NeighbourTable) -> Iterator[pa.RecordBatch]:
    """Yield the rows of the file in batches, in the order of the tiles."""
    ranks = np.arange(1, table.numbers.shape[1] + 1, dtype=np.int32)
    step = max(1, BATCH_ROWS // len(ranks))
    for start in range(0, tiles.count, step):
        numbers = table.numbers[start : start + step]
        found = numbers >= 0
        own = pa.array(np.broadcast_to(np.arange(start, start + len(numbers))[:, None], numbers.shape)[found])
        other = pa.array(numbers[found])
        columns = [
            tiles.dataset_ids.take(own),
            tiles.tile_ids.take(own),
            pa.array(np.broadcast_to(ranks, numbers.shape)[found]),
            tiles.dataset_ids.take(other),
            tiles.tile_ids.take(other),
            pa.array(table.distances[start : start + step][found]),
        ]
        yield pa.RecordBatch.from_arrays(columns, schema=_SCHEMA)
