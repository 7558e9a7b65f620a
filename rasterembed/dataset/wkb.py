"""Read footprints from WKB. All readers of stored footprints use this module.

A stored footprint is data that anybody may have written. GEOS reads a geometry inside a geometry by calling itself, so
a geometry that is nested ten thousand times would end the process. The structure of each footprint is therefore checked
before GEOS reads it.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import shapely
from numpy.typing import NDArray

MAX_FOOTPRINT_BYTES = 2**19
"""Largest size of a footprint. The border of a tile has at most 2^14 points of 16 bytes, and may be cut in two at the
antimeridian. See `rasterembed.raster.footprints`."""

_MAX_BYTES_AT_ONCE = 2**30
"""Largest size of all footprints that are read together. They need several times as much memory as geometries."""

_USUAL_BYTES = 2**14
"""Largest size of a footprint that is counted as usual."""

_MAX_DEPTH = 4
"""Largest number of geometries inside each other. A geometry collection of multipolygons has three."""

_POLYGON_STARTS = (b"\x01\x03\0\0\0", b"\0\0\0\0\x03")
"""First bytes of a polygon with two coordinates, in both byte orders. A polygon contains no further geometry. GEOS
compares its numbers of rings and points with its size, so it needs no other check."""

_POINT, _LINE, _POLYGON, _MULTIPOINT, _COLLECTION = 1, 2, 3, 4, 7
"""Kinds of geometry in WKB. All kinds from `_MULTIPOINT` to `_COLLECTION` contain geometries."""


class FootprintError(ValueError):
    """A stored footprint is not usable. The text says why, without the name of its file."""


def read_footprints(
    column: pa.Array | pa.ChunkedArray | Sequence[bytes | None], largest: int = MAX_FOOTPRINT_BYTES
) -> NDArray[np.object_]:
    """Return footprints from WKB.

    Args:
        column: n footprints as WKB. A missing footprint is null.
        largest: largest size of a footprint in bytes.

    Returns:
        The geometries, shape (n,). A missing footprint is None.

    Raises:
        FootprintError: if a footprint is no WKB, if it is too long or nested too deeply, or if all footprints together
            are too long.

    Example:
        >>> read_footprints([shapely.to_wkb(shapely.box(24, 60, 25, 61)), None]).tolist()
        [<POLYGON ((25 60, 25 61, 24 61, 24 60, 25 60))>, None]
    """
    few = isinstance(column, list) and len(column) <= _MAX_BYTES_AT_ONCE // _USUAL_BYTES
    if few and all(_is_short_polygon(data, largest) for data in column):
        # The usual case of an answer. Arrow's functions for columns would take longer for so few footprints.
        return np.asarray(_from_wkb(column), dtype=object).reshape(len(column))
    values = _binary(column)
    lengths = pc.min_max(pc.binary_length(values)).as_py()
    if lengths["max"] is not None and lengths["max"] > largest:
        raise FootprintError(f"a footprint is too long: it has {lengths['max']} bytes, more than {largest}")
    total = pc.sum(pc.binary_length(values)).as_py() or 0
    if total > _MAX_BYTES_AT_ONCE:
        raise FootprintError(f"footprints are too long: {total} bytes in {len(values)} of them")
    simple = pc.is_in(pc.binary_slice(values, 0, len(_POLYGON_STARTS[0])), pa.array(_POLYGON_STARTS, values.type))
    for other in values.filter(pc.invert(simple)).drop_null().to_pylist():
        _check_structure(other)
    return np.asarray(_from_wkb(values.to_numpy(zero_copy_only=False)), dtype=object).reshape(len(values))


def read_footprint(data: bytes, largest: int = MAX_FOOTPRINT_BYTES) -> shapely.Geometry:
    """Return one footprint from WKB. See `read_footprints`.

    Raises:
        FootprintError: if the footprint is no WKB, too long or nested too deeply.
    """
    (footprint,) = read_footprints([data], largest)
    if footprint is None:
        raise FootprintError("the footprint is missing")
    return footprint


def _is_short_polygon(data: Any, largest: int) -> bool:
    """Return whether a footprint is a polygon in WKB that needs no check of its structure, and of the usual length."""
    is_short = isinstance(data, bytes) and len(data) <= min(largest, _USUAL_BYTES)
    return is_short and data[: len(_POLYGON_STARTS[0])] in _POLYGON_STARTS


def _from_wkb(data: Any) -> Any:
    """Return a geometry, or an array of geometries, from WKB."""
    try:
        return shapely.from_wkb(data)
    except shapely.errors.ShapelyError as error:
        raise FootprintError(f"a footprint is no WKB: {' '.join(str(error).split())}") from error


def _binary(column: pa.Array | pa.ChunkedArray | Sequence[bytes | None]) -> pa.Array:
    """Return a column as one array of type `large_binary`."""
    try:
        if isinstance(column, pa.ChunkedArray):
            column = pa.concat_arrays([_storage(chunk).cast(pa.large_binary()) for chunk in column.chunks] or [_EMPTY])
        elif not isinstance(column, pa.Array):
            column = pa.array(column, type=pa.large_binary())
        column = _storage(column)
        if not (pa.types.is_binary(column.type) or pa.types.is_large_binary(column.type)):
            raise FootprintError(f"footprints are no WKB: their type is {column.type}")
        return column.cast(pa.large_binary())
    except pa.ArrowException as error:
        raise FootprintError(f"footprints are no WKB: {' '.join(str(error).split())}") from error


def _storage(column: pa.Array) -> pa.Array:
    """Return the bytes of a column with the type `geoarrow.wkb`. DuckDB returns it if GeoArrow has registered it."""
    return column.storage if isinstance(column, pa.ExtensionArray) else column


_EMPTY = pa.nulls(0, pa.large_binary())


def _check_structure(data: bytes) -> None:
    """Walk through a geometry and all geometries inside it.

    The format is that of OGC Simple Features Access (06-103r4, section 8.2.9), with the flags for Z, M and SRID of
    PostGIS.

    Raises:
        FootprintError: if the geometry is nested too deeply, is cut off, or is of a kind that no footprint has.
    """
    place = 0
    waiting = [1]  # Number of geometries that are still to be read, on each level.
    try:
        while waiting:
            if waiting[-1] == 0:
                waiting.pop()
                continue
            waiting[-1] -= 1
            order = "<" if data[place] else ">"
            (code,) = struct.unpack_from(f"{order}I", data, place + 1)
            kind, coordinates, has_srid = _decode_kind(code)
            place += 9 if has_srid else 5
            if kind == _POINT:
                place += 8 * coordinates
            elif kind == _LINE:
                place = _after_points(data, place, order, coordinates)
            else:
                (count,) = struct.unpack_from(f"{order}I", data, place)
                place += 4
                if kind == _POLYGON:
                    for _ in range(count):
                        place = _after_points(data, place, order, coordinates)
                else:
                    waiting.append(count)
                    if len(waiting) > _MAX_DEPTH:
                        raise FootprintError("a footprint is nested too deeply")
    except (struct.error, IndexError) as error:
        raise FootprintError("a footprint is no WKB: it is cut off") from error
    if place > len(data):
        raise FootprintError("a footprint is no WKB: it is cut off")


def _decode_kind(code: int) -> tuple[int, int, bool]:
    """Return the kind of a geometry, the number of coordinates of its points, and whether a SRID follows."""
    thousands, kind = divmod(code & 0x1FFFFFFF, 1000)
    if not (_POINT <= kind <= _COLLECTION and thousands <= 3):
        raise FootprintError(f"a footprint is no WKB of a known kind: its code is {code}")
    has_z = thousands in (1, 3) or bool(code & 0x80000000)
    has_m = thousands in (2, 3) or bool(code & 0x40000000)
    return kind, 2 + has_z + has_m, bool(code & 0x20000000)


def _after_points(data: bytes, place: int, order: str, coordinates: int) -> int:
    """Return the place after a sequence of points that begins at `place`."""
    (count,) = struct.unpack_from(f"{order}I", data, place)
    return place + 4 + 8 * coordinates * int(count)
