"""Numbers in texts tell apart what differs, and can be typed again."""

from __future__ import annotations

import math

import numpy as np
import pytest

from rasterembed.number_text import number_text, part_of, rounded_text, significant_text


def test_the_text_of_a_number_gives_the_same_number() -> None:
    random = np.random.default_rng(0)
    numbers = random.uniform(-1, 1, 2000) * 10.0 ** random.integers(-300, 300, 2000)
    for number in (*numbers.tolist(), 0, 3, 1_000_001, 1e22, 5e-324, math.inf):
        assert float(number_text(number)) == number
    assert [number_text(number) for number in (-0.0, 1e6, 0.1 + 0.2)] == ["0", "1000000", "0.30000000000000004"]


@pytest.mark.parametrize("share", [1.0, 1e-3, 1e-9])
def test_a_rounded_number_is_within_a_ten_thousandth_of_the_span(share: float) -> None:
    random = np.random.default_rng(1)
    for number in (random.uniform(-1, 1, 2000) * 10.0 ** random.integers(-100, 100, 2000)).tolist():
        span = abs(number) * share
        error = abs(float(rounded_text(number, span)) - number)
        assert error <= max(1e-4 * span, 1e-15 * abs(number))
    for number in random.uniform(1, 100_000, 2000).tolist():  # No digit is written that does not matter.
        assert rounded_text(number, number) == f"{number:g}"
    assert rounded_text(0, 255) == rounded_text(-0.0, 0) == "0"
    assert rounded_text(math.nan, 1) == "nan"


def test_numbers_of_one_table_have_one_notation() -> None:
    random = np.random.default_rng(2)
    for number in (random.uniform(1, 10, 500) * 10.0 ** random.integers(-14, 15, 500)).tolist():
        for text in (number_text(number), rounded_text(number, number), significant_text(number, 3)):
            assert "e" not in text
        assert float(significant_text(number, 3)) == pytest.approx(number, rel=0.005)
    assert [significant_text(number, 3) for number in (4.5e-7, 0.12, 1234.5, -0.0001, 0.0, math.inf)] == [
        "0.00000045", "0.12", "1234", "-0.0001", "0", "inf",
    ]  # fmt: skip
    assert significant_text(1.25e300, 3) == "1.25e+300"  # Nobody counts 300 digits.


def test_the_verb_after_a_part_agrees_with_the_noun() -> None:
    texts = [part_of(part, whole, "shard", "has", "have") for part, whole in ((0, 1), (1, 1), (0, 2), (1, 2), (2, 2))]
    assert texts == [
        "0 of 1 shard has",
        "1 of 1 shard has",
        "0 of 2 shards have",
        "1 of 2 shards has",
        "2 of 2 shards have",
    ]
