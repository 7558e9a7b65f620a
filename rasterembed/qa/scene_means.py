"""The mean vector of each scene of a collection. Outliers and near-duplicates are found with it.

The means are derived from the shards, and kept in a file. Only the shards of new and changed scenes are read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from rasterembed.collection.catalogue import Catalogue
from rasterembed.collection.scene_row import SceneState
from rasterembed.collection.threaded import map_threaded
from rasterembed.dataset.dataset import Dataset
from rasterembed.dataset.geoparquet import PARQUET_ERRORS
from rasterembed.dataset.manifest import ALL_STATES
from rasterembed.dataset.whole_table import TableLimits, read_whole_table
from rasterembed.errors import ObjectMissingError, RasterEmbedError, StoreUnavailableError, one_line
from rasterembed.store.layout import CollectionLayout
from rasterembed.store.local_file import local_file
from rasterembed.store.object_store import ObjectStore


@dataclass(frozen=True)
class SceneMeans:
    """Statistics of the vectors of each scene that has vectors, in the order of the ids. n scenes, D dimensions.

    They take 4 D + 20 bytes a scene: 156 MB for 100,000 scenes with vectors of 384 numbers.
    """

    row: NDArray[np.intp]
    """Row of each scene in the catalogue, shape (n,)."""
    tiles: NDArray[np.int64]
    """Number of vectors, shape (n,)."""
    norm: NDArray[np.float32]
    """Mean norm of the vectors, shape (n,)."""
    spread: NDArray[np.float32]
    """Standard deviation of the vectors, shape (n,): the root of their mean squared distance from the mean vector."""
    mean: NDArray[np.float32]
    """Mean vector, shape (n, D)."""
    unreadable: Mapping[str, str] = field(default_factory=dict)
    """Ids of embedded scenes without usable vectors, and why."""

    @property
    def count(self) -> int:
        """Number of scenes."""
        return len(self.row)

    def centred(self) -> NDArray[np.float32]:
        """Return the mean vectors minus the mean of all of them, shape (n, D), n > 0."""
        return np.asarray(self.mean - self.mean.mean(axis=0, dtype=np.float64).astype(np.float32))


@dataclass(frozen=True)
class _Mean:
    tiles: int
    norm: float
    spread: float
    mean: NDArray[np.float32]


def scene_means(
    store: ObjectStore, layout: CollectionLayout, catalogue: Catalogue, dimensions: int, *, keep: bool
) -> SceneMeans:
    """Return the mean vectors of all scenes. Read only the shards of scenes that the stored file does not have.

    Args:
        store: store of the collection.
        layout: layout of the collection.
        catalogue: all scenes.
        dimensions: length D of a vector.
        keep: whether the file is written again, if it lacks a scene or has one too many. The caller must then hold the
            collection's lease.

    Raises:
        StoreUnavailableError: if the store does not answer.
    """
    columns = {name: catalogue.table[name].to_pylist() for name in ("id", "fingerprint", "state", "rows")}
    wanted = [
        row
        for row, (state, tiles) in enumerate(zip(columns["state"], columns["rows"], strict=True))
        if state != SceneState.FAILED and tiles
    ]
    kept = _Kept.read(store, layout, dimensions, catalogue.count)
    places = [kept.place.get((columns["id"][row], columns["fingerprint"][row])) for row in wanted]
    missing = [row for row, place in zip(wanted, places, strict=True) if place is None]
    computed = map_threaded(
        lambda row: _compute(store, columns["id"][row], columns["fingerprint"][row], dimensions), missing
    )
    statistics = np.empty((len(wanted), 3), np.float64)
    means = np.empty((len(wanted), dimensions), np.float32)
    usable = np.ones(len(wanted), dtype=bool)
    unreadable: dict[str, str] = {}
    for number, (row, place) in enumerate(zip(wanted, places, strict=True)):
        if place is not None:
            statistics[number], means[number] = kept.statistics[place], kept.mean[place]
            continue
        found = next(computed)
        if isinstance(found, str):
            unreadable[columns["id"][row]] = found
            usable[number] = False
        else:
            statistics[number], means[number] = (found.tiles, found.norm, found.spread), found.mean
    result = SceneMeans(
        row=np.array(wanted, dtype=np.intp)[usable],
        tiles=statistics[usable, 0].astype(np.int64),
        norm=statistics[usable, 1].astype(np.float32),
        spread=statistics[usable, 2].astype(np.float32),
        mean=means if usable.all() else means[usable],
        unreadable=unreadable,
    )
    if keep and (missing or len(kept.place) != result.count):
        _write(store, layout, catalogue, result, dimensions)
    return result


def _compute(store: ObjectStore, dataset_id: str, fingerprint: str, dimensions: int) -> _Mean | str:
    """Return the statistics of a scene, or the reason why they cannot be computed.

    A dataset that was embedded again since is not the scene of the catalogue. Its settings may be others.
    """
    total = np.zeros(dimensions, np.float64)
    norms = squares = 0.0
    tiles = 0
    try:
        dataset = Dataset.open(store, dataset_id, ALL_STATES)
        if dataset.manifest.fingerprint != fingerprint:
            return "its dataset is another one than the catalogue says"
        for batch in dataset.batches(dataset.vector_columns):
            vectors = dataset.vectors_of(batch)
            if vectors.shape[1] != dimensions:
                return f"its vectors do not all have {dimensions} numbers"
            squared = np.einsum("ij,ij->i", vectors, vectors, dtype=np.float64)
            total += vectors.sum(axis=0, dtype=np.float64)
            squares += float(squared.sum())
            norms += float(np.sqrt(squared).sum())
            tiles += len(batch)
    except StoreUnavailableError:
        raise
    except RasterEmbedError as error:
        return one_line(error)
    if not tiles:
        return "it has no vectors, although the catalogue has a number of them"
    mean = total / tiles
    if not np.isfinite(mean).all() or not np.isfinite(squares):
        return "a vector is not finite"
    spread = np.sqrt(max(squares / tiles - float(mean @ mean), 0.0))
    return _Mean(tiles, norms / tiles, float(spread), mean.astype(np.float32))


@dataclass(frozen=True)
class _Kept:
    """The means in the stored file."""

    place: dict[tuple[str, str], int]
    """Place of each scene in the arrays, by id and fingerprint."""
    statistics: NDArray[np.float64]
    """Number of vectors, mean norm and standard deviation, shape (n, 3)."""
    mean: NDArray[np.float32]
    """Shape (n, D)."""

    @classmethod
    def read(cls, store: ObjectStore, layout: CollectionLayout, dimensions: int, scenes: int) -> _Kept:
        """Read the file of a collection with `scenes` scenes.

        If the file is missing or cannot be used, return no means, because they can be computed again.
        """
        empty = cls({}, np.empty((0, 3)), np.empty((0, dimensions), np.float32))
        try:
            with store.open(layout.scene_means) as file:
                table = read_whole_table(file, _limits(scenes, dimensions))
            table.validate(full=True)  # It finds texts that are not UTF-8.
        except (ObjectMissingError, *PARQUET_ERRORS):
            return empty
        if not table.schema.equals(_schema(dimensions)) or any(column.null_count for column in table.columns):
            return empty
        mean = table["mean"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
        statistics = np.column_stack([table[name].to_numpy().astype(np.float64) for name in _STATISTICS])
        if not np.isfinite(mean).all() or not np.isfinite(statistics).all():
            return empty
        names = zip(table["id"].to_pylist(), table["fingerprint"].to_pylist(), strict=True)
        return cls({name: place for place, name in enumerate(names)}, statistics, mean.reshape(-1, dimensions))


_STATISTICS = ("tiles", "norm", "spread")


def _limits(scenes: int, dimensions: int) -> TableLimits:
    """Return the largest size of the file that is read. It may still have scenes that left the collection."""
    rows = 2 * scenes + 1000
    return TableLimits(rows, rows * (8 * dimensions + 512))


def _schema(dimensions: int) -> pa.Schema:
    return pa.schema(
        [
            pa.field("id", pa.string(), nullable=False),
            pa.field("fingerprint", pa.string(), nullable=False),
            pa.field("tiles", pa.int64(), nullable=False),
            pa.field("norm", pa.float32(), nullable=False),
            pa.field("spread", pa.float32(), nullable=False),
            pa.field("mean", pa.list_(pa.float32(), dimensions), nullable=False),
        ]
    )


def _write(
    store: ObjectStore, layout: CollectionLayout, catalogue: Catalogue, means: SceneMeans, dimensions: int
) -> None:
    rows = catalogue.table.select(["id", "fingerprint"]).take(means.row).combine_chunks()
    mean = pa.FixedSizeListArray.from_arrays(pa.array(means.mean.ravel()), dimensions)
    statistics = map(pa.array, (means.tiles, means.norm, means.spread))
    table = pa.table([rows["id"], rows["fingerprint"], *statistics, mean], schema=_schema(dimensions))
    with local_file(store, layout.scene_means, replace=True) as file:
        pq.write_table(table, file.path, compression="zstd")
