"""Small sets of vectors for the tests of the search engines, and their exact cosines."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rasterembed.search.index.stored_rows import StoredVectors


def store(vectors: NDArray[np.generic], folder: Path, name: str = "vectors.bin") -> StoredVectors:
    """Write vectors of float32, float16 or int8 to a file, and open it."""
    path = folder / name
    vectors.tofile(path)
    rows, dimensions = vectors.shape
    return StoredVectors.of_file(path, rows, dimensions, str(vectors.dtype))  # type: ignore[arg-type]


def clusters(rows: int, dimensions: int, seed: int = 0) -> NDArray[np.float32]:
    """Return vectors around ten random directions."""
    random = np.random.default_rng(seed)
    centres = np.random.default_rng(99).standard_normal((10, dimensions))
    vectors = centres[random.integers(0, 10, rows)] + 0.3 * random.standard_normal((rows, dimensions))
    return vectors.astype(np.float32)


def unit(vectors: NDArray[np.floating]) -> NDArray[np.float32]:
    """Scale vectors to length 1 in float64, and round them to float32. Zero vectors stay zero."""
    wide = np.asarray(vectors, np.float64)
    lengths = np.linalg.norm(wide, axis=1, keepdims=True)
    scaled: NDArray[np.float32] = (wide / np.where(lengths == 0, 1, lengths)).astype(np.float32)
    return scaled


def cosines(queries: NDArray[np.floating], vectors: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return the cosines of queries and vectors in float64, shape (queries, vectors). For a zero vector, it is 0."""
    left, right = np.asarray(queries, np.float64), np.asarray(vectors, np.float64)
    lengths = np.linalg.norm(left, axis=1)[:, None] * np.linalg.norm(right, axis=1)
    products: NDArray[np.float64] = left @ right.T / np.where(lengths == 0, 1, lengths)
    return products
