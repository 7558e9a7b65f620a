"""Statistics of many vectors: the number of their directions, their similarity, and the similarity of neighbours."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float32]
"""Vectors of n tiles, shape (n, D)."""

_DEAD = 1e-6
"""Limit for dead dimensions. A dimension is dead if its standard deviation is below this share of the root mean square
of all values."""

_SAME_COSINE = 0.9999
"""Vectors are nearly the same if the cosine similarity of each to the mean of all is at least this number."""

_PERMUTATIONS = 199
"""Number of times that the vectors are assigned to tiles at random."""

_SMALLEST_STRATUM = 16
"""Smallest number of sampled tiles in a shard whose vectors are shuffled only within the shard. The vectors of all
smaller shards are shuffled together. If only a few vectors were shuffled, many of them would stay in place."""

_DIRECTION_VARIANCE = 1e-10
"""Smallest variance of a principal component. A smaller variance is only rounding noise of float32."""


def effective_rank(vectors: Vectors) -> float:
    """Return the effective rank (RankMe), the effective number of directions that the vectors use.

    The formula is exp(-sum(p log p)) with p = s / sum(s) + 1e-7. Here, s are the singular values of the matrix of
    vectors. The matrix is not centred. This is equation 1 of Garrido, Balestriero, Najman, LeCun, "RankMe: Assessing
    the Downstream Performance of Pretrained Self-Supervised Representations by Their Rank", ICML 2023,
    arXiv:2210.02885.

    Args:
        vectors: shape (n, D).

    Returns:
        A value between 1 (all vectors on one line) and min(n, D). 0 if all vectors are zero.
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
    """Return the mean cosine similarity over all pairs of different vectors.

    Let v be the sum of all n vectors. The squared norm of v is the sum of all n^2 inner products. Among them are the n
    inner products of a vector with itself. Each of these is 1.

    Args:
        unit: unit vectors, shape (n, D), n > 1.
    """
    n = len(unit)
    total = unit.sum(axis=0, dtype=np.float64)
    # Vectors are rounded to float32, so the mean of equal vectors could be above 1.
    return float(np.clip((total @ total - n) / (n * (n - 1)), -1.0, 1.0))


def nearly_same(unit: Vectors) -> bool:
    """Return whether two or more vectors all have nearly the same direction.

    Args:
        unit: unit vectors, shape (n, D).
    """
    if len(unit) < 2:
        return False
    total = unit.sum(axis=0, dtype=np.float64)
    norm = float(np.linalg.norm(total))
    return norm > 0 and bool((unit @ (total / norm)).min() >= _SAME_COSINE)


def nearly_same_text(count: int) -> str:
    """Return the warning about measured vectors for which `nearly_same` is true.

    Args:
        count: number of these vectors.
    """
    return f"all {count:,} measured vectors are nearly the same"


def dead_dimensions(vectors: Vectors) -> NDArray[np.bool_]:
    """Return which dimensions have the same value in all vectors, except for rounding.

    Args:
        vectors: shape (n, D).

    Returns:
        Booleans, shape (D,): True where the dimension has the same value in all vectors.
    """
    scale = float(np.sqrt(np.mean(np.square(vectors, dtype=np.float64))))
    return np.asarray(vectors.std(axis=0, dtype=np.float64) <= _DEAD * scale)


@dataclass(frozen=True)
class Neighbours:
    """Comparison of neighbouring tiles with random tiles."""

    pairs: int
    """Number of pairs of neighbouring tiles. Neighbours have a common side."""
    neighbour_cosine: float
    """Mean cosine similarity of these pairs."""
    random_cosine: float
    """Mean cosine similarity of all pairs of the sample."""
    z: float | None
    """`neighbour_cosine` minus its mean over random assignments of the vectors to the tiles, in standard deviations.
    None if a random assignment changes nothing, for example because all vectors are equal."""

    @property
    def gap(self) -> float:
        """Mean cosine similarity of neighbours minus that of random tiles."""
        return self.neighbour_cosine - self.random_cosine


