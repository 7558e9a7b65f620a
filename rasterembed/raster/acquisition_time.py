"""Read the time of acquisition from a raster's tags, and write a time as text."""

from __future__ import annotations

import re
from calendar import monthrange
from collections.abc import Mapping
from datetime import UTC, date, datetime

_TAGS = ("ACQUISITIONDATETIME", "TIFFTAG_DATETIME")
"""GDAL's names of the tags that hold a time of acquisition. The first tag with a valid time is used."""

_TIFF_DATE = re.compile(r"^(\d{4}):(\d{2}):(\d{2})")
"""A date in the form of TIFF 6.0, which has colons. ISO 8601 has hyphens in their place."""

_FRACTION = re.compile(r"[.,](\d+)")
"""Fraction of a second, of any length. ISO 8601 allows a comma too."""


_DATE = re.compile(r"(\d{4})(?:-(\d{2})(?:-(\d{2}))?)?", re.ASCII)
"""A year, a month or a day."""


def acquisition_time(tags: Mapping[str, str]) -> datetime | None:
    """Return the time of acquisition in UTC, or None if no tag holds a valid time.

    Args:
        tags: the raster's tags, by GDAL's names.
    """
    for name in _TAGS:
        when = parse_time(tags.get(name, ""))
        if when is not None:
            return when
    return None


def parse_time(text: str) -> datetime | None:
    """Parse a time in the form of ISO 8601 or TIFF 6.0. Return it in UTC, or None if the text is not a time.

    A time without an offset is in UTC. A date without a time is midnight UTC of that day.

    Example:
        >>> from rasterembed.raster.acquisition_time import parse_time
        >>> parse_time("2026-06-01T12:00:00+02:00").isoformat()
        '2026-06-01T10:00:00+00:00'
        >>> parse_time("2026:06:01 12:00:00").isoformat()
        '2026-06-01T12:00:00+00:00'
    """
    text = _TIFF_DATE.sub(r"\1-\2-\3", text.strip().strip("\0"))
    # Keep only six digits of a fraction, because Python reads no more.
    text = _FRACTION.sub(lambda match: f".{match[1][:6]}", text, count=1)
    # Remove the space that some writers put before the offset.
    text = re.sub(r"\s+(?=[+\-]\d{2}|Z$)", "", text)
    text = re.sub(r"\s+UTC$", "Z", text)
    try:
        when = datetime.fromisoformat(text)
        return when.replace(tzinfo=UTC) if when.tzinfo is None else when.astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def time_text(when: datetime) -> str:
    """Return a time as STAC writes it: in the form of RFC 3339, in UTC.

    Args:
        when: time with a zone.

    Example:
        >>> from rasterembed.raster.acquisition_time import time_text
        >>> time_text(datetime(2026, 6, 1, 12, tzinfo=UTC))
        '2026-06-01T12:00:00Z'
    """
    return when.astimezone(UTC).isoformat().replace("+00:00", "Z")


def first_and_last_day(text: str) -> tuple[date, date] | None:
    """Return the first and the last day of a year, a month or a day. Return None if the text has another form.

    Raises:
        ValueError: if the calendar has no such month or day.

    Example:
        >>> from rasterembed.raster.acquisition_time import first_and_last_day
        >>> first_and_last_day("2024-02")
        (datetime.date(2024, 2, 1), datetime.date(2024, 2, 29))
    """
    match = _DATE.fullmatch(text)
    if match is None:
        return None
    year, month, day = int(match[1]), match[2], match[3]
    first_month, last_month = (int(month), int(month)) if month else (1, 12)
    first = date(year, first_month, int(day) if day else 1)
    return first, date(year, last_month, int(day) if day else monthrange(year, last_month)[1])
