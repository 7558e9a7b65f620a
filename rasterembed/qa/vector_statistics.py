"""What vectors as a whole are like: how many directions they use, how alike they are, how they lie in the grid."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float32]

_DEAD = 1e-6
"""A dimension is dead if it varies by less than this, in terms of the root mean square of all values."""

_PERMUTATIONS = 199
_SMALLEST_STRATUM = 16
"""Shards with fewer tiles in the sample are dealt out together: alone they hardly change places."""


def effective_rank(vectors: Vectors) -> float:
    """RankMe of n vectors, shape (n, D): between 1 (all on one line) and min(n, D).

    exp of the entropy of p = s / sum(s) + 1e-7, s the singular values of the matrix as it is, not centred: equation 1
    of Garrido, Balestriero, Najman, LeCun, "RankMe: Assessing the Downstream Performance of Pretrained Self-Supervised
    Representations by Their Rank", ICML 2023, arXiv:2210.02885.
    """
    matrix = vectors.astype(np.float64)
    gram = matrix @ matrix.T if len(matrix) < matrix.shape[1] else matrix.T @ matrix
    singular = np.sqrt(np.clip(np.linalg.eigvalsh(gram), 0.0, None))
    total = float(singular.sum())
    if total == 0.0:
        return 0.0
    p = singular / total + 1e-7
    return float(np.exp(-(p * np.log(p)).sum()))


def mean_cosine(unit: Vectors) -> float:
    """Mean cosine similarity over all pairs of n > 1 different rows of unit vectors, shape (n, D).

    |sum of the vectors|^2 is the sum of all n^2 inner products, n of which are of a vector with itself.
    """
    n = len(unit)
    total = unit.sum(axis=0, dtype=np.float64)
    return float((total @ total - n) / (n * (n - 1)))


def dead_dimensions(vectors: Vectors) -> NDArray[np.bool_]:
    """Which dimensions have the same value in all n vectors, but for rounding; shape (D,)."""
    scale = float(np.sqrt(np.mean(np.square(vectors, dtype=np.float64))))
    return np.asarray(vectors.std(axis=0, dtype=np.float64) <= _DEAD * scale)


@dataclass(frozen=True)
class Neighbours:
    """How alike neighbouring tiles are."""

    pairs: int
    """Pairs of tiles side by side, or one above the other."""
    neighbour_cosine: float
    """Mean cosine similarity of those pairs."""
    random_cosine: float
    """Mean cosine similarity of all pairs of the sample."""
    z: float | None
    """Neighbours' mean against its distribution when vectors are dealt out at random within their shard, in standard
    deviations; None where dealing out changes nothing, as when all vectors are equal."""

    @property
    def gap(self) -> float:
        """By how much neighbours are more alike than random tiles."""
        return self.neighbour_cosine - self.random_cosine


def compare_neighbours(
    unit: Vectors, row: NDArray[np.integer], col: NDArray[np.integer], shard: NDArray[np.integer]
) -> Neighbours | None:
    """Compare neighbours in the grid with random tiles; None if no two tiles are neighbours.

    The test is a permutation test, as for Moran's I (Cliff and Ord, "Spatial Processes", 1981): if places said nothing,
    every way to deal the vectors to the tiles would be as likely. They are dealt out within shards, so that a shard
    whose rows were mixed up is found, though its tiles are still in their region.

    Args:
        unit: unit vectors of n tiles, shape (n, D); n squared numbers are held in memory.
        row: the tiles' rows in the grid, shape (n,).
        col: their columns, shape (n,).
        shard: number of the shard of each, shape (n,).
    """
    first, second = _neighbour_pairs(row, col)
    if not len(first):
        return None
    cosines = unit @ unit.T
    n = len(unit)
    strata = _strata(shard)
    order = np.argsort(strata, kind="stable")
    random = np.random.default_rng(0)
    dealt = np.empty(_PERMUTATIONS)
    places = np.empty(n, dtype=np.intp)
    for i in range(_PERMUTATIONS):
        places[order] = np.lexsort((random.random(n), strata))
        dealt[i] = cosines[places[first], places[second]].mean(dtype=np.float64)
    observed = float(cosines[first, second].mean(dtype=np.float64))
    spread = float(dealt.std())
    return Neighbours(
        pairs=len(first),
        neighbour_cosine=observed,
        random_cosine=mean_cosine(unit),
        z=(observed - float(dealt.mean())) / spread if spread > 1e-7 else None,
    )


def _neighbour_pairs(row: NDArray[np.integer], col: NDArray[np.integer]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Positions of tiles and of their right and lower neighbours; of tiles that occur twice, one counts."""
    stride = int(col.max(initial=0)) + 2
    places = row.astype(np.int64) * stride + col
    known, where = np.unique(places, return_index=True)
    firsts, seconds = [], []
    for step in (1, stride):
        at = np.searchsorted(known, known + step)
        found = at < len(known)
        found[found] = known[at[found]] == known[found] + step
        firsts.append(where[found])
        seconds.append(where[at[found]])
    return np.concatenate(firsts), np.concatenate(seconds)


def _strata(shard: NDArray[np.integer]) -> NDArray[np.int64]:
    numbers, which, count = np.unique(shard, return_inverse=True, return_counts=True)
    return np.where(count >= _SMALLEST_STRATUM, numbers, -1)[which].astype(np.int64)


@dataclass(frozen=True)
class Principal:
    """The first principal components of unit vectors, and the range that their projections fall in."""

    axes: NDArray[np.float64]
    """Unit vectors, largest variance first, shape (3, D); zero where there are fewer components."""
    explained: tuple[float, float, float]
    """Share of the variance along each."""
    centre: NDArray[np.float64]
    """Projections of the mean vector, shape (3,)."""
    low: NDArray[np.float64]
    """2nd percentile of the centred projections, shape (3,)."""
    high: NDArray[np.float64]
    """98th percentile of them, shape (3,)."""


def principal_components(unit: Vectors) -> Principal:
    """Principal components of n unit vectors, shape (n, D), n > 0; signs are such that the same data give the same."""
    mean = unit.mean(axis=0, dtype=np.float64)
    centred = unit.astype(np.float64) - mean
    values, columns = _largest(centred)
    axes = np.zeros((3, unit.shape[1]))
    total = float(np.square(centred).sum())
    # below the rounding of float32 there is no direction, only noise
    there = [i for i in range(len(values)) if values[i] > 1e-10 * max(len(unit), 1)]
    for i in there:
        axis = columns[:, i]
        axes[i] = axis * np.sign(axis[np.argmax(np.abs(axis))])
    projected = centred @ axes.T
    low, high = np.percentile(projected, (2, 98), axis=0)
    shares = [float(values[i]) / total if i in there else 0.0 for i in range(3)]
    return Principal(
        axes=axes,
        explained=(shares[0], shares[1], shares[2]),
        centre=axes @ mean,
        low=low,
        high=high,
    )


def _largest(centred: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Up to three largest eigenvalues of the scatter matrix and their vectors as columns, largest first."""
    if len(centred) < centred.shape[1]:
        values, vectors = np.linalg.eigh(centred @ centred.T)
        values, vectors = values[::-1][:3], vectors[:, ::-1][:, :3]
        columns = centred.T @ vectors
        lengths = np.linalg.norm(columns, axis=0)
        return values, columns / np.where(lengths > 0, lengths, 1.0)
    values, vectors = np.linalg.eigh(centred.T @ centred)
    return values[::-1][:3], vectors[:, ::-1][:, :3]
