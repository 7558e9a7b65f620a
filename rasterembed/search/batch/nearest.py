"""Compare many vectors with many others by matrix products, in blocks that fit in memory."""

from __future__ import annotations

import faiss
import numpy as np
from numpy.typing import NDArray

from rasterembed.search.index.stored_rows import StoredVectors

_QUERIES, _CANDIDATES = 8192, 65_536
"""Largest number of queries and of candidates in one product. The vectors of so many candidates take 100 MB at 384
dimensions."""

_PAIR_NUMBERS = 4 * 2**20
"""Largest number of values of vectors that `distances` compares at once. They take 16 MB."""


def nearest(
    vectors: StoredVectors, queries: NDArray[np.int64], candidates: NDArray[np.int64] | None, count: int
) -> NDArray[np.int64]:
    """Return the nearest candidates of each query by cosine distance, nearest first.

    The order comes from products in float32. Candidates whose distances differ by less than 1e-6 may be in any order.
    A query that is a candidate too is among its own nearest.

    Args:
        vectors: the vectors.
        queries: row numbers of the queries, shape (n,).
        candidates: row numbers of the candidates, shape (m,). None stands for all rows.
        count: number of candidates for each query.

    Returns:
        Row numbers, shape (n, count), -1 where there are fewer candidates.
    """
    found = np.full((len(queries), count), -1, np.int64)
    cosines = np.full((len(queries), count), -np.inf, np.float32)
    total = vectors.rows if candidates is None else len(candidates)
    for start in range(0, total, _CANDIDATES):
        stop = min(start + _CANDIDATES, total)
        numbers = np.arange(start, stop) if candidates is None else candidates[start:stop]
        block = vectors.unit(numbers)
        for first in range(0, len(queries), _QUERIES):
            part = slice(first, first + _QUERIES)
            best, place = faiss.knn(
                vectors.unit(queries[part]), block, min(count, len(numbers)), metric=faiss.METRIC_INNER_PRODUCT
            )
            _merge(found[part], cosines[part], numbers[place], best)
    return found


def _merge(
    found: NDArray[np.int64], cosines: NDArray[np.float32], new: NDArray[np.int64], new_cosines: NDArray[np.float32]
) -> None:
    """Put the best of the old and the new candidates of each query into `found` and `cosines`."""
    both = np.concatenate([cosines, new_cosines], axis=1)
    order = np.argsort(-both, axis=1, kind="stable")[:, : found.shape[1]]
    found[:] = np.take_along_axis(np.concatenate([found, new], axis=1), order, axis=1)
    cosines[:] = np.take_along_axis(both, order, axis=1)


def distances(vectors: StoredVectors, queries: NDArray[np.int64], candidates: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return the cosine distance of each query to each of its candidates.

    For unit vectors, the cosine distance is half of the squared distance: |a - b|² = 2 - 2 a·b. Computed this way, it
    is exactly 0 for equal vectors, and near 0 it has more correct digits than 1 - a·b.

    Args:
        vectors: the vectors.
        queries: row numbers, shape (n,).
        candidates: row numbers, shape (n, m). The distance to -1 is infinite.
    """
    result = np.empty(candidates.shape, np.float32)
    step = max(1, _PAIR_NUMBERS // (vectors.dimensions * max(1, candidates.shape[1])))
    for start in range(0, len(queries), step):
        part = slice(start, start + step)
        others = vectors.unit(candidates[part].ravel()).reshape(*candidates[part].shape, vectors.dimensions)
        others -= vectors.unit(queries[part])[:, None]
        result[part] = 0.5 * np.einsum("nmd,nmd->nm", others, others)
    result[candidates < 0] = np.inf
    return result
