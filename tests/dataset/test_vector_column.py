"""Vectors become stored numbers and come back, by the formula of the docs."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray

from rasterembed.dataset.selection import VectorDtype
from rasterembed.dataset.vector_column import decode_vectors, largest_number, store_vectors, vector_fields

RNG = np.random.default_rng(0)


def rows_of(vectors: NDArray[np.float32], vector_dtype: VectorDtype) -> pa.Table:
    fields = vector_fields(vector_dtype, vectors.shape[1])
    return pa.table(store_vectors(vectors, vector_dtype).arrays(fields), schema=pa.schema(fields))


def test_an_int8_is_the_nearest_integer_and_a_tie_goes_to_the_even_one() -> None:
    vectors = np.array([[127.0, 0.5, 1.5, -2.5, 0.49], [-254.0, 1.0, 3.0, 254.0, -5.0]], np.float32)
    stored = store_vectors(vectors, "int8")
    assert stored.numbers.dtype == np.int8
    assert stored.numbers.tolist() == [[127, 0, 2, -2, 0], [-127, 0, 2, 127, -2]]
    assert stored.scale is not None
    assert (stored.scale.dtype, stored.scale.tolist()) == (np.float32, [1.0, 2.0])


def test_each_number_is_within_half_a_step_by_exact_arithmetic() -> None:
    vectors = (RNG.standard_normal((20, 7)) * 10.0 ** RNG.integers(-20, 20, (20, 1))).astype(np.float32)
    rows = rows_of(vectors, "int8")
    for vector, numbers, scale in zip(
        vectors.tolist(), rows["embedding"].to_pylist(), rows["scale"].to_pylist(), strict=True
    ):
        step = Fraction(max(map(abs, vector))) / 127
        assert abs(Fraction(scale) - step) <= step / 2**23
        assert max(map(abs, numbers)) == 127
        for value, number in zip(vector, numbers, strict=True):
            assert abs(Fraction(value) - number * step) <= step * Fraction(500_001, 1_000_000)
    expected = np.array(rows["embedding"].to_pylist(), np.float64) * np.array(rows["scale"].to_pylist())[:, None]
    decoded = decode_vectors(rows)
    assert decoded.dtype == np.float32
    np.testing.assert_allclose(decoded, expected, rtol=1e-7)


def test_a_row_does_not_depend_on_the_rows_around_it() -> None:
    vectors = RNG.standard_normal((50, 16)).astype(np.float32)
    whole = rows_of(vectors, "int8")
    for start, stop in ((0, 1), (3, 20), (49, 50)):
        assert whole.slice(start, stop - start).equals(rows_of(vectors[start:stop], "int8"))


def test_a_zero_vector_has_the_scale_zero_and_stays_zero() -> None:
    rows = rows_of(np.zeros((2, 3), np.float32), "int8")
    assert (rows["scale"].to_pylist(), rows["embedding"].to_pylist()) == ([0.0, 0.0], [[0, 0, 0]] * 2)
    assert not decode_vectors(rows).any()
    assert decode_vectors(rows.slice(0, 0)).shape == (0, 3)


def test_the_largest_and_the_smallest_numbers_stay_in_range() -> None:
    largest = np.nextafter(np.float32(largest_number("int8")), np.float32(0))
    vectors = np.array([[largest, -largest], [1e-44, -1e-45], [1e-45, 0.0]], np.float32)
    rows = rows_of(vectors, "int8")
    assert rows["embedding"].to_pylist()[0] == [127, -127]
    assert all(abs(number) <= 127 for numbers in rows["embedding"].to_pylist() for number in numbers)
    assert np.isfinite(decode_vectors(rows)).all()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_not_finite_are_no_int8(value: float) -> None:
    with pytest.raises(ValueError, match="not finite"):
        store_vectors(np.array([[1.0, 2.0], [3.0, value]], np.float32), "int8")


@pytest.mark.parametrize(("vector_dtype", "numpy"), [("float32", np.float32), ("float16", np.float16)])
def test_floats_are_cast(vector_dtype: VectorDtype, numpy: type) -> None:
    vectors = RNG.standard_normal((5, 4)).astype(np.float32)
    rows = rows_of(vectors, vector_dtype)
    assert rows.schema.names == ["embedding"]
    np.testing.assert_array_equal(decode_vectors(rows), vectors.astype(numpy).astype(np.float32))
    np.testing.assert_array_equal(decode_vectors(rows.slice(2).to_batches()[0]), decode_vectors(rows)[2:])


def test_rows_that_hold_no_vectors_are_refused() -> None:
    rows = rows_of(np.ones((2, 3), np.float32), "int8")
    with pytest.raises(ValueError, match="the column 'scale' is needed"):
        decode_vectors(rows.select(["embedding"]))
    with pytest.raises(ValueError, match="one length"):
        decode_vectors(pa.table({"embedding": pa.array([[1.0, 2.0], [3.0]])}))
    with pytest.raises(ValueError, match="one length"):
        decode_vectors(pa.table({"embedding": pa.array([[1.0], None], pa.list_(pa.float32(), 1))}))
