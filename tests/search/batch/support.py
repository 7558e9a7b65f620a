"""Brute force answers in NumPy, to compare with the answers of the library."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def cosine_distances(vectors: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the cosine distance of every vector to every other, in float64, shape (n, n)."""
    wide = vectors.astype(np.float64)
    wide /= np.linalg.norm(wide, axis=1, keepdims=True)
    return 1.0 - wide @ wide.T
