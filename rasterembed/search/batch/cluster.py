"""Divide the tiles into classes by k-means."""

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
from rasterembed.number_text import counted
from rasterembed.search.batch.all_tiles import AllTiles, open_all_tiles
from rasterembed.search.batch.kmeans import assign, train_centres
from rasterembed.search.batch.limits import DEFAULT_CLASSES, MAX_CLASSES
from rasterembed.search.batch.result_file import BATCH_ROWS, TILE_FIELDS, BatchResult, find_result_files, write_table
from rasterembed.search.output_file import OutputFile, picture_after

_ROUNDS = 25
"""Number of rounds of Lloyd's algorithm. In practice, the centres hardly move after so many rounds."""

_STARTS = 4
"""Number of times that k-means starts with other random centres. The best result counts."""

_SAMPLE_ROWS, _ROWS_PER_CLASS = 65_536, 64
"""The centres are computed from at most this number of tiles, or from this number for each class, if that is more."""

_SCHEMA = pa.schema(
    [
        *TILE_FIELDS,
        pa.field("class", pa.int32(), nullable=False),
        pa.field("distance", pa.float32(), nullable=False),
    ]
)


@dataclass(frozen=True)
class Classes:
    """The classes of all tiles. n is the number of tiles."""

    number: NDArray[np.int32]
    """Class of each tile, from 0 for the largest class, shape (n,)."""
    distance: NDArray[np.float32]
    """Cosine distance of each tile to the centre of its class, shape (n,)."""
    sizes: NDArray[np.int64]
    """Number of tiles in each class, shape (classes,)."""


def write_classes(
    owner: Dataset | Collection,
    out: OutputFile | Path | str,
    classes: int = DEFAULT_CLASSES,
    *,
    seed: int = 0,
    picture: OutputFile | Path | str | None = None,
) -> BatchResult:
    """Divide the tiles into classes by k-means, and write the class of every tile to a Parquet file.

    Class 0 has the most tiles. The distance is the cosine distance, and the centres have length 1 (spherical k-means).
    The same vectors give the same classes on the same machine with the same number of threads. On another processor,
    float32 sums can differ in the last digit. Then tiles between two classes may change their class, and rarely all
    classes may differ.

    Args:
        owner: a dataset or a collection.
        out: the file, such as `classes.parquet`. An existing file is replaced. A search takes it as `class_file`.
        classes: number of classes, 2 to `MAX_CLASSES`. It must not be larger than the number of tiles.
        seed: seed of the first centres, from 0.
        picture: PNG file for a map of the classes, with examples of each class.

    Returns:
        A summary. The file has a row for each tile, with the columns `dataset_id`, `tile_id`, `class` and `distance`
        (cosine distance to the centre of the class).

    Raises:
        UsageError: if a number is out of bounds, or if a file name is wrong.
        DataError: if the dataset is not ready, or if a file cannot be read.
        StoreError: if a file cannot be written.

    Example:
        >>> print(write_classes(dataset, "classes.parquet", 8))  # doctest: +SKIP
    """
    if not 2 <= classes <= MAX_CLASSES:
        raise UsageError(f"`classes` is {classes}: ask for 2 to {MAX_CLASSES} classes")
    if seed < 0:
        raise UsageError(f"`seed` is {seed}: give 0 or more")
    files = find_result_files(owner, out, picture)
    with open_all_tiles(owner) as tiles:
        if classes > tiles.count:
            raise UsageError(f"`classes` is {classes}, and {tiles.files.name} has {tiles.count} tiles: ask for fewer")
        found = find_classes(tiles, classes, seed)
        facts = {"classes": classes, "seed": seed, "sizes": found.sizes.tolist()}
        write_table(tiles, files.table, "cluster", facts, _SCHEMA, _batches(tiles, found))
        if files.picture is not None:
            from rasterembed.search.batch.class_picture import draw_classes  # matplotlib takes long to import.

            with picture_after(files.table):
                files.write_picture(draw_classes(tiles, found))
    return files.result(
        f"{counted(tiles.count, 'tile')} in {counted(classes, 'class', 'classes')}; the largest has "
        f"{counted(found.sizes[0], 'tile')}, the smallest "
        f"{found.sizes[-1]:,}; mean distance to the centre {found.distance.mean():.4f}",
        facts,
    )


def find_classes(tiles: AllTiles, classes: int, seed: int) -> Classes:
    """Divide the tiles into classes. See `write_classes`.

    Args:
        tiles: all tiles, at least as many as classes.
        classes: number of classes.
        seed: seed of the sample and of the first centres.
    """
    rows = max(_SAMPLE_ROWS, _ROWS_PER_CLASS * classes)
    centres = train_centres(tiles.vectors, classes, rows=rows, rounds=_ROUNDS, starts=_STARTS, seed=seed)
    number, distance = assign(tiles.vectors, centres)
    sizes = np.bincount(number, minlength=classes)
    order = np.argsort(-sizes, kind="stable")
    new = np.empty(classes, np.int32)
    new[order] = np.arange(classes)
    return Classes(new[number], distance, sizes[order].astype(np.int64))


def _batches(tiles: AllTiles, classes: Classes) -> Iterator[pa.RecordBatch]:
    """Yield the rows of the file in batches, in the order of the tiles."""
    for start in range(0, tiles.count, BATCH_ROWS):
        part = slice(start, start + BATCH_ROWS)
        columns = [*tiles.ids(part), pa.array(classes.number[part]), pa.array(classes.distance[part])]
        yield pa.RecordBatch.from_arrays(columns, schema=_SCHEMA)
