"""Find groups of tiles that are almost equal, and keep one tile of each group.

The tiles are visited from the best to the worst. A tile is kept, unless it is near a tile that was kept before. So
every tile that is left out is near a kept tile, and no two kept tiles are near each other. Groups that are connected by
chains of near pairs would not have these properties: the two ends of a long chain can be very different.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from rasterembed.collection.collection import Collection
from rasterembed.dataset.dataset import Dataset
from rasterembed.errors import UsageError
from rasterembed.number_text import counted, number_text, part_of
from rasterembed.search.batch.all_tiles import AllTiles, open_all_tiles
from rasterembed.search.batch.limits import DEFAULT_THRESHOLD
from rasterembed.search.batch.nearest import distances, nearest
from rasterembed.search.batch.result_file import BATCH_ROWS, TILE_FIELDS, BatchResult, find_result_files, write_table
from rasterembed.search.batch.vector_lists import EXACT_ROWS, VectorLists, make_lists
from rasterembed.search.index.stored_rows import StoredVectors
from rasterembed.search.output_file import OutputFile, picture_after
from rasterembed.search.rerank import rounding_bound

_BLOCK, _SMALL_BLOCK = 32_768, 1024
"""Number of tiles that are compared with the kept tiles at once, and with the tiles of the same block."""

_SCHEMA = pa.schema(
    [
        *TILE_FIELDS,
        pa.field("group", pa.int64(), nullable=False),
        pa.field("group_tiles", pa.int64(), nullable=False),
        pa.field("keep", pa.bool_(), nullable=False),
        pa.field("distance", pa.float32(), nullable=False),
    ]
)


@dataclass(frozen=True)
class Groups:
    """Groups of near tiles. n is the number of tiles, g that of groups."""

    group: NDArray[np.int64]
    """Number of the group of each tile, from 0 for the largest group, shape (n,)."""
    kept: NDArray[np.int64]
    """Row number of the kept tile of each group, shape (g,)."""
    sizes: NDArray[np.int64]
    """Number of tiles in each group, shape (g,)."""
    distance: NDArray[np.float32]
    """Cosine distance of each tile to the kept tile of its group, shape (n,)."""
    exact: bool
    """Whether every tile was compared with every kept tile, and not only with those of the nearest lists."""


def write_deduplicated(
    owner: Dataset | Collection,
    out: OutputFile | Path | str,
    threshold: float = DEFAULT_THRESHOLD,
    *,
    picture: OutputFile | Path | str | None = None,
) -> BatchResult:
    """Write the group of every tile to a Parquet file, and which tile of each group is kept.

    The kept tile of a group has the most valid pixels of the tiles that are not near a better tile. With equally many,
    the tile with the smallest tile id, and then the smallest dataset id, comes first. Every other tile of the group is
    at most `threshold` away from the kept tile, and is in the group of its nearest kept tile. Two kept tiles are more
    than `threshold` apart.

    Up to `EXACT_ROWS` tiles, this is exact. Of more tiles, a tile is compared with the kept tiles of the nearest lists,
    so some near tiles may both be kept.

    Args:
        owner: a dataset or a collection.
        out: the file, such as `groups.parquet`. An existing file is replaced.
        threshold: largest cosine distance between a tile and the kept tile of its group, 0 to below 1.
        picture: PNG file with the largest groups as rows of thumbnails.

    Returns:
        A summary. The file has a row for each tile, with the columns `dataset_id`, `tile_id`, `group` (0 is the
        largest), `group_tiles`, `keep` (one true in each group) and `distance` (to the kept tile).

    Raises:
        UsageError: if the threshold is out of bounds, or if a file name is wrong.
        DataError: if the dataset is not ready, or if a file cannot be read.
        StoreError: if a file cannot be written.

    Example:
        >>> print(write_deduplicated(dataset, "groups.parquet", threshold=0.02))  # doctest: +SKIP
    """
    if not 0.0 <= threshold < 1.0:
        raise UsageError(f"`threshold` is {number_text(threshold)}: give a cosine distance from 0 to below 1")
    files = find_result_files(owner, out, picture)
    with open_all_tiles(owner) as tiles:
        groups = find_groups(tiles, threshold)
        several = groups.sizes[groups.sizes > 1]
        facts = {
            "threshold": threshold,
            "method": "exact" if groups.exact else "lists",
            "kept": len(groups.kept),
            "groups_of_several": len(several),
            "largest_group": int(groups.sizes.max()),
        }
        write_table(tiles, files.table, "deduplicate", facts, _SCHEMA, _batches(tiles, groups))
        if files.picture is not None:
            from rasterembed.search.batch.pictures import draw_groups  # PIL takes long to import.

            with picture_after(files.table):
                files.write_picture(draw_groups(tiles, groups, threshold))
    return files.result(
        f"{part_of(len(groups.kept), tiles.count, 'tile')} kept; "
        f"{int(several.sum()):,} tiles are in {counted(len(several), 'group')} of several tiles within "
        f"cosine distance {number_text(threshold)}",
        facts,
    )


def find_groups(tiles: AllTiles, threshold: float) -> Groups:
    """Find groups of near tiles. See `write_deduplicated`.

    Args:
        tiles: all tiles.
        threshold: largest cosine distance to the kept tile.
    """
    lists = make_lists(tiles.vectors, 1) if tiles.count > EXACT_ROWS else None
    order = np.lexsort((tiles.id_rank, -tiles.valid_fraction))
    leader = np.full(tiles.count, -1, np.int64)
    kept = _KeptTiles(lists)
    for start in range(0, len(order), _BLOCK):
        block = order[start : start + _BLOCK]
        for rows, candidates in kept.near(block):
            joining, leaders = _nearest_leaders(tiles.vectors, rows, candidates, threshold)
            leader[joining] = leaders
        new: list[NDArray[np.int64]] = []
        waiting = block[leader[block] < 0]
        for first in range(0, len(waiting), _SMALL_BLOCK):
            part = waiting[first : first + _SMALL_BLOCK]
            if new:
                joining, leaders = _nearest_leaders(tiles.vectors, part, np.concatenate(new), threshold)
                leader[joining] = leaders
            rest = part[leader[part] < 0]
            leader[rest] = _leaders_among(tiles.vectors, rest, threshold)
            new.append(rest[leader[rest] == rest])
        kept.add(np.concatenate([*new, np.empty(0, np.int64)]))
    return _number_groups(tiles.vectors, lists, kept, leader, threshold)


class _KeptTiles:
    """The kept tiles, by list."""

    def __init__(self, lists: VectorLists | None) -> None:
        self._lists = lists
        self._kept: list[list[NDArray[np.int64]]] = [[] for _ in range(1 if lists is None else lists.count)]

    def add(self, rows: NDArray[np.int64]) -> None:
        """Add tiles."""
        if self._lists is None:
            self._kept[0].append(rows)
            return
        own = self._lists.list_of[rows]
        for number in np.unique(own):
            self._kept[number].append(rows[own == number])

    def near(self, rows: NDArray[np.int64]) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
        """Yield tiles of one list, and the kept tiles that they are compared with."""
        own = np.zeros(len(rows), np.int32) if self._lists is None else self._lists.list_of[rows]
        for number in np.unique(own):
            near = [0] if self._lists is None else self._lists.near[number]
            candidates = [part for one in near for part in self._kept[one]]
            if candidates:
                yield rows[own == number], np.concatenate(candidates)


def _nearest_leaders(
    vectors: StoredVectors, rows: NDArray[np.int64], candidates: NDArray[np.int64], threshold: float
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the tiles whose nearest candidate is near enough, and this candidate of each, both of shape (n,)."""
    if not len(rows) or not len(candidates):
        return rows[:0], rows[:0]
    found = nearest(vectors, rows, candidates, 1)
    near = distances(vectors, rows, found)[:, 0] <= threshold
    return rows[near], found[near, 0]


