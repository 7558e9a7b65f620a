"""Divide many vectors into lists by k-means. A tile is then compared only with the tiles of the nearest lists.

A product of all vectors with all others takes n² d operations, which is too much for a million tiles. The lists are
those of an inverted file, as in FAISS (J. Johnson, M. Douze and H. Jégou, Billion-scale similarity search with GPUs,
IEEE Transactions on Big Data, 2019). All tiles of a list are compared with the same lists, by one matrix product.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rasterembed.search.batch.kmeans import assign, train_centres
from rasterembed.search.batch.nearest import distances, nearest
from rasterembed.search.index.stored_rows import StoredVectors

EXACT_ROWS = 50_000
"""Up to this number of tiles, every tile is compared with every other. On two cores, this takes about half a minute at
384 dimensions."""

WANTED_RECALL = 0.995
"""Share of the true neighbours that must be in the lists that are compared, in a sample."""

MOST_PROBED = 128
"""Largest number of lists that a list is compared with."""

_ROWS_PER_LIST_IN_TRAINING = 64
_ROUNDS = 8
_SEED = 20_260_101
_SAMPLE = 512
"""Number of tiles whose true neighbours are computed to choose the number of compared lists, and as many to measure
the recall."""


@dataclass(frozen=True)
class VectorLists:
    """Vectors in lists. n is the number of vectors, and m the number of lists."""

    near: NDArray[np.int32]
    """The nearest lists of each list, shape (m, probed). The first is the list itself."""
    order: NDArray[np.int64]
    """Row numbers of the vectors, ordered by list, shape (n,)."""
    starts: NDArray[np.int64]
    """Place in `order` where each list begins, and n at the end, shape (m + 1,)."""
    list_of: NDArray[np.int32]
    """Number of the list of each vector, shape (n,)."""

    @property
    def count(self) -> int:
        """Number of lists."""
        return len(self.starts) - 1

    @property
    def probed(self) -> int:
        """Number of lists that a list is compared with, itself included."""
        return int(self.near.shape[1])

    def members(self, number: int) -> NDArray[np.int64]:
        """Return the row numbers of a list."""
        return self.order[self.starts[number] : self.starts[number + 1]]

    def __iter__(self) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
        """Yield the row numbers of each list, and those of all vectors that they are compared with."""
        for number in range(self.count):
            own = self.members(number)
            if len(own):
                yield own, np.concatenate([self.members(near) for near in self.near[number]])


@dataclass(frozen=True)
class TrueNeighbours:
    """Tiles with their true neighbours, which were found by comparing them with all tiles."""

    numbers: NDArray[np.int64]
    """Row numbers of the tiles, shape (n,)."""
    neighbours: NDArray[np.int64]
    """Row numbers of their neighbours, nearest first, shape (n, k). -1 where there are fewer."""
    distances: NDArray[np.float32]
    """Distances of the neighbours, shape (n, k)."""

    def recall(self, found: NDArray[np.float32]) -> float:
        """Return the share of the true neighbours that were found.

        A tile that is at most 1e-6 farther away than the last true neighbour counts as found, because float32 does
        not distinguish them.

        Args:
            found: distances of the tiles that were found for each tile of the sample, shape (n, k).
        """
        real = self.neighbours >= 0
        last = np.where(real, self.distances, -np.inf).max(axis=1, initial=-np.inf)
        hits = (found <= last[:, None] + 1e-6).sum(axis=1)
        return float(np.minimum(hits, real.sum(axis=1)).sum() / max(1, real.sum()))


def find_true_neighbours(vectors: StoredVectors, k: int, seed: int) -> TrueNeighbours:
    """Compare a sample of random tiles with all tiles, and return their k true neighbours."""
    rng = np.random.default_rng([_SEED, seed])
    numbers = np.sort(rng.choice(vectors.rows, min(_SAMPLE, vectors.rows), replace=False))
    found = without_itself(numbers, nearest(vectors, numbers, None, k + 1))
    return TrueNeighbours(numbers, found, distances(vectors, numbers, found))


def without_itself(numbers: NDArray[np.int64], found: NDArray[np.int64]) -> NDArray[np.int64]:
    """Remove each tile from its own neighbours. If it is not among them, remove the last neighbour.

    Args:
        numbers: row numbers of the tiles, shape (n,).
        found: row numbers of their neighbours, shape (n, k + 1).

    Returns:
        Shape (n, k).
    """
    order = np.argsort(found == numbers[:, None], axis=1, kind="stable")[:, :-1]
    return np.take_along_axis(found, order, axis=1)


def make_lists(vectors: StoredVectors, k: int) -> VectorLists:
    """Divide vectors into lists, and choose how many lists are compared.

    It is the smallest number for which the compared lists have the share `WANTED_RECALL` of the k true neighbours of a
    sample.

    Args:
        vectors: the vectors.
        k: number of neighbours.
    """
    count = 2 ** round(math.log2(math.sqrt(vectors.rows)))
    centres = train_centres(
        vectors, count, rows=_ROWS_PER_LIST_IN_TRAINING * count, rounds=_ROUNDS, starts=1, seed=_SEED
    )
    list_of, _ = assign(vectors, centres)
    order = np.argsort(list_of, kind="stable").astype(np.int64)
    starts = np.concatenate([[0], np.cumsum(np.bincount(list_of, minlength=count))]).astype(np.int64)
    likeness = centres @ centres.T
    np.fill_diagonal(likeness, np.inf)  # Every list is the nearest to itself.
    near = np.argsort(-likeness, axis=1, kind="stable")[:, :MOST_PROBED].astype(np.int32)
    sample = find_true_neighbours(vectors, k, 0)
    own, real = list_of[sample.numbers], sample.neighbours >= 0
    same = near[own][:, None, :] == list_of[sample.neighbours][:, :, None]
    place = np.where(same.any(axis=2), same.argmax(axis=2), MOST_PROBED)[real]
    inside = np.cumsum(np.bincount(place, minlength=MOST_PROBED + 1)[: near.shape[1]]) / max(1, len(place))
    enough = np.flatnonzero(inside >= WANTED_RECALL)
    probed = int(enough[0]) + 1 if len(enough) else near.shape[1]
    return VectorLists(near[:, :probed], order, starts, list_of)
