"""Boxes of longitude and latitude that may cross the antimeridian."""

from __future__ import annotations

from collections.abc import Iterable

Box = tuple[float, float, float, float]
"""West, south, east, north in degrees. West is greater than east if the box crosses the antimeridian."""


def covering_box(boxes: Iterable[Box]) -> Box | None:
    """Return the narrowest box that contains all boxes, or None if none is given.

    The widest part of the globe without a box stays outside.

    Args:
        boxes: the boxes, with longitudes from -180 to 180.

    Example:
        >>> covering_box([(170.0, -20.0, 175.0, -10.0), (-178.0, -15.0, -170.0, -5.0)])
        (170.0, -20.0, -170.0, -5.0)
    """
    found = list(boxes)
    if not found:
        return None
    south, north = min(box[1] for box in found), max(box[3] for box in found)
    # Each box becomes a stretch of longitude from `west` that is `width` long.
    stretches = sorted((west, (east - west) % 360.0 if west > east else east - west) for west, _, east, _ in found)
    first = stretches[0][0]
    reach = first + stretches[0][1]
    widest, begin, end = 0.0, first, reach
    for west, width in stretches[1:]:
        if west - reach > widest:
            widest, begin, end = west - reach, west, reach
        reach = max(reach, west + width)
    if first + 360.0 - reach >= widest:
        widest, begin, end = first + 360.0 - reach, first, reach
    if widest <= 0.0:
        return -180.0, south, 180.0, north
    return _longitude(begin), south, _longitude(end), north


def _longitude(degrees: float) -> float:
    """Return a longitude from -180 to 180."""
    return degrees if -180.0 <= degrees <= 180.0 else (degrees + 180.0) % 360.0 - 180.0
