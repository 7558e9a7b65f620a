"""Test the reasons for skipping a tile: their values, their texts, and the sentences of version 0.1."""

from __future__ import annotations

import pytest

from rasterembed.raster.skip_reason import SkipReason, describe_reason


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("no valid pixel", SkipReason.NO_VALID_PIXEL),
        ("valid fraction below 0.05", SkipReason.LOW_VALID_FRACTION),
        ("valid fraction below 1", SkipReason.LOW_VALID_FRACTION),
        ("window cannot be decoded", SkipReason.UNDECODABLE),
    ],
)
def test_the_sentences_of_version_0_1_are_understood(text: str, reason: SkipReason) -> None:
    assert SkipReason(text) is reason


@pytest.mark.parametrize("reason", SkipReason)
def test_a_value_is_itself(reason: SkipReason) -> None:
    assert SkipReason(reason.value) is reason


@pytest.mark.parametrize("reason", [reason for reason in SkipReason if reason is not SkipReason.OFF_EARTH])
def test_the_text_of_a_reason_that_version_0_1_had_is_understood(reason: SkipReason) -> None:
    assert SkipReason(reason.describe(0.25)) is reason
    assert SkipReason(reason.describe()) is reason


def test_the_text_names_the_threshold_of_the_plan() -> None:
    assert describe_reason("low_valid_fraction", 0.25) == "valid fraction below 0.25"
    assert describe_reason("valid fraction below 0.05", 0.05) == "valid fraction below 0.05"


@pytest.mark.parametrize("text", ["", "broken", "valid fraction", None, 3])
def test_anything_else_is_no_reason(text: object) -> None:
    with pytest.raises(ValueError, match="is not a valid SkipReason"):
        SkipReason(text)


def test_an_unknown_reason_is_shown_unchanged() -> None:
    assert describe_reason("melted") == "melted"
