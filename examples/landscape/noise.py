"""Random numbers: noise that is smooth over the ground, and one number for each parcel."""

from __future__ import annotations

import math

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from examples.landscape.arrays import F32, U32, Shape


def smooth_noise(rng: np.random.Generator, shape: Shape, cell: int) -> F32:
    """Return smooth noise of mean 0 and standard deviation 1: a cubic B-spline of random values every `cell` px."""
    nodes = tuple(-(-size // cell) + 3 for size in shape)
    # 151/315 is the mean, over a cell, of the sum of the squared weights of the cubic B-spline.
    lattice = rng.standard_normal(nodes, dtype=np.float32) / np.float32(151 / 315)
    t = (np.arange(cell, dtype=np.float32) + 0.5) / cell
    weights = np.stack([(1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3]) / np.float32(6)
    tall = sliding_window_view(lattice, 4, axis=0) @ weights
    tall = tall.transpose(0, 2, 1).reshape(-1, nodes[1])[: shape[0]]
    wide = sliding_window_view(tall, 4, axis=1) @ weights
    return np.ascontiguousarray(wide.reshape(shape[0], -1)[:, : shape[1]])


def fractal_noise(rng: np.random.Generator, shape: Shape, largest: int, smallest: int, gain: float = 0.5) -> F32:
    """Return the sum of octaves of noise, with cells from `largest` to `smallest` px and a standard deviation of 1."""
    total = smooth_noise(rng, shape, largest)
    amplitude, power, cell = 1.0, 1.0, largest // 2
    while cell >= smallest:
        amplitude *= gain
        power += amplitude**2
        total += amplitude * smooth_noise(rng, shape, cell)
        cell //= 2
    total /= np.float32(math.sqrt(power))
    return total


def draw(key: U32, salt: int) -> F32:
    """Return a random number in [0, 1) for each key. All pixels of a parcel have the same key, and so the same number.

    The mixing steps are the finaliser of MurmurHash3 (Austin Appleby, public domain).
    """
    mixed = key + np.uint32(salt * 0x9E3779B9 % 2**32)
    mixed ^= mixed >> np.uint32(16)
    mixed *= np.uint32(0x85EBCA6B)
    mixed ^= mixed >> np.uint32(13)
    mixed *= np.uint32(0xC2B2AE35)
    mixed ^= mixed >> np.uint32(16)
    return (mixed >> np.uint32(8)).astype(np.float32) / np.float32(2**24)
