"""A number of bytes as text for people."""

from __future__ import annotations


def size_text(count: int) -> str:
    """Return a number of bytes for people.

    Example:
        >>> size_text(12_345_678)
        '11.8 MiB'
    """
    value, units = float(count), ["B", "KiB", "MiB", "GiB", "TiB", "PiB"]
    while value >= 1024 and len(units) > 1:
        value /= 1024
        units.pop(0)
    return f"{value:.0f} B" if units[0] == "B" else f"{value:.1f} {units[0]}"
