from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from tests.support.promise import assert_tables_agree


def _table(vectors: np.ndarray, ids: str = "abc") -> pa.Table:
    column = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel(), pa.float32()), vectors.shape[1])
    return pa.table({"tile_id": list(ids), "norm": np.linalg.norm(vectors, axis=1), "embedding": column})


@pytest.fixture
def vectors() -> np.ndarray:
    return np.random.default_rng(3).normal(size=(3, 64)).astype(np.float32)


def _moved(vectors: np.ndarray, share: float) -> np.ndarray:
    """Move one vector by a share of its length, at a right angle to itself."""
    aside = np.roll(vectors[1], 1)
    aside -= aside @ vectors[1] / (vectors[1] @ vectors[1]) * vectors[1]
    moved = vectors.copy()
    moved[1] += share * np.linalg.norm(vectors[1]) / np.linalg.norm(aside) * aside
    return moved


def test_what_the_promise_allows_agrees(vectors: np.ndarray) -> None:
    assert_tables_agree(_table(vectors), _table(vectors))
    assert_tables_agree(_table(vectors), _table(_moved(vectors, 8e-6)))


def test_what_the_promise_does_not_allow_disagrees(vectors: np.ndarray) -> None:
    not_a_number = vectors.copy()
    not_a_number[2, 5] = np.nan
    for other in (_table(_moved(vectors, 2e-5)), _table(not_a_number), _table(vectors, "acb")):
        with pytest.raises(AssertionError):
            assert_tables_agree(_table(vectors), other)
