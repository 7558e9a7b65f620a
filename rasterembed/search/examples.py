"""From what a person shows to the vector that is looked for.

An example tile or image is the query itself. Liked and unliked tiles move it by Rocchio's formula (J. J. Rocchio,
Relevance feedback in information retrieval, in: G. Salton, The SMART Retrieval System, 1971):

    q = a * query + b * mean(liked) - c * mean(unliked)

over vectors of length 1, with a = 1, b = 0.75, c = 0.15, the weights that Manning, Raghavan and Schütze give as
reasonable (Introduction to Information Retrieval, 2008, section 9.1.1). What is not given falls away.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import duckdb
import numpy as np
from numpy.typing import NDArray

from rasterembed.dataset.dataset import Dataset
from rasterembed.errors import DataError, UsageError
from rasterembed.model.choice import Device
from rasterembed.search.answer import Example
from rasterembed.search.chip import embed_chip
from rasterembed.search.query import Query, TileRef
from rasterembed.search.tiles import Tile, find_tile, tile_at, vectors_of

QUERY_WEIGHT, LIKED_WEIGHT, UNLIKED_WEIGHT = 1.0, 0.75, 0.15
"""a, b and c of Rocchio's formula."""

_NOTHING = 1e-6
"""Length below which a vector made of vectors of length 1 has no direction."""


@dataclass(frozen=True)
class Shown:
    """What a query shows, and the vector that follows from it."""

    examples: tuple[Example, ...]
    vector: NDArray[np.float32]
    """Shape (dimensions,)."""

    def tiles_of(self, dataset_id: str) -> frozenset[str]:
        """Ids of the example tiles in a dataset."""
        tiles = (example.tile for example in self.examples)
        return frozenset(tile.tile_id for tile in tiles if tile and tile.dataset_id == dataset_id)


def resolve_examples(
    con: duckdb.DuckDBPyConnection,
    datasets: Sequence[Dataset],
    query: Query,
    *,
    device: Device = "auto",
    hub_token: str | None = None,
) -> Shown:
    """Find a query's examples and make its vector of theirs.

    Args:
        con: a connection made by `duck.connect`.
        datasets: what is searched; tiles are looked up there, and an image goes through their model.
        query: the question.
        device: where the model runs, for an image.
        hub_token: access token for gated weights.

    Raises:
        UsageError: if there is no example, or a tile could be of several datasets, or is of none that is searched.
        DataError: if a tile was skipped, no tile is at the place, or the image cannot be read.
    """
    if not query.has_example:
        raise UsageError("give an example of what to look for: tile, lonlat, image or like")
    examples: list[Example] = []
    if query.tile is not None:
        examples.append(_tile_example("query", _named(con, datasets, query.tile)))
    if query.lonlat is not None:
        examples.append(_tile_example("query", tile_at(con, datasets, *query.lonlat)))
    if query.image is not None:
        examples.append(Example(role="query", label=query.image.rsplit("/", 1)[-1], image=query.image))
    examples += [_tile_example("like", _named(con, datasets, text)) for text in query.like]
    examples += [_tile_example("unlike", _named(con, datasets, text)) for text in query.unlike]

    vectors = _tile_vectors(con, datasets, [example.tile for example in examples if example.tile])
    parts: dict[str, list[NDArray[np.float64]]] = {"query": [], "like": [], "unlike": []}
    for example in examples:
        if example.tile is not None:
            vector = vectors[example.tile]
        else:
            plan, store = datasets[0].plan, datasets[0].store
            vector = embed_chip(plan, store, str(example.image), device=device, hub_token=hub_token)
        parts[example.role].append(_unit(vector, example.label))
    weights = {"query": QUERY_WEIGHT, "like": LIKED_WEIGHT, "unlike": -UNLIKED_WEIGHT}
    means = [weights[role] * np.mean(vectors, axis=0) for role, vectors in parts.items() if vectors]
    moved = np.sum(means, axis=0)
    if np.linalg.norm(moved) < _NOTHING:
        raise UsageError("the liked and unliked tiles cancel each other out: like others")
    return Shown(tuple(examples), moved.astype(np.float32))


def _tile_example(role: str, tile: Tile) -> Example:
    return Example.model_validate({"role": role, "label": tile.tile_id, "tile": tile})


def _named(con: duckdb.DuckDBPyConnection, datasets: Sequence[Dataset], text: str) -> Tile:
    reference = TileRef.parse(text)
    if reference.dataset_id is None:
        if len(datasets) > 1:
            raise UsageError(f"tile {text} could be of any of {len(datasets)} datasets: write {datasets[0].id}/{text}")
        return find_tile(con, datasets[0], reference.tile_id)
    for dataset in datasets:
        if dataset.id == reference.dataset_id:
            return find_tile(con, dataset, reference.tile_id)
    raise UsageError(f"tile {text}: dataset {reference.dataset_id!r} is not among those that are searched")


def _tile_vectors(
    con: duckdb.DuckDBPyConnection, datasets: Sequence[Dataset], tiles: Sequence[Tile]
) -> dict[Tile, NDArray[np.float32]]:
    vectors: dict[Tile, NDArray[np.float32]] = {}
    for dataset in datasets:
        own = [tile for tile in dict.fromkeys(tiles) if tile.dataset_id == dataset.id]
        if own:
            vectors |= zip(own, vectors_of(con, dataset, own), strict=True)
    return vectors


def _unit(vector: NDArray[np.float32], label: str) -> NDArray[np.float64]:
    wide = vector.astype(np.float64)
    norm = float(np.linalg.norm(wide))
    if not norm > 0:
        raise DataError(f"{label}: its vector has no length, so nothing is near to it")
    return wide / norm
