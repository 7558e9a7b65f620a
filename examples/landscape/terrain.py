"""The shape of the land: relief, lakes, a river, and the nodata border."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from examples.landscape.arrays import F32, Mask, Shape, clip
from examples.landscape.noise import fractal_noise, smooth_noise

LAKE_SHARE = 0.11
"""Share of the valid pixels that lakes cover."""

_RIVER_SHARE = 0.25
"""Largest share of the valid pixels that the river covers."""


@dataclass(frozen=True)
class Terrain:
    """The shape of the land. Every array has the scene's shape."""

    valid: Mask
    """False for pixels of the nodata border."""

    relief: F32
    """Height of the ground, without unit. Its standard deviation is about 1."""

    lake_depth: F32
    """Depth of the ground below the lakes' surface, in units of the relief. Negative on dry ground."""

    river: F32
    """Distance to the river's bank in px. Negative in the river."""

    flow: float
    """Direction of the river in radians. Parcels and streets have about the same direction."""

    town: F32
    """Suitability for towns, without unit. Pixels with high values become town first."""

    farmed: F32
    """Quality of the soil, without unit. Pixels with high values become fields first."""

    rocky: F32
    """Nearness of rock to the surface, without unit. Pixels with high values become bare rock first."""

    @property
    def water(self) -> Mask:
        """True in lakes and in the river."""
        return (self.lake_depth > 0) | (self.river < 0)


def make_terrain(rng: np.random.Generator, shape: Shape, border: int) -> Terrain:
    """Generate land of this shape, with a nodata border of up to `border` px."""
    valid = _valid(rng, shape, border)
    rows, columns = np.ogrid[: shape[0], : shape[1]]

    flow = float(rng.uniform(0, math.pi))
    start = rng.uniform(0.35, 0.65, 2) * shape
    turned = (rows - start[0]) * math.cos(flow) - (columns - start[1]) * math.sin(flow)
    across = turned.astype(np.float32)
    across += 150 * smooth_noise(rng, shape, 420) + 38 * smooth_noise(rng, shape, 130)
    across += 3 * smooth_noise(rng, shape, 24)
    # `across` is a bent plane. The river follows the line where `across` is 0. The distance to this line is about
    # `across` divided by its slope.
    down, right = np.gradient(across)
    slope = np.hypot(down, right)
    np.maximum(slope, np.float32(0.35), out=slope)
    river = np.abs(across) / slope
    del turned, across, down, right, slope
    river -= 13 + 4 * smooth_noise(rng, shape, 300)
    # In a very small scene, the river could cover everything. Make it narrower, so that it covers at most this share.
    river += max(0.0, -float(np.quantile(river[valid][::16], _RIVER_SHARE)))

    relief = fractal_noise(rng, shape, 420, 12, 0.48)
    valley = np.exp(-np.maximum(river, 0) / np.float32(160))
    level = float(np.quantile(relief[valid][::16], LAKE_SHARE))
    town = fractal_noise(rng, shape, 400, 100) + 0.5 * valley
    farmed = fractal_noise(rng, shape, 380, 90) - 0.45 * relief + 0.5 * valley
    rocky = fractal_noise(rng, shape, 360, 6, 0.52) + 0.2 * relief
    return Terrain(valid, relief, level - relief, river, flow, town, farmed, rocky)


def _valid(rng: np.random.Generator, shape: Shape, border: int) -> Mask:
    """Return which pixels are valid. The width of the nodata border varies between `border` / 2 and `border`, in px."""
    height, width = shape
    rows, columns = np.ogrid[:height, :width]

    def edge(length: int) -> F32:
        wander = 0.7 * smooth_noise(rng, (length, 1), 90)[:, 0] + 0.15 * smooth_noise(rng, (length, 1), 5)[:, 0]
        return np.float32(border) * (np.float32(0.75) + clip(wander, -1, 1) / np.float32(4))

    top, bottom, left, right = edge(width), edge(width), edge(height), edge(height)
    return (
        (rows >= top[None, :])
        & (height - 1 - rows >= bottom[None, :])
        & (columns >= left[:, None])
        & (width - 1 - columns >= right[:, None])
    )
