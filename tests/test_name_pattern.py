"""Patterns for names fit as those of `fnmatch`, and few of them stay in memory."""

from __future__ import annotations

from fnmatch import fnmatchcase

import pytest

from rasterembed.name_pattern import KEPT_PATTERNS, compiled_pattern, fits_pattern

NAMES = ("", "a", "b", "A", "ab", "a.b", "a\nb", "a*b", "[a]", "s3://bucket/in/a.tif")


@pytest.mark.parametrize(
    "pattern", ["", "*", "?", "a*", "*b", "[ab]", "[!ab]*", "[[]a]", "a[*]b", "s3://*/a.tif", "[", "a.b"]
)
def test_a_name_fits_as_fnmatch_says(pattern: str) -> None:
    assert [fits_pattern(name, pattern) for name in NAMES] == [fnmatchcase(name, pattern) for name in NAMES]


def test_only_the_last_patterns_stay_in_memory() -> None:
    for number in range(2 * KEPT_PATTERNS):
        assert fits_pattern(f"scene-{number}", f"*-{number}")
    assert compiled_pattern.cache_info().currsize == KEPT_PATTERNS
