"""Compare a query with stored vectors, and bring rows into the order of an answer. All search engines use this module.

An engine proposes rows by distances that it computes from compressed vectors or in float32. The distances of an answer
are computed here, in float64 and from the stored vectors. So all engines give the same distance to a row, and rows that
are equally far away are in the same order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from rasterembed.dataset.arrow_arrays import number_array
from rasterembed.search.index.stored_rows import BLOCK_ROWS, StoredVectors, unit_vectors
from rasterembed.search.row_selection import RowSelection

_DECIMALS = 12
"""Distances are rounded to this number of decimals. Float64 rounds the distances of parallel vectors differently by
less than 1e-15, and these distances must be equal."""


@dataclass(frozen=True)
class Compared:
    """Rows of a segment, with their distances to a query. The rows are in any order."""

    rows: NDArray[np.int64]
    """Row numbers, shape (n,)."""
    distances: NDArray[np.float64]
    """Cosine distances, shape (n,), 0 to 2."""


def cosine_distances(query: NDArray[np.floating], vectors: NDArray[np.generic]) -> NDArray[np.float64]:
    """Return the cosine distances of a query to some vectors, rounded to 12 decimals.

    The cosine distance is 1 - a·b / (|a| |b|). A zero vector has no direction. Its distance is 1, the distance of a
    right angle.

    Args:
        query: shape (dimensions,). It need not be normalised.
        vectors: stored vectors of float32, float16 or int8, shape (n, dimensions).

    Returns:
        Shape (n,), 0 to 2. The distance of a row does not depend on the other rows.

    Example:
        >>> cosine_distances(np.array([1.0, 0.0]), np.array([[2, 0], [0, 3], [-1, 0]], np.float32)).tolist()
        [0.0, 1.0, 2.0]
    """
    wide, one = vectors.astype(np.float64), query.astype(np.float64)
    # A matrix product may sum up a row differently if the matrix has more rows. `einsum` treats every row alike.
    lengths = np.sqrt(np.einsum("ij,ij->i", wide, wide)) * np.linalg.norm(one)
    cosines = np.einsum("ij,j->i", wide, one) / np.where(lengths == 0.0, 1.0, lengths)
    distances: NDArray[np.float64] = np.round(np.clip(1.0 - cosines, 0.0, 2.0), _DECIMALS)
    return distances


def rounding_bound(dimensions: int) -> float:
    """Return the largest error of a cosine distance that is computed in float32 from unit vectors.

    The error of a scalar product of n numbers is at most n u / (1 - n u) times the product of the lengths, where
    u = 2**-24 (N. J. Higham, Accuracy and Stability of Numerical Algorithms, 2002, section 3.1). Eight more roundings
    cover the scaling to length 1 and the subtraction.

    Args:
        dimensions: length of the vectors.
    """
    roundings = (dimensions + 8) * 2.0**-24
    return roundings / (1.0 - roundings)


def rerank(query: NDArray[np.floating], vectors: StoredVectors, rows: NDArray[np.int64]) -> Compared:
    """Return some rows of a segment with their distances to a query.

    Args:
        query: shape (dimensions,).
        vectors: the stored vectors of the segment.
        rows: row numbers, shape (n,).
    """
    distances = [
        cosine_distances(query, vectors.take(rows[start : start + BLOCK_ROWS]))
        for start in range(0, len(rows), BLOCK_ROWS)
    ]
    return Compared(rows, np.concatenate([np.empty(0), *distances]))


def compare_all(
    query: NDArray[np.floating], vectors: StoredVectors, selection: RowSelection | None, count: int
) -> Compared:
    """Return the nearest rows of a segment. The query is compared with every selected row.

    Args:
        query: shape (dimensions,).
        vectors: the stored vectors of the segment.
        selection: the rows that are compared. None: all rows.
        count: number of rows, at least 1.

    Returns:
        At least the `count` nearest rows, and all rows that are as far away as the last of them. If fewer rows are
        selected, all of them.
    """
    unit = unit_vectors(query[None])[0]
    if selection is None:
        blocks = vectors.blocks()
    else:
        numbers = selection.numbers
        blocks = (vectors.unit(numbers[start : start + BLOCK_ROWS]) for start in range(0, len(numbers), BLOCK_ROWS))
    # The product in float32 is fast. The few rows that can be among the nearest are compared again in float64.
    rough = np.concatenate([np.empty(0, np.float32), *(1.0 - block @ unit for block in blocks)])
    near = np.arange(len(rough))
    if len(rough) > count:
        limit = np.partition(rough, count - 1)[count - 1] + 2.0 * rounding_bound(vectors.dimensions)
        near = np.flatnonzero(rough <= limit)
    return rerank(query, vectors, near if selection is None else numbers[near])


def in_order(rows: pa.Table, distances: NDArray[np.float64], identity: Sequence[str], k: int) -> pa.Table:
    """Return the k nearest rows, nearest first. Rows with the same distance are in the order of their ids.

    Args:
        rows: n rows.
        distances: their distances, shape (n,).
        identity: names of the columns with the ids. The first column is compared first.
        k: largest number of rows.

    Returns:
        The columns of `rows` and `distance`.
    """
    with_distance = rows.append_column("distance", number_array(np.asarray(distances, np.float64)))
    return with_distance.sort_by([(name, "ascending") for name in ("distance", *identity)]).slice(0, k)
