"""Tree crowns, seen from above."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from examples.landscape.arrays import F32, I32, Mask, clip


@dataclass(frozen=True)
class Crowns:
    """Height and tone of the tree crowns. The arrays have the scene's shape."""

    height: F32
    """Height above the relief in px, 0 outside the crowns."""

    tone: F32
    """Kind of tree, from 0 (the darkest conifer) to 1 (the lightest broadleaf)."""


def plant_crowns(rng: np.random.Generator, trees: F32, broadleaf: F32) -> Crowns:
    """Plant at most one tree in every square of 5 x 5 px. A crown is a dome. Crowns may overlap.

    Args:
        rng: source of randomness.
        trees: chance that a tree grows at each pixel, 0 to 1.
        broadleaf: tendency to broadleaf trees around each pixel: noise of mean 0 and standard deviation 1.
    """
    pitch, reach = 5, 4
    shape = trees.shape
    squares = np.indices([-(-size // pitch) for size in shape], np.float32).reshape(2, -1).T
    spots = (squares + rng.random(squares.shape, np.float32)) * pitch
    spots = spots[(spots < shape).all(axis=1)]
    row, column = spots.astype(np.int32).T
    grows = rng.random(len(spots), np.float32) < trees[row, column]
    row, column = row[grows], column[grows]
    offset = np.float32(0.5) - spots[grows] % 1
    size = rng.random(len(row), np.float32)
    radius, top = 1.9 + 2 * size, 5 + 9 * size
    tone = 0.34 + 0.22 * broadleaf[row, column] + 0.2 * rng.standard_normal(len(row), np.float32)

    height = np.zeros(shape, np.float32)
    winner = np.zeros(shape, np.float32)

    def domes() -> Iterator[tuple[Mask, I32, F32]]:
        for dy in range(-reach, reach + 1):
            for dx in range(-reach, reach + 1):
                y, x = row + dy, column + dx
                away = ((dy + offset[:, 0]) ** 2 + (dx + offset[:, 1]) ** 2) / radius**2
                inside = (away < 1) & (y >= 0) & (x >= 0) & (y < shape[0]) & (x < shape[1])
                at = y[inside] * np.int32(shape[1]) + x[inside]
                yield inside, at, top[inside] * (1 - 0.6 * away[inside])

    # The first pass finds the highest crown at each pixel. The second pass gives the pixel the tone of that crown.
    for _, at, dome in domes():
        np.maximum.at(height.reshape(-1), at, dome)
    for inside, at, dome in domes():
        seen = height.reshape(-1)[at] == dome
        winner.reshape(-1)[at[seen]] = tone[inside][seen]
    return Crowns(height, clip(winner, 0, 1))
