"""Turn the examples of a query into one vector for the search.

The vector of an example tile or image is the query vector. Rocchio's formula moves this vector towards liked tiles and
away from unliked tiles (J. J. Rocchio, Relevance feedback in information retrieval, in: G. Salton, The SMART Retrieval
System, 1971):

    q = a * query + b * mean(liked) - c * mean(unliked)

All vectors have length 1. The weights are a = 1, b = 0.75, c = 0.15. Manning, Raghavan and Schütze call these weights
reasonable (Introduction to Information Retrieval, 2008, section 9.1.1). If there are no examples for a term, the sum
does not have this term.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from rasterembed.dataset.dataset import Dataset
from rasterembed.errors import DataError, UsageError
from rasterembed.model.choice import Device
from rasterembed.near_names import known_names
from rasterembed.search.answer import Example, Role
from rasterembed.search.not_searched import NotSearched
from rasterembed.search.query import Query, TileRef
from rasterembed.search.tile_lookup import Tile, find_tile, find_tile_at, read_vectors

if TYPE_CHECKING:
    import duckdb

    from rasterembed.search.indexed_search import SegmentSearch
    from rasterembed.store.connection_pool import ConnectionPool

WEIGHTS: dict[Role, float] = {"query": 1.0, "like": 0.75, "unlike": -0.15}
"""The weights a, b and -c of Rocchio's formula."""

_NO_DIRECTION = 1e-6
"""Smallest length of the sum in Rocchio's formula. A shorter sum has no meaningful direction."""


@dataclass(frozen=True)
class ResolvedExamples:
    """The examples of a query, and their combined vector."""

    examples: tuple[Example, ...]
    vector: NDArray[np.float32]
    """The combined vector for the search, shape (dimensions,). Its length is not 1."""

    def tile_ids(self, dataset_id: str) -> frozenset[str]:
        """Return the tile ids of all examples from this dataset."""
        tiles = (example.tile for example in self.examples)
        return frozenset(tile.tile_id for tile in tiles if tile and tile.dataset_id == dataset_id)


class TileSource(Protocol):
    """Finds the examples of a query: in datasets, or in a collection."""

    def named(self, text: str) -> Tile:
        """Return the tile with a name such as `r000012_c000034` or `dataset/r000012_c000034`."""

    def at(self, lon: float, lat: float) -> Sequence[Tile]:
        """Return the tiles at a place, at least one."""

    def vectors(self, tiles: Sequence[Tile]) -> dict[Tile, NDArray[np.float32]]:
        """Read the vectors of tiles from `named` and `at`. Each has shape (dimensions,)."""

    def dataset_of_image(self) -> Dataset:
        """Return the dataset whose model, radiometry and tile size an image is read with."""


class DatasetTiles:
    """The tiles of one or several datasets.

    Args:
        connections: connections from `duck.connect`. One is borrowed when a file must be read.
        datasets: the datasets. They have the same model.
        indexes: open vector indexes of some of the datasets, by dataset id. A named tile is looked up in them first,
            because the tile index and the shards take longer to read.
        not_searched: datasets that the search leaves out. An error about a tile of such a dataset says why.
    """

    def __init__(
        self,
        connections: ConnectionPool,
        datasets: Sequence[Dataset],
        indexes: Mapping[str, SegmentSearch] = {},
        not_searched: Sequence[NotSearched] = (),
    ) -> None:
        self._connections, self._datasets, self._indexes = connections, datasets, indexes
        self._left_out = {one.dataset_id: one.describe() for one in not_searched}
        self._vectors: dict[Tile, NDArray[np.float32]] = {}

    def named(self, text: str) -> Tile:
        """Return the tile with a name. See `TileSource.named`."""
        dataset, tile_id = self._parse_name(text)
        index = self._indexes.get(dataset.id)
        found = None if index is None else index.find(tile_id)
        if found is None:
            with self._connections.borrow() as con:
                return find_tile(con, dataset, tile_id)
        row, vector = found
        tile = Tile(dataset_id=dataset.id, **{name: row[name] for name in Tile.model_fields if name in row})
        self._vectors[tile] = vector
        return tile

    def at(self, lon: float, lat: float) -> Sequence[Tile]:
        """Return the tile at a place, from the first dataset that has one. See `find_tile_at`."""
        with self._connections.borrow() as con:
            return [find_tile_at(con, self._datasets, lon, lat)]

    def vectors(self, tiles: Sequence[Tile]) -> dict[Tile, NDArray[np.float32]]:
        """Read the vectors of tiles. See `TileSource.vectors`."""
        others = [tile for tile in tiles if tile not in self._vectors]
        if not others:
            return self._vectors
        with self._connections.borrow() as con:
            return self._vectors | _read_tile_vectors(con, self._datasets, others)

    def _parse_name(self, text: str) -> tuple[Dataset, str]:
        """Return the dataset and the id in a tile's name, such as `r000012_c000034` or `dataset/r000012_c000034`."""
        reference = TileRef.parse(text)
        if reference.dataset_id is None:
            if len(self._datasets) > 1:
                ids = [dataset.id for dataset in self._datasets]
                raise UsageError(
                    f"tile {text} may belong to any of the {len(ids)} searched datasets ({known_names(text, ids)}): "
                    f"write the dataset before the tile, such as {ids[0]}/{text}"
                )
            return self._datasets[0], reference.tile_id
        for dataset in self._datasets:
            if dataset.id == reference.dataset_id:
                return dataset, reference.tile_id
        reason = self._left_out.get(reference.dataset_id)
        why = reason or f"the search has {known_names(reference.dataset_id, [one.id for one in self._datasets])}"
        raise UsageError(f"tile {text}: dataset {reference.dataset_id!r} is not searched: {why}")

    def dataset_of_image(self) -> Dataset:
        """Return the first dataset."""
        return self._datasets[0]