def compare_neighbours(
    unit: Vectors, row: NDArray[np.integer], col: NDArray[np.integer], shard: NDArray[np.integer]
) -> Neighbours | None:
    """Compare the similarity of neighbours in the grid with that of random tiles.

    This is a permutation test, as is usual for Moran's I (Cliff and Ord, "Spatial Processes", 1981). If vectors did not
    depend on the place of their tiles, every assignment of vectors to tiles would be equally likely. The test compares
    the observed assignment with random assignments. A random assignment exchanges vectors only within a shard, or
    within the group of all small shards. The test can therefore find a shard with rows in a wrong order, although all
    its vectors are in the right region.

    Args:
        unit: unit vectors of n tiles, shape (n, D). The cosines of all n x n pairs are held in memory.
        row: row of each tile in the grid, shape (n,).
        col: column of each tile in the grid, shape (n,).
        shard: number of each tile's shard, shape (n,).

    Returns:
        The comparison, or None if no two tiles are neighbours.
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
    """Find all pairs of a tile and its right or lower neighbour. A tile that occurs twice is used only once.

    Returns:
        Positions of the first tiles, and positions of their neighbours, both of shape (pairs,).
    """
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
    """Return the group of each tile: the number of its shard, or -1 for all small shards.

    Vectors are exchanged only within a group.
    """
    numbers, which, count = np.unique(shard, return_inverse=True, return_counts=True)
    return np.where(count >= _SMALLEST_STRATUM, numbers, -1)[which].astype(np.int64)


@dataclass(frozen=True)
class Principal:
    """The first three principal components of unit vectors, and the range of the vectors' projections."""

    axes: NDArray[np.float64]
    """Components as unit vectors, with the largest variance first, shape (3, D). A missing component is zero."""
    explained: tuple[float, float, float]
    """Share of the variance along each component."""
    centre: NDArray[np.float64]
    """Projection of the mean vector on each component, shape (3,)."""
    low: NDArray[np.float64]
    """2nd percentile of the centred projections, shape (3,)."""
    high: NDArray[np.float64]
    """98th percentile of the centred projections, shape (3,)."""


def principal_components(unit: Vectors) -> Principal:
    """Return the first three principal components.

    A component could have either sign. The sign is chosen such that the component's largest entry is positive. The same
    vectors then always give the same components.

    Args:
        unit: unit vectors, shape (n, D), n > 0.
    """
    mean = unit.mean(axis=0, dtype=np.float64)
    centred = unit.astype(np.float64) - mean
    values, columns = _largest(centred)
    axes = np.zeros((3, unit.shape[1]))
    total = float(np.square(centred).sum())
    present = [i for i in range(len(values)) if values[i] > _DIRECTION_VARIANCE * max(len(unit), 1)]
    for i in present:
        axis = columns[:, i]
        axes[i] = axis * np.sign(axis[np.argmax(np.abs(axis))])
    projected = centred @ axes.T
    low, high = np.percentile(projected, (2, 98), axis=0)
    shares = [float(values[i]) / total if i in present else 0.0 for i in range(3)]
    return Principal(
        axes=axes,
        explained=(shares[0], shares[1], shares[2]),
        centre=axes @ mean,
        low=low,
        high=high,
    )


def _largest(centred: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the three largest eigenvalues of the scatter matrix, with the largest first, and their eigenvectors.

    Args:
        centred: vectors minus their mean, shape (n, D).

    Returns:
        Eigenvalues of shape (3,), and eigenvectors as the columns of a matrix of shape (D, 3). If n or D is below 3,
        there are fewer of them.
    """
    if len(centred) < centred.shape[1]:
        values, vectors = np.linalg.eigh(centred @ centred.T)
        values, vectors = values[::-1][:3], vectors[:, ::-1][:, :3]
        columns = centred.T @ vectors
        lengths = np.linalg.norm(columns, axis=0)
        return values, columns / np.where(lengths > 0, lengths, 1.0)
    values, vectors = np.linalg.eigh(centred.T @ centred)
    return values[::-1][:3], vectors[:, ::-1][:, :3]