def _leaders_among(vectors: StoredVectors, rows: NDArray[np.int64], threshold: float) -> NDArray[np.int64]:
    """Visit some tiles in order, and return the leader of each, shape (n,). A tile that is kept is its own leader."""
    unit = vectors.unit(rows)
    # Only pairs that the product calls near, within its error, are compared exactly.
    least = 1.0 - threshold - rounding_bound(vectors.dimensions)
    first, second = np.nonzero(np.triu(unit @ unit.T >= least, 1))
    near = distances(vectors, rows[first], rows[second][:, None])[:, 0] <= threshold
    first, second = first[near], second[near]
    begin = np.searchsorted(first, np.arange(len(rows) + 1))
    leader = rows.copy()
    free = np.ones(len(rows), dtype=bool)
    for place in range(len(rows)):
        if free[place]:
            worse = second[begin[place] : begin[place + 1]]
            leader[worse[free[worse]]] = rows[place]
            free[worse] = False
    return leader


def _number_groups(
    vectors: StoredVectors, lists: VectorLists | None, kept: _KeptTiles, leader: NDArray[np.int64], threshold: float
) -> Groups:
    """Return the groups. A tile that is not kept belongs to the nearest of all kept tiles."""
    every = np.arange(len(leader))
    leader = leader.copy()
    for rows, candidates in kept.near(every[leader != every]):
        joining, leaders = _nearest_leaders(vectors, rows, candidates, threshold)
        leader[joining] = leaders
    leaders, group, sizes = np.unique(leader, return_inverse=True, return_counts=True)
    order = np.lexsort((leaders, -sizes))
    number = np.empty(len(order), np.int64)
    number[order] = np.arange(len(order))
    distance = distances(vectors, every, leader[:, None])[:, 0]
    return Groups(number[group], leaders[order], sizes[order].astype(np.int64), distance, lists is None)


def _batches(tiles: AllTiles, groups: Groups) -> Iterator[pa.RecordBatch]:
    """Yield the rows of the file in batches, in the order of the tiles."""
    keep = np.zeros(tiles.count, dtype=bool)
    keep[groups.kept] = True
    for start in range(0, tiles.count, BATCH_ROWS):
        part = slice(start, start + BATCH_ROWS)
        columns = [
            *tiles.ids(part),
            pa.array(groups.group[part]),
            pa.array(groups.sizes[groups.group[part]]),
            pa.array(keep[part]),
            pa.array(groups.distance[part]),
        ]
        yield pa.RecordBatch.from_arrays(columns, schema=_SCHEMA)
