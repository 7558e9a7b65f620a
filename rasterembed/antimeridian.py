"""A box in longitude and latitude that crosses the antimeridian."""

from __future__ import annotations

from rasterembed.number_text import number_text, rounded_text

_WIDEST = 180.0
"""A box that crosses the antimeridian and is wider than this, in degrees, is nearly always a mistake."""


def crossing_note(bbox: tuple[float, float, float, float]) -> str:
    """Return a note about a box whose west is above its east. Empty for any other box.

    Such a box crosses the antimeridian (RFC 7946, section 5.2). A person who swapped west and east by mistake gets an
    answer about the rest of the world. The note therefore says how wide the box is.

    Args:
        bbox: west, south, east, north in degrees.

    Example:
        >>> crossing_note((177.0, -20.0, -178.0, -15.0))
        'the box crosses the antimeridian, because west (177) is above east (-178): it covers 5 degrees of longitude'
        >>> crossing_note((25.0, 60.0, 24.2, 61.0)).partition("; ")[2]
        'did you mean the box 24.2 60 25 61?'
    """
    west, south, east, north = map(number_text, bbox)
    if bbox[0] <= bbox[2]:
        return ""
    width = (bbox[2] - bbox[0]) % 360.0
    note = (
        f"the box crosses the antimeridian, because west ({west}) is above east ({east}): it covers "
        f"{rounded_text(width, 1.0)} degrees of longitude"
    )
    return note if 0.0 < width <= _WIDEST else f"{note}; did you mean the box {east} {south} {west} {north}?"
