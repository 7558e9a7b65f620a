"""Compare vectors that were computed twice, within the bounds that docs/models.md promises.

On a CPU with the same processor, library versions, engine, number of threads and batch size, two vectors of a tile are
equal bit for bit. Otherwise they differ by at most 1e-5 of the vector's length in float32. tests/__init__.py sets the
same number of threads for all processes that the tests start. So tests may assert equality if all else is the same.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

TOLERANCE = 1e-5
"""Largest length of the difference of two vectors, divided by the length of the first vector."""


def assert_vectors_agree(vectors: NDArray[np.float32], others: NDArray[np.float32]) -> None:
    """Assert that two float32 arrays of shape (tiles, dimensions) hold the same vectors within the promise."""
    assert vectors.dtype == others.dtype == np.float32
    assert vectors.shape == others.shape
    exact, other = vectors.astype(np.float64), others.astype(np.float64)
    error = np.linalg.norm(exact - other, axis=1)
    bound = TOLERANCE * np.linalg.norm(exact, axis=1)
    wrong = np.flatnonzero(~(error <= bound))  # `~(a <= b)` finds NaN too; `a > b` would not.
    assert not wrong.size, f"vectors {wrong[:5]} differ by {error[wrong[:5]]}, more than {bound[wrong[:5]]}"


def assert_tables_agree(table: pa.Table, other: pa.Table) -> None:
    """Assert that two tables hold the same tiles: vectors within the promise, and everything else equal."""
    assert_vectors_agree(_vectors(table), _vectors(other))
    norms, others = (np.asarray(each["norm"])[:, None] for each in (table, other))
    assert_vectors_agree(norms, others)  # Norms are computed from the vectors, so the same bound counts.
    computed = ["embedding", "norm"]
    assert other.drop_columns(computed).equals(table.drop_columns(computed))


def _vectors(table: pa.Table) -> NDArray[np.float32]:
    """Return the vectors of a table as an array of shape (tiles, dimensions)."""
    column = table["embedding"].combine_chunks()
    vectors: NDArray[np.float32] = column.flatten().to_numpy().reshape(len(table), column.type.list_size)
    return vectors
