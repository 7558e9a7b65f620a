"""Why a tile was skipped."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from enum import StrEnum
from typing import Literal

from rasterembed.number_text import number_text

OnBadWindow = Literal["fail", "skip"]
"""What to do about a window that cannot be decoded: fail the shard, or skip its tile."""


class SkipReason(StrEnum):
    """Reason why a planned tile has no vector. Receipts and the tile index hold the value."""

    NO_VALID_PIXEL = "no_valid_pixel"
    """No pixel of the tile is valid."""
    LOW_VALID_FRACTION = "low_valid_fraction"
    """The share of valid pixels is below `min_valid_fraction`."""
    UNDECODABLE = "undecodable"
    """The tile's window could not be decoded, and the run was told to skip such tiles (`on_bad_window=skip`)."""
    OFF_EARTH = "off_earth"
    """The tile shows no part of the Earth, because it lies beyond the edge of the map. Its pixels are not read."""

    def describe(self, min_valid_fraction: float | None = None) -> str:
        """Return the reason as text for people.

        Args:
            min_valid_fraction: the plan's threshold, or None. The text of `LOW_VALID_FRACTION` contains the threshold.

        Example:
            >>> SkipReason.LOW_VALID_FRACTION.describe(0.05)
            'valid fraction below 0.05'
        """
        match self:
            case SkipReason.NO_VALID_PIXEL:
                return "no valid pixel"
            case SkipReason.UNDECODABLE:
                return "window cannot be decoded"
            case SkipReason.OFF_EARTH:
                return "off Earth, beyond the edge of the map"
            case SkipReason.LOW_VALID_FRACTION:
                threshold = "the minimum" if min_valid_fraction is None else number_text(min_valid_fraction)
                return f"valid fraction below {threshold}"

    @classmethod
    def _missing_(cls, value: object) -> SkipReason | None:
        """Accept the sentences that version 0.1 wrote into receipts and tile indexes."""
        if value == "no valid pixel":
            return cls.NO_VALID_PIXEL
        if value == "window cannot be decoded":
            return cls.UNDECODABLE
        if isinstance(value, str) and value.startswith("valid fraction below "):
            return cls.LOW_VALID_FRACTION
        return None


def describe_reason(value: str, min_valid_fraction: float | None = None) -> str:
    """Return a reason that was read from a file, as text for people. An unknown value is returned unchanged.

    Args:
        value: value of a `SkipReason`, or a sentence of version 0.1.
        min_valid_fraction: see `SkipReason.describe`.
    """
    try:
        reason = SkipReason(value)
    except ValueError:
        return value
    return reason.describe(min_valid_fraction)


def reasons_text(counts: Mapping[str, int], min_valid_fraction: float | None = None) -> str:
    """Return the numbers of skipped tiles as text for people, the largest number first.

    Args:
        counts: numbers of tiles by the value of a `SkipReason`, or by a sentence of version 0.1.
        min_valid_fraction: see `SkipReason.describe`.

    Example:
        >>> reasons_text({SkipReason.NO_VALID_PIXEL: 2, SkipReason.OFF_EARTH: 1})
        '2 x no valid pixel, 1 x off Earth, beyond the edge of the map'
    """
    described = Counter[str]()
    for reason, count in counts.items():
        described[describe_reason(reason, min_valid_fraction)] += count
    return ", ".join(f"{count} x {text}" for text, count in described.most_common())
