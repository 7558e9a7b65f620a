"""Distances of answers are exact, and rows that are equally far away have one order."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray

from rasterembed.dataset.selection import VectorDtype
from rasterembed.search.index.stored_rows import JoinedValues, StoredVectors
from rasterembed.search.rerank import compare_all, cosine_distances, in_order, rerank, rounding_bound
from rasterembed.search.row_selection import RowSelection, selections_bytes
from tests.search.engine_vectors import store

DTYPES: tuple[VectorDtype, ...] = ("float32", "float16", "int8")


def _brute_force(query: NDArray[np.generic], vectors: NDArray[np.generic]) -> NDArray[np.float64]:
    wide = vectors.astype(np.longdouble)
    cosines = wide @ query.astype(np.longdouble) / np.linalg.norm(wide.astype(float), axis=1)
    return np.asarray(1 - cosines / np.linalg.norm(query.astype(float)), float)


@pytest.mark.parametrize("dtype", DTYPES)
def test_distances_are_exact_for_every_dtype(tmp_path: Path, dtype: VectorDtype) -> None:
    rng = np.random.default_rng(1)
    vectors = (rng.standard_normal((300, 40)) * 30).clip(-127, 127).astype(dtype)
    query = rng.standard_normal(40).astype(np.float32)
    rows = rng.permutation(300)[:100]
    found = rerank(query, store(vectors, tmp_path), rows)
    assert found.rows.tolist() == rows.tolist()
    np.testing.assert_allclose(found.distances, _brute_force(query, vectors[rows]), rtol=0, atol=1e-11)


@pytest.mark.parametrize("dtype", DTYPES)
def test_rows_of_one_file_and_of_joined_files_are_taken_alike(tmp_path: Path, dtype: VectorDtype) -> None:
    rng = np.random.default_rng(6)
    vectors = (rng.standard_normal((300, 40)) * 30).clip(-127, 127).astype(dtype)
    part, row = rng.integers(0, 2, 300).astype(np.uint8), np.arange(300)
    joined = StoredVectors(JoinedValues([vectors, vectors[::-1].copy()], part, np.where(part == 1, 299 - row, row)))
    rows = rng.integers(0, 300, 50)
    for stored in (store(vectors, tmp_path), joined):
        found = stored.take(rows)
        assert (found.dtype, found.tolist()) == (np.dtype(dtype), vectors[rows].tolist())
        with pytest.raises(IndexError):
            stored.take(np.array([0, 300]))


def test_parallel_vectors_are_equally_far_away_at_any_place() -> None:
    rng = np.random.default_rng(2)
    vectors = rng.standard_normal((5000, 37)).astype(np.float32)
    vectors[::7] = vectors[0] * np.arange(1, len(vectors[::7]) + 1, dtype=np.float32)[:, None]
    vectors[3::7] = vectors[3]
    distances = cosine_distances(vectors[1], vectors)
    # A float32 multiple of a vector is not exactly parallel to it, so only powers of two are.
    assert len(set(distances[0 : 7 * 2 : 7])) == 1
    assert len(set(distances[3::7])) == 1
    assert distances[3] == cosine_distances(vectors[1], vectors[3:4])[0]


def test_numbers_that_float32_cannot_square_and_zero_vectors() -> None:
    vectors = np.array([[1e-30, 0], [3e38, 3e38], [0, 0], [-1e-40, 0]], np.float32)
    assert cosine_distances(np.array([1.0, 0.0]), vectors) == pytest.approx([0, 1 - 0.5**0.5, 1, 2], abs=1e-7)


@pytest.mark.parametrize("count", [1, 10, 299, 300, 5000])
@pytest.mark.parametrize("share", [None, 0.0, 0.1, 1.0])
def test_comparing_all_finds_the_nearest_with_ties(tmp_path: Path, count: int, share: float | None) -> None:
    rng = np.random.default_rng(3)
    vectors = rng.integers(-2, 3, (300, 3)).astype(np.float32)  # few directions: many ties
    query = rng.standard_normal(3).astype(np.float32)
    mask = np.ones(300, bool) if share is None else rng.random(300) < share
    selection = None if share is None else RowSelection.of_mask(mask)
    found = compare_all(query, store(vectors, tmp_path), selection, count)
    with np.errstate(invalid="ignore"):
        expected = np.nan_to_num(_brute_force(query, vectors), nan=1.0)
    allowed = np.flatnonzero(mask)
    limit = np.sort(expected[allowed])[min(count, len(allowed)) - 1] if len(allowed) else 0.0
    assert set(np.flatnonzero(mask & (expected <= limit + 1e-12))) <= set(found.rows.tolist()) <= set(allowed)


def test_the_bound_holds_in_float32() -> None:
    rng = np.random.default_rng(4)
    vectors = rng.standard_normal((2000, 384)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    rough = 1 - vectors @ vectors[0]
    assert np.abs(rough - _brute_force(vectors[0], vectors)).max() < rounding_bound(384) < 3e-5


def test_rows_of_the_same_distance_are_in_the_order_of_their_ids() -> None:
    rows = pa.table({"tile_id": ["b", "a", "b", "é", "z"], "dataset_id": ["2", "2", "1", "1", "1"]})
    ordered = in_order(rows, np.array([0.5, 0.5, 0.5, 0.5, 0.1]), ("tile_id", "dataset_id"), 4)
    assert list(zip(*(ordered[name].to_pylist() for name in ("tile_id", "dataset_id")), strict=True)) == [
        ("z", "1"), ("a", "2"), ("b", "1"), ("b", "2"),
    ]  # fmt: skip
    assert ordered["distance"].to_pylist() == [0.1, 0.5, 0.5, 0.5]


@pytest.mark.parametrize("rows", [0, 1, 8, 9, 1000])
def test_a_selection_has_the_same_rows_in_all_forms(rows: int) -> None:
    rng = np.random.default_rng(rows)
    mask, other = rng.random(rows) < 0.4, rng.random(rows) < 0.5
    selection = RowSelection.of_mask(mask)
    assert selection.mask.tolist() == mask.tolist()
    assert selection.numbers.tolist() == [number for number in range(rows) if mask[number]]
    assert selection.count == sum(mask)
    assert [bool(selection.bitmap[n // 8] >> (n % 8) & 1) for n in range(rows)] == mask.tolist()
    numbered = RowSelection.of_numbers(rng.permutation(np.flatnonzero(other)), rows)
    assert (numbered.mask.tolist(), numbered.count) == (other.tolist(), int(other.sum()))


def test_row_numbers_of_a_selection_are_checked() -> None:
    for numbers in ([-1], [5], [0, 7]):
        with pytest.raises(IndexError):
            RowSelection.of_numbers(np.array(numbers), 5)


def test_the_memory_of_selections_counts_bits_and_row_numbers() -> None:
    tenth = RowSelection.of_numbers(np.arange(0, 10_000, 10), 10_000)
    assert selections_bytes([tenth, None]) == 10_000 // 8 + 8 * 1000
    assert selections_bytes([tenth, None]) >= tenth.bitmap.nbytes + tenth.numbers.nbytes
