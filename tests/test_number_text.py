"""Numbers in texts tell apart what differs, and can be typed again."""

from __future__ import annotations

import math

import numpy as np
import pytest

from rasterembed.number_text import number_text, rounded_text


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
