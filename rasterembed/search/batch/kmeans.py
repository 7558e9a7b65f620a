"""k-means of unit vectors by FAISS: the centres have length 1 too, and the distance is the cosine distance."""

from __future__ import annotations

from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from rasterembed.search.index.stored_rows import StoredVectors


def train_centres(
    vectors: StoredVectors, count: int, *, rows: int, rounds: int, starts: int, seed: int
) -> NDArray[np.float32]:
    """Return the centres of clusters, found by Lloyd's algorithm in a sample of the vectors.

    Args:
        vectors: the vectors, at least `count`.
        count: number of centres.
        rows: number of vectors in the sample. It takes 4 bytes for each number in memory.
        rounds: number of rounds of Lloyd's algorithm.
        starts: number of times that the algorithm starts with other random centres. The best result counts.
        seed: seed of the sample and of the first centres.

    Returns:
        Unit vectors, shape (count, dimensions).
    """
    numbers = np.arange(vectors.rows)
    if rows < vectors.rows:
        numbers = np.sort(np.random.default_rng(seed).choice(vectors.rows, rows, replace=False))
    sample = vectors.unit(numbers)
    kmeans: Any = faiss.Kmeans(
        vectors.dimensions,
        count,
        niter=rounds,
        nredo=starts,
        seed=seed % 2**31,
        spherical=True,
        min_points_per_centroid=1,  # FAISS would print a warning for few vectors.
        max_points_per_centroid=max(1, -(-len(sample) // count)),  # Otherwise, FAISS would take a sample again.
    )
    kmeans.train(sample)
    centres: NDArray[np.float32] = kmeans.centroids
    return centres


def assign(vectors: StoredVectors, centres: NDArray[np.float32]) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Return the number of the nearest centre of each vector, and its cosine distance.

    Args:
        vectors: n vectors.
        centres: unit vectors, shape (m, dimensions).

    Returns:
        Two arrays of shape (n,).
    """
    number = np.empty(vectors.rows, np.int32)
    distance = np.empty(vectors.rows, np.float32)
    start = 0
    for block in vectors.blocks():
        _, found = faiss.knn(block, centres, 1, metric=faiss.METRIC_INNER_PRODUCT)
        part = slice(start, start + len(block))
        number[part] = found[:, 0]
        # See `rasterembed.search.batch.nearest.distances` for this form of the cosine distance.
        block -= centres[found[:, 0]]
        distance[part] = 0.5 * np.einsum("ij,ij->i", block, block)
        start += len(block)
    return number, distance
