"""The outlines of tiles in world coordinates, in an order in which the outlines of a map tile are found fast.

A **shape** is one polygon of a footprint. Most footprints have one shape. A footprint that crosses the antimeridian has
one on each side. Holes of footprints, which only a few tiles on the edge of a map have, are drawn as if they were
filled.

The shapes are sorted by their size, and those of similar size by the Morton code of their centre. The shapes with
centres in a square cell of the map therefore follow each other. A shape can reach into a cell although its centre is
outside, but no farther than half of its size, so a slightly larger square is looked at.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
import pyarrow as pa
import shapely
from numpy.typing import NDArray

from rasterembed.dataset.wkb import FootprintError, read_footprints
from rasterembed.errors import one_line
from rasterembed.explorer.tiles.world import WORLD, Units, morton, to_world

_QUAD_BYTES = 93
"""Size of a polygon with four corners as WKB: 13 bytes, and five points of 16 bytes."""

_QUAD_START = np.frombuffer(b"\x01\x03\0\0\0\x01\0\0\0\x05\0\0\0", np.uint8)
"""First bytes of such a polygon: little-endian, a polygon, one ring, five points."""

_DEPTH = 16
"""Number of bits of a coordinate that the order of the shapes uses. A cell is then 611 m wide at the equator."""

_CELLS = 16
"""The cells of a search are at least as wide as its box divided by this number. More cells take longer to look up, and
fewer find more shapes outside the box."""


@dataclass(frozen=True)
class Rings:
    """The outer rings of n shapes, closed, one after the other."""

    x: Units
    """World coordinates of all points, shape (p,)."""
    y: Units
    starts: NDArray[np.int64]
    """Number of the first point of each ring, and p at the end, shape (n + 1,)."""
    tile: NDArray[np.int32]
    """Number of the tile of each ring, shape (n,)."""

    @classmethod
    def concatenate(cls, parts: Iterable[Rings]) -> Rings:
        """Return the rings of several objects, one after the other."""
        parts = list(parts)
        if not parts:
            return cls(np.empty(0, np.uint32), np.empty(0, np.uint32), np.zeros(1, np.int64), np.empty(0, np.int32))
        before = np.cumsum([0, *(len(part.x) for part in parts)])
        starts = [part.starts[:-1] + offset for part, offset in zip(parts, before, strict=False)]
        return cls(
            np.concatenate([part.x for part in parts]),
            np.concatenate([part.y for part in parts]),
            np.concatenate([*starts, before[-1:]]),
            np.concatenate([part.tile for part in parts]),
        )

    def take(self, numbers: NDArray[np.integer]) -> Rings:
        """Return some rings in the order of their numbers."""
        lengths = np.diff(self.starts)[numbers]
        starts = np.concatenate([[0], np.cumsum(lengths)])
        points = np.arange(starts[-1]) + np.repeat(self.starts[:-1][numbers] - starts[:-1], lengths)
        return Rings(self.x[points], self.y[points], starts, self.tile[numbers])


def rings_of_column(column: pa.ChunkedArray, first: int) -> Rings:
    """Return the rings of all footprints of a column. See `rings_of_footprints`."""
    parts = []
    for chunk in column.chunks:
        if len(chunk):
            try:
                parts.append(rings_of_footprints(chunk, first))
            except IndexError as error:  # Of a damaged file, the footprints may begin beyond its end.
                raise FootprintError(one_line(error)) from error
            first += len(chunk)
    return Rings.concatenate(parts)


def rings_of_footprints(column: pa.Array, first: int) -> Rings:
    """Return the rings of footprints. A missing or empty footprint has no ring.

    Args:
        column: footprints in longitude and latitude as WKB, n values of type `binary`.
        first: number of the first footprint's tile. The others follow.

    Raises:
        FootprintError: if a footprint cannot be read.
    """
    # Nearly all footprints are polygons with four corners. NumPy reads them thirty times as fast as GEOS.
    quads = _quads(column)
    numbers = np.flatnonzero(quads)
    offsets = np.frombuffer(column.buffers()[1], np.int32, len(column) + 1, column.offset * 4)
    data = np.frombuffer(column.buffers()[2] or b"", np.uint8)
    parts = []
    if len(numbers):
        if len(numbers) == len(column):
            rows = data[offsets[0] : offsets[-1]].reshape(-1, _QUAD_BYTES)[:, len(_QUAD_START) :]
        else:
            rows = data[offsets[numbers][:, None] + np.arange(len(_QUAD_START), _QUAD_BYTES)]
        values = np.ascontiguousarray(rows).view("<f8")
        x, y = to_world(values[:, 0::2].ravel(), values[:, 1::2].ravel())
        parts.append(Rings(x, y, np.arange(len(numbers) + 1) * 5, (numbers + first).astype(np.int32)))
    others = np.flatnonzero(~quads)
    if len(others):
        parts.append(_rings_of_geometries(read_footprints(column.take(pa.array(others))), others + first))
    return Rings.concatenate(parts)


def _quads(column: pa.Array) -> NDArray[np.bool_]:
    """Return which footprints are polygons with four corners in the usual form, shape (n,)."""
    if not len(column) or column.buffers()[2] is None:
        return np.zeros(len(column), bool)
    offsets = np.frombuffer(column.buffers()[1], np.int32, len(column) + 1, column.offset * 4)
    quads: NDArray[np.bool_] = np.diff(offsets) == _QUAD_BYTES
    if column.null_count:
        quads &= column.is_valid().to_numpy(zero_copy_only=False)
    numbers = np.flatnonzero(quads)
    starts = np.frombuffer(column.buffers()[2], np.uint8)[offsets[numbers][:, None] + np.arange(len(_QUAD_START))]
    quads[numbers] = (starts == _QUAD_START).all(axis=1)
    return quads


def _rings_of_geometries(footprints: NDArray[np.object_], tiles: NDArray[np.integer]) -> Rings:
    parts, owner = shapely.get_parts(footprints, return_index=True)
    rings = shapely.get_exterior_ring(parts)
    real = ~(shapely.is_missing(rings) | shapely.is_empty(rings))
    points, ring = shapely.get_coordinates(rings[real], return_index=True)
    x, y = to_world(points[:, 0], points[:, 1])
    starts = np.concatenate([[0], np.cumsum(np.bincount(ring, minlength=int(real.sum())))])
    return Rings(x, y, starts.astype(np.int64), tiles[owner[real]].astype(np.int32))


@dataclass(frozen=True)
class _Level:
    """Shapes of similar size, and the order of their centres."""

    rows: slice
    """The numbers of the shapes."""
    size: int
    """Largest width or height of a shape, in units of the world."""
    codes: NDArray[np.uint32]
    """Morton code of each centre, ascending."""

    def near(self, left: float, top: float, right: float, bottom: float) -> NDArray[np.int64]:
        """Return the numbers of all shapes that may reach into a box, and of some more shapes, ascending."""
        margin = self.size / 2 + 1
        sides = np.clip([left - margin, top - margin, right + margin, bottom + margin], 0, WORLD - 1)
        width = max(sides[2] - sides[0], sides[3] - sides[1], 1.0)
        depth = int(np.clip(np.floor(np.log2(WORLD * _CELLS / width)), 0, _DEPTH))
        west, north, east, south = (int(side) >> (32 - depth) for side in sides)
        x, y = np.meshgrid(np.arange(west, east + 1), np.arange(north, south + 1))
        shift = np.uint64(2 * (_DEPTH - depth))
        first = np.sort(morton(x.ravel(), y.ravel()))
        starts = np.searchsorted(self.codes, (first << shift).astype(np.uint32), "left")
        last = ((first + np.uint64(1)) << shift) - np.uint64(1)
        ends = np.searchsorted(self.codes, last.astype(np.uint32), "right")
        # Cells that follow each other in the order are one range.
        begins = np.flatnonzero(np.append(True, starts[1:] != ends[:-1]))
        starts, ends = starts[begins], ends[np.append(begins[1:] - 1, len(ends) - 1)]
        ranges = [np.arange(start, end) for start, end in zip(starts, ends, strict=True) if end > start]
        numbers: NDArray[np.int64] = np.concatenate([np.empty(0, np.int64), *ranges]) + self.rows.start
        return numbers


class Shapes:
    """The shapes of all tiles of a view, m of them. Several threads may use one object.

    It takes about 80 bytes of memory for each shape with four corners.

    Args:
        rings: the outlines, in any order.
        rank: order of the tiles in which they are painted. The shapes of a tile with a larger number lie on top. Shape
            (number of tiles,).
    """

    def __init__(self, rings: Rings, rank: NDArray[np.integer]) -> None:
        count = len(rings.tile)
        west, north, east, south = (
            function.reduceat(axis, rings.starts[:-1]) if count else np.empty(0, np.uint32)
            for function, axis in (
                (np.minimum, rings.x),
                (np.minimum, rings.y),
                (np.maximum, rings.x),
                (np.maximum, rings.y),
            )
        )
        sizes = np.maximum(np.maximum(east - west, south - north), 1)
        # Shapes of one level differ in size by a factor below 4, so the margin of a search fits all of them.
        level = (np.floor(np.log2(sizes)) // 2).astype(np.uint64)
        code = morton((west + (east - west) // 2) >> 16, (north + (south - north) // 2) >> 16)
        order = np.argsort((level << np.uint64(32)) | code, kind="stable")
        self.rings = rings.take(order)
        self.west, self.north, self.east, self.south = west[order], north[order], east[order], south[order]
        """Bounds of each shape in world coordinates, shape (m,)."""
        self.tile = self.rings.tile
        """Number of each shape's tile, shape (m,)."""
        self.paint = np.empty(count, np.int32)
        """Place of each shape in the order of painting, shape (m,). The largest number lies on top."""
        self.by_paint = np.argsort(rank[self.tile], kind="stable").astype(np.int32)
        """Number of the shape for each place in the order of painting, shape (m,)."""
        self.paint[self.by_paint] = np.arange(count, dtype=np.int32)
        ends = np.flatnonzero(np.diff(level[order])) + 1
        bounds = [0, *ends.tolist(), count] if count else []
        codes, sizes = code[order].astype(np.uint32), sizes[order]
        # Large shapes come last in the order, and are drawn in any order, because `paint` decides.
        self.levels = [
            _Level(slice(start, end), int(sizes[start:end].max()), codes[start:end]) for start, end in pairwise(bounds)
        ]

    @property
    def count(self) -> int:
        """Number of shapes."""
        return len(self.tile)

    @cached_property
    def bounds(self) -> tuple[int, int, int, int] | None:
        """West, north, east and south of all shapes in world coordinates, or None without any shape."""
        if not self.count:
            return None
        return int(self.west.min()), int(self.north.min()), int(self.east.max()), int(self.south.max())

    @property
    def nbytes(self) -> int:
        """Memory of the shapes in bytes."""
        own = (self.west, self.north, self.east, self.south, self.paint, self.by_paint)
        rings = (self.rings.x, self.rings.y, self.rings.starts, self.rings.tile)
        return sum(array.nbytes for array in (*own, *rings)) + 4 * self.count

    def intersecting(self, left: float, top: float, right: float, bottom: float) -> NDArray[np.int64]:
        """Return the numbers of the shapes whose bounds intersect a box in world coordinates."""
        found = [level.near(left, top, right, bottom) for level in self.levels]
        numbers: NDArray[np.int64] = np.concatenate([np.empty(0, np.int64), *found])
        found_in = (self.west[numbers] <= right) & (self.east[numbers] >= left)
        found_in &= (self.north[numbers] <= bottom) & (self.south[numbers] >= top)
        return numbers[found_in]
