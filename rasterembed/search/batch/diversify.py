"""Choose tiles that differ as much as possible, for example to label them.

The first tile is the one nearest to the mean of all vectors, or a random one. Each next tile is the one farthest from
all tiles that were chosen before (T. F. Gonzalez, Clustering to minimize the maximum intercluster distance, Theoretical
Computer Science 38, 1985). No other choice of as many tiles can bring all tiles more than twice as near to a chosen
one; here, nearness is the distance between unit vectors, which grows with the cosine distance.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rasterembed.collection.collection import Collection
from rasterembed.collection.scene_row import SceneState
from rasterembed.dataset.dataset import Dataset
from rasterembed.errors import UsageError
from rasterembed.number_text import agreeing, counted, number_text, part_of
from rasterembed.search.answer import Answer, pixel_footprint
from rasterembed.search.batch.all_tiles import AllTiles, open_all_tiles, open_datasets
from rasterembed.search.batch.limits import DEFAULT_SAMPLE, DEFAULT_VALID_FRACTION, MAX_SAMPLE
from rasterembed.search.batch.result_file import BatchResult, find_result_files
from rasterembed.search.collection_searcher import scene_fields
from rasterembed.search.index.stored_rows import BLOCK_ROWS, StoredVectors, unit_vectors
from rasterembed.search.output import write_answer
from rasterembed.search.output_file import ANSWER_ENDINGS, OutputFile, picture_after
from rasterembed.search.searched_collection import SearchedCollection
from rasterembed.search.searcher import dataset_hits

_SHORTEST, _LONGEST = 1e-15, 1e18
"""Vectors of these lengths have exact products in float32."""

_EQUAL = 1e-6
"""Tiles that are at most this far apart are equal. The products are in float32."""


@dataclass(frozen=True)
class FarthestFirst:
    """The chosen tiles, in the order in which they were chosen."""

    numbers: NDArray[np.int64]
    """Row numbers of the tiles, shape (n,)."""
    distances: NDArray[np.float32]
    """Cosine distance of each tile to the nearest tile that was chosen before, 0 for the first tile, shape (n,)."""
    farthest: float
    """Largest cosine distance of any tile to the nearest chosen tile."""


def write_diverse_tiles(
    owner: Dataset | Collection,
    out: OutputFile | Path | str,
    count: int = DEFAULT_SAMPLE,
    *,
    min_valid_fraction: float = DEFAULT_VALID_FRACTION,
    seed: int | None = None,
    picture: OutputFile | Path | str | None = None,
) -> BatchResult:
    """Choose tiles that differ as much as possible, and write them to a file.

    The first tile is the one nearest to the mean of all vectors. Each next tile is the one farthest from all tiles that
    were chosen before. Equally far tiles are taken in the order of their ids.

    Args:
        owner: a dataset or a collection.
        out: the file: `.geojson`, `.parquet` (GeoParquet) or `.csv`. An existing file is replaced.
        count: number of tiles, 1 to `MAX_SAMPLE`. If fewer tiles differ, the file has fewer.
        min_valid_fraction: smallest share of valid pixels of a chosen tile, 0 to 1.
        seed: begin with a random tile, chosen by this seed. None: begin with the tile nearest to the mean.
        picture: PNG file for a sheet with the chosen tiles.

    Returns:
        A summary. The file has the columns of an answer of a search, see `rasterembed.search.output`. `rank` is the
        order in which the tiles were chosen, and `distance` is the cosine distance to the nearest tile of a smaller
        rank, 0 for the first tile.

    Raises:
        UsageError: if a number is out of bounds, or if a file name is wrong.
        DataError: if the dataset is not ready, if no tile has enough valid pixels, or if a file cannot be read.
        StoreError: if a file cannot be written.

    Example:
        >>> print(write_diverse_tiles(dataset, "sample.geojson", 20, min_valid_fraction=0.9))  # doctest: +SKIP
    """
    if not 1 <= count <= MAX_SAMPLE:
        raise UsageError(f"`count` is {count}: ask for 1 to {MAX_SAMPLE} tiles")
    if not 0.0 <= min_valid_fraction <= 1.0:
        raise UsageError(f"`min_valid_fraction` is {number_text(min_valid_fraction)}: give a share from 0 to 1")
    if seed is not None and seed < 0:
        raise UsageError(f"`seed` is {seed}: give 0 or more")
    files = find_result_files(owner, out, picture, ANSWER_ENDINGS)
    with open_all_tiles(owner) as tiles:
        allowed = tiles.valid_fraction >= np.float32(min_valid_fraction)
        if not allowed.any():
            raise UsageError(
                f"`min_valid_fraction` is {number_text(min_valid_fraction)}, and no tile of {tiles.files.name} has "
                "such a share of valid pixels: give a smaller share"
            )
        chosen = choose_diverse(tiles, count, allowed, seed)
        answer = _answer(tiles, chosen, count)
        write_answer(answer, files.table)
        if files.picture is not None:
            from rasterembed.search.contact_sheet import write_sheet  # PIL takes long to import.

            with picture_after(files.table):
                datasets = open_datasets(tiles, chosen.numbers)
                write_sheet(answer, datasets, files.picture, "chosen tiles, with cosine distance to those before")
    return files.result(
        _summary(chosen, count, int(allowed.sum()), tiles.count, min_valid_fraction),
        {
            "tiles": len(chosen.numbers),
            "min_valid_fraction": min_valid_fraction,
            "seed": seed,
            "farthest": round(chosen.farthest, 6),
        },
    )


def choose_diverse(tiles: AllTiles, count: int, allowed: NDArray[np.bool_], seed: int | None) -> FarthestFirst:
    """Choose tiles that differ as much as possible. See `write_diverse_tiles`.

    Args:
        tiles: all tiles.
        count: largest number of tiles.
        allowed: which tiles may be chosen, shape (n,). At least one.
        seed: seed of the first tile, or None to begin with the tile nearest to the mean.
    """
    vectors, lengths = tiles.vectors, _lengths(tiles.vectors)
    numbers: list[int] = []
    near: list[float] = []
    if seed is None:
        mean = np.zeros(vectors.dimensions, np.float64)
        for start, block in enumerate(vectors.blocks()):
            mean += block[allowed[start * BLOCK_ROWS : start * BLOCK_ROWS + len(block)]].sum(axis=0, dtype=np.float64)
        length = float(np.linalg.norm(mean))
        distance = _distances_to(vectors, lengths, (mean / (length or 1.0)).astype(np.float32))
        first = _best(-distance, allowed, tiles.id_rank)
    else:
        by_id = np.flatnonzero(allowed)[np.argsort(tiles.id_rank[allowed])]
        first = int(np.random.default_rng(seed).choice(by_id))
    nearest = np.full(tiles.count, np.inf, np.float32)
    number, far = first, 0.0
    while True:
        numbers.append(number)
        near.append(far)
        unit = vectors.unit(np.array([number]))[0]
        np.minimum(nearest, _distances_to(vectors, lengths, unit), out=nearest)
        nearest[number] = 0.0
        number = _best(nearest, allowed, tiles.id_rank)
        far = float(nearest[number])
        if len(numbers) == count or far <= _EQUAL:
            return FarthestFirst(np.array(numbers, np.int64), np.array(near, np.float32), max(far, 0.0))


def _summary(chosen: FarthestFirst, count: int, allowed: int, tiles: int, min_valid_fraction: float) -> str:
    """Return the result in one line, and the reasons if there are fewer tiles than were asked for.

    Args:
        chosen: the chosen tiles.
        count: number of tiles that were asked for.
        allowed: number of tiles that have enough valid pixels.
        tiles: number of all tiles.
        min_valid_fraction: smallest share of valid pixels.
    """
    number = len(chosen.numbers)
    text = counted(number, "tile")
    if number < count:
        reasons = []
        if allowed < tiles:
            reasons.append(
                f"only {part_of(allowed, tiles, 'tile', 'has', 'have')} a valid fraction of "
                f"{number_text(min_valid_fraction)} or more"
            )
        elif number == allowed:
            reasons.append("these are all tiles")
        if number < allowed:
            reasons.append("every other tile is equal to one of these")
        text += f" of {count:,} that {agreeing(count, 'was', 'were')} asked for, because {', and '.join(reasons)}"
    if number < allowed:
        nearest = "it" if number == 1 else "one of them"
        text += (
            f"; of {allowed:,} tiles, each of the others is within cosine distance {chosen.farthest:.4f} of {nearest}"
        )
    return text


def _answer(tiles: AllTiles, chosen: FarthestFirst, count: int) -> Answer:
    """Return the chosen tiles as an answer, which can be written in several formats."""
    datasets = {dataset.id: dataset for dataset in open_datasets(tiles, chosen.numbers)}
    rows = tiles.take(chosen.numbers)
    hits = []
    for row, distance in zip(rows, chosen.distances.tolist(), strict=True):
        if row["geometry"] is None:  # In a collection's table, a tile without a place on Earth has no footprint.
            row["geometry"] = pixel_footprint(row)
        hits.append((datasets[row.pop("dataset_id")], {**row, "distance": distance}))
    found, collection = dataset_hits(hits), None
    if isinstance(tiles.owner, Collection):
        ready = tiles.owner.catalogue.counts().get(SceneState.READY, 0)
        collection = SearchedCollection(id=tiles.owner.id, scenes=tiles.owner.catalogue.count, searched=ready)
        scenes = scene_fields(tiles.owner.catalogue, datasets)
        found = tuple(hit.model_copy(update=scenes[hit.dataset_id]) for hit in found)
    return Answer(
        query=f"{counted(len(hits), 'tile')} that {agreeing(len(hits), 'differs', 'differ')} as much as possible",
        examples=(),
        model=tiles.model,
        k=count,
        hits=found,
        engines=(),
        seconds=0.0,
        collection=collection,
    )


def _lengths(vectors: StoredVectors) -> NDArray[np.float32]:
    """Return the length of every stored vector, shape (n,). A length above the largest float32 is infinite."""
    squares = [np.einsum("ij,ij->i", block, block, dtype=np.float64) for _, block in _stored_blocks(vectors)]
    with np.errstate(over="ignore"):
        lengths: NDArray[np.float32] = np.sqrt(np.concatenate(squares)).astype(np.float32)
    return lengths


def _distances_to(
    vectors: StoredVectors, lengths: NDArray[np.float32], unit: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Return the cosine distance of every vector to a unit vector, shape (n,).

    The stored vectors are not scaled to length 1, which would take most of the time of a pass. A block is scaled only
    if it has a vector so long or so short that its products are not exact in float32.
    """
    distances = np.empty(vectors.rows, np.float32)
    for start, block in _stored_blocks(vectors):
        part = slice(start, start + len(block))
        if lengths[part].min() >= _SHORTEST and lengths[part].max() <= _LONGEST:
            distances[part] = 1.0 - (block @ unit) / lengths[part]
        else:
            distances[part] = 1.0 - unit_vectors(block) @ unit
    return distances


def _stored_blocks(vectors: StoredVectors) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Yield the stored vectors in blocks, as float32, with the number of their first row."""
    for start in range(0, vectors.rows, BLOCK_ROWS):
        yield start, vectors.values[start : start + BLOCK_ROWS].astype(np.float32, copy=False)


def _best(values: NDArray[np.float32], allowed: NDArray[np.bool_], id_rank: NDArray[np.int64]) -> int:
    """Return the number of the allowed tile with the largest value. Of equal tiles, the first by its ids."""
    largest = values[allowed].max()
    best = np.flatnonzero(allowed & (values == largest))
    return int(best[np.argmin(id_rank[best])])
