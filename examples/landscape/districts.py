"""Districts between roads. Each district is cut into parcels or street blocks."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from examples.landscape.arrays import F32, I32, U32, Shape
from examples.landscape.noise import draw, smooth_noise
from examples.landscape.terrain import Terrain

PARCEL = (230.0, 120.0, 11)
"""Length in px, depth in px, and salt of field parcels; see `cut_bricks`."""

BLOCK = (130.0, 74.0, 23)
"""Length in px, depth in px, and salt of street blocks; see `cut_bricks`."""


@dataclass(frozen=True)
class Districts:
    """Pieces of land between roads. Within a district all parcels and streets have the same direction."""

    sites: F32
    """Row and column of each district's centre in px, shape (districts, 2)."""

    angles: F32
    """Direction of each district in radians, shape (districts,)."""

    keys: U32
    """Random number of each district, shape (districts,)."""

    nearest: npt.NDArray[np.uint16]
    """For each pixel of the scene, the index of its district."""

    other: npt.NDArray[np.uint16]
    """For each pixel, the index of the district beyond the nearest border."""

    edge: F32
    """For each pixel, the distance in px to the nearest border."""

    along: F32
    """For each pixel, the distance in px from the district's centre, along the district's direction."""

    across: F32
    """For each pixel, the distance in px from the district's centre, at a right angle to the district's direction."""


def make_districts(rng: np.random.Generator, terrain: Terrain) -> Districts:
    """Return districts: the Voronoi cells of a jittered lattice. Like roads, the borders of the cells are bent."""
    shape = terrain.valid.shape
    spacing, bend = 560, 20.0
    nodes = tuple(-(-size // spacing) + 4 for size in shape)
    lattice = np.stack(np.meshgrid(*(np.arange(n) - 1.5 for n in nodes), indexing="ij"), axis=-1)
    jittered = (lattice + rng.uniform(-0.42, 0.42, lattice.shape)) * spacing
    sites = jittered.reshape(-1, 2).astype(np.float32)
    keys = rng.integers(0, 2**32, len(sites), dtype=np.uint32)
    angles = (terrain.flow + rng.normal(0, 0.4, len(sites))).astype(np.float32)

    y = np.arange(shape[0], dtype=np.float32)[:, None] + bend * smooth_noise(rng, shape, 150)
    x = np.arange(shape[1], dtype=np.float32)[None, :] + bend * smooth_noise(rng, shape, 150)
    nearest, other = np.empty(shape, np.uint16), np.empty(shape, np.uint16)
    edge = np.empty(shape, np.float32)
    # Work block by block. Only a few sites can be nearest within a block, so few distances are computed.
    block = 256
    for top in range(0, shape[0], block):
        for left in range(0, shape[1], block):
            window = np.s_[top : top + block, left : left + block]
            dy, dx = y[window], x[window]
            nearest[window], other[window], edge[window] = _two_nearest(sites, dy, dx)
            dy -= sites[nearest[window], 0]
            dx -= sites[nearest[window], 1]
            angle = angles[nearest[window]]
            cos, sin = np.cos(angle), np.sin(angle)
            y[window], x[window] = dy * cos - dx * sin, dx * cos + dy * sin
    return Districts(sites, angles, keys, nearest, other, edge, along=x, across=y)


def _two_nearest(sites: F32, y: F32, x: F32) -> tuple[I32, I32, F32]:
    """Return the index of the nearest site, the index of the second nearest, and the distance to their border."""
    middle = np.array([(y.min() + y.max()) / 2, (x.min() + x.max()) / 2])
    reach = math.hypot(float(y.max() - y.min()), float(x.max() - x.min())) / 2
    distance = np.hypot(*(sites - middle).T)
    near = np.flatnonzero(distance <= np.partition(distance, 1)[1] + 2 * reach)
    first, second = np.zeros(y.shape, np.int32), np.zeros(y.shape, np.int32)
    d1, d2 = np.full(y.shape, np.inf, np.float32), np.full(y.shape, np.inf, np.float32)
    for i in near:
        d = (y - sites[i, 0]) ** 2 + (x - sites[i, 1]) ** 2
        ahead = d < d1
        runner_up = ~ahead & (d < d2)
        second = np.where(ahead, first, np.where(runner_up, np.int32(i), second))
        d2 = np.where(ahead, d1, np.minimum(d, d2))
        first = np.where(ahead, np.int32(i), first)
        np.minimum(d, d1, out=d1)
    gap = np.hypot(sites[first, 0] - sites[second, 0], sites[first, 1] - sites[second, 1])
    return first, second, (d2 - d1) / (2 * gap)


@dataclass(frozen=True)
class Bricks:
    """The *brick* around each chosen pixel: its parcel or street block.

    All arrays have the shape of the chosen pixels. All lengths are in px.
    """

    key: U32
    """Random number of the brick."""

    along: F32
    """Distance of the pixel from the brick's near end."""

    across: F32
    """Distance of the pixel from the brick's near side."""

    length: F32
    """Length of the brick, along the district's direction."""

    depth: F32
    """Depth of the brick, at a right angle to the district's direction."""

    @property
    def edge(self) -> F32:
        """Distance of the pixel from the brick's nearest edge."""
        edge: F32 = np.minimum(self.along, self.length - self.along)
        for distance in (self.across, self.depth - self.across):
            edge = np.minimum(edge, distance)
        return edge


def cut_bricks(districts: Districts, pick: Any, length: float, depth: float, salt: int) -> Bricks:
    """Cut each district into rows of about `depth` px, and each row into bricks of about `length` px.

    Args:
        districts: the districts to cut.
        pick: the chosen pixels, as an index (a mask or slices) into the scene.
        length: typical length of a brick. Each row has its own length of bricks, between 0.6 and 1.5 times `length`.
        depth: typical depth of a row. Each district has its own depth of rows, between 0.75 and 1.25 times `depth`.
        salt: changes the random numbers. Another salt cuts the same districts in another way.
    """
    district = districts.keys[districts.nearest[pick]] + np.uint32(salt)
    depths = depth * (0.75 + 0.5 * draw(district, 1))
    row, across = np.divmod(districts.across[pick], depths)
    row_key = district + row.astype(np.int32).view(np.uint32) * np.uint32(0x9E3779B1)
    lengths = length * (0.6 + 0.9 * draw(row_key, 2))
    column, along = np.divmod(districts.along[pick] + lengths * draw(row_key, 3), lengths)
    key = row_key + column.astype(np.int32).view(np.uint32) * np.uint32(0x85EBCA77)
    return Bricks(key, along, across, lengths, depths)


def at_middles(field: F32, districts: Districts, pick: Any, bricks: Bricks) -> F32:
    """Return the value of `field` at the centre of each pixel's brick. All pixels of a brick get the same value."""
    nearest = districts.nearest[pick]
    along = districts.along[pick] - bricks.along + bricks.length / 2
    across = districts.across[pick] - bricks.across + bricks.depth / 2
    angle = districts.angles[nearest]
    cos, sin = np.cos(angle), np.sin(angle)
    row = districts.sites[nearest, 0] + across * cos + along * sin
    column = districts.sites[nearest, 1] + along * cos - across * sin
    height, width = field.shape
    middle: F32 = field[
        np.clip(row, 0, height - 1).astype(np.int32),
        np.clip(column, 0, width - 1).astype(np.int32),
    ]
    return middle


def strips(shape: Shape) -> list[slice]:
    """Return slices that divide the rows of a scene. Arrays for the 128 rows of a slice fit the processor's cache."""
    return [slice(top, top + 128) for top in range(0, shape[0], 128)]
