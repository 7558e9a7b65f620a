"""Districts between roads, cut into parcels and street blocks."""

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
BLOCK = (130.0, 74.0, 23)


@dataclass(frozen=True)
class Districts:
    """Land between roads; in each, parcels and streets run one way."""

    sites: F32
    """Row and column of each district's middle in px."""

    angles: F32
    """Direction of each district in radians."""

    keys: U32
    """Random number of each district."""

    nearest: npt.NDArray[np.uint16]
    """For each pixel of the scene, its district."""

    other: npt.NDArray[np.uint16]
    """For each pixel, the district beyond the nearest border."""

    edge: F32
    """For each pixel, the distance in px to that border."""

    along: F32
    """For each pixel, its distance in px from the middle along the district's direction."""

    across: F32
    """The same at a right angle to that direction."""


def make_districts(rng: np.random.Generator, terrain: Terrain) -> Districts:
    """The Voronoi cells of a jittered lattice, with borders bent as roads are."""
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
    # In blocks, because only a handful of sites can be the nearest anywhere within one.
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
    """Indexes of the nearest and second nearest site, and the distance to the line between."""
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
    """For each chosen pixel, the parcel or street block it lies in; all lengths in px."""

    key: U32
    """The brick's random number."""

    along: F32
    """Distance from the brick's near end."""

    across: F32
    """Distance from its near side."""

    length: F32
    depth: F32

    @property
    def edge(self) -> F32:
        """Distance to the brick's nearest edge."""
        edge: F32 = np.minimum(self.along, self.length - self.along)
        for distance in (self.across, self.depth - self.across):
            edge = np.minimum(edge, distance)
        return edge


def cut_bricks(districts: Districts, pick: Any, length: float, depth: float, salt: int) -> Bricks:
    """Cut each district into rows of about `depth` px and those into bricks of about `length`.

    Args:
        districts: what to cut.
        pick: which pixels, as an index (a mask or slices) into the scene.
        length: middle length of a brick; rows differ from it by up to half.
        depth: middle depth of a row; districts differ from it by up to a quarter.
        salt: which of the possible cuts.
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
    """The value of a field at the middle of each pixel's brick: the same all over a brick."""
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
    """Rows in runs short enough that what is computed for one fits the processor's cache."""
    return [slice(top, top + 128) for top in range(0, shape[0], 128)]
