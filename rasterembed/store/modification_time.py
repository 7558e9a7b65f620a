"""The time of modification of an object, as a date."""

from __future__ import annotations

from datetime import UTC, datetime


def time_of(seconds: float) -> datetime:
    """Return a time of modification in UTC. Return 1970-01-01 if it is after the year 9999.

    A file can have any time, and a web server can send any time.

    Args:
        seconds: seconds since 1970.

    Example:
        >>> time_of(1e15).isoformat()
        '1970-01-01T00:00:00+00:00'
    """
    try:
        return datetime.fromtimestamp(seconds, tz=UTC)
    except (ValueError, OverflowError, OSError):
        return datetime.fromtimestamp(0, tz=UTC)