def resolve_examples(
    source: TileSource,
    query: Query,
    *,
    device: Device = "auto",
    hub_token: str | None = None,
) -> ResolvedExamples:
    """Find the examples of a query and combine their vectors.

    Args:
        source: finds the example tiles.
        query: the query.
        device: device that runs the model for an image.
        hub_token: access token of the Hugging Face Hub, for gated weights.

    Raises:
        UsageError: if a tile's name lacks the dataset although several datasets are
            searched; if a tile's name has a dataset that is not searched; or if liked and unliked tiles cancel each
            other out.
        DataError: if a tile was skipped, if no tile contains the point, or if the image cannot be read.
    """
    examples = _find_examples(source, query)
    tile_vectors = source.vectors([example.tile for example in examples if example.tile])
    by_role: dict[Role, list[NDArray[np.float64]]] = {"query": [], "like": [], "unlike": []}
    for example in examples:
        if example.tile is not None:
            vector = tile_vectors[example.tile]
        else:
            from rasterembed.search.chip import embed_chip  # It imports rasterio, which takes long.

            store, plan = source.dataset_of_image().store, source.dataset_of_image().plan
            vector = embed_chip(store, plan, str(example.image), device=device, hub_token=hub_token)
        by_role[example.role].append(_unit(vector, example.label))
    parts = [WEIGHTS[role] * np.mean(vectors, axis=0) for role, vectors in by_role.items() if vectors]
    combined = np.sum(parts, axis=0)
    if np.linalg.norm(combined) < _NO_DIRECTION:
        raise UsageError("the liked and unliked tiles cancel each other out: choose other tiles")
    return ResolvedExamples(tuple(examples), combined.astype(np.float32))


def scaled(vector: NDArray[np.generic]) -> NDArray[np.float32]:
    """Return a vector with the same direction, whose largest absolute value is from 0.5 to 1.

    DuckDB computes the cosine distance in float32. The squares of very large and of very small numbers do not fit into
    float32. The vector is multiplied by a power of two, which rounds nothing.

    Args:
        vector: a vector of real numbers, shape (dimensions,).

    Raises:
        UsageError: if the vector is zero, or is not made of finite real numbers.
    """
    if vector.dtype.kind not in "iuf":
        raise UsageError(f"the vector has dtype {vector.dtype}: give real numbers, such as float32")
    wide = vector.astype(np.result_type(vector.dtype, np.float64))
    largest = np.abs(wide).max()
    if not np.isfinite(largest) or largest == 0:
        raise UsageError("the vector is zero or not finite, so it has no distance to other vectors")
    result: NDArray[np.float32] = np.ldexp(wide, -np.frexp(largest)[1]).astype(np.float32)
    return result


def vector_example(vector: NDArray[np.generic], dimensions: int) -> ResolvedExamples:
    """Return a vector that a caller gave, as the result of `resolve_examples`.

    Args:
        vector: a vector of real numbers.
        dimensions: length of the vectors that are searched.

    Raises:
        UsageError: if the vector has another shape, is zero, or is not made of finite real numbers.
    """
    if vector.shape != (dimensions,):
        raise UsageError(f"the vector has shape {vector.shape}: give {dimensions} numbers, as the datasets have")
    return ResolvedExamples((), scaled(vector))


def _find_examples(source: TileSource, query: Query) -> list[Example]:
    @cache
    def find(text: str) -> Tile:
        # A tile can be an example several times. It is looked up once.
        return source.named(text)

    def of_tile(role: Role, text: str) -> Example:
        return Example(role=role, label=find(text).tile_id, tile=find(text))

    examples: list[Example] = []
    if query.tile is not None:
        examples.append(of_tile("query", query.tile))
    if query.lonlat is not None:
        examples += [
            Example(role="query", label=tile.tile_id, tile=tile, lonlat=query.lonlat)
            for tile in source.at(*query.lonlat)
        ]
    if query.image is not None:
        from rasterembed.search.chip import chip_remark

        dataset = source.dataset_of_image()
        remark = chip_remark(dataset.store, dataset.plan, query.image)
        label = query.image.rsplit("/", 1)[-1]
        examples.append(Example(role="query", label=label, image=query.image, remark=remark, read_like=dataset.id))
    examples += [of_tile("like", text) for text in query.like]
    examples += [of_tile("unlike", text) for text in query.unlike]
    return examples


def _read_tile_vectors(
    con: duckdb.DuckDBPyConnection, datasets: Sequence[Dataset], tiles: Sequence[Tile]
) -> dict[Tile, NDArray[np.float32]]:
    vectors: dict[Tile, NDArray[np.float32]] = {}
    for dataset in datasets:
        own = [tile for tile in dict.fromkeys(tiles) if tile.dataset_id == dataset.id]
        if own:
            vectors |= zip(own, read_vectors(con, dataset, own), strict=True)
    return vectors


def _unit(vector: NDArray[np.float32], label: str) -> NDArray[np.float64]:
    """Scale a vector to length 1, in double precision."""
    wide = vector.astype(np.float64)
    norm = float(np.linalg.norm(wide))
    if not norm > 0:
        raise DataError(f"{label}: its vector is zero, so it has no distance to other vectors")
    return wide / norm
