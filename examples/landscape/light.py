"""Sunlight and shadows on a height model, and the blur of optics."""

from __future__ import annotations

import math

import numpy as np

from examples.landscape.arrays import F32, clip

_SUN_AZIMUTH, _SUN_ELEVATION = math.radians(150), math.radians(42)


def sunlight(surface: F32) -> F32:
    """Return the sunlight on a surface of heights in px. Level ground has about 1, and a cast shadow about 0.2."""
    south, east = -math.cos(_SUN_AZIMUTH), math.sin(_SUN_AZIMUTH)
    down, right = np.gradient(surface)
    tilt = down * np.float32(-0.4 * south) + right * np.float32(-0.4 * east)
    del down, right
    light: F32 = 1 + 0.75 * tilt / (1 + np.abs(tilt))
    del tilt

    shade = np.zeros_like(surface)
    height, width = surface.shape
    drop = math.tan(_SUN_ELEVATION)
    # Look for objects between a pixel and the sun, at these distances in px. The distances become coarser, because only
    # high objects cast long shadows, and high objects are broad.
    for step in (1, 2, 3, 4, 5, 6, 8, 10, 12, 15, 18):
        dy, dx = round(step * south), round(step * east)
        if dy >= height or dx >= width:
            break
        here = surface[: height - dy, : width - dx]
        above = surface[dy:, dx:] - np.float32(drop * math.hypot(dy, dx)) - here
        covered = shade[: height - dy, : width - dx]
        np.maximum(covered, above, out=covered)
    light *= 1 - clip(shade / np.float32(1.5), 0, 0.82)
    return light


def soften(plane: F32) -> F32:
    """Blur sharp edges as optics do, with weights of 1, 4, 1 along both axes."""
    padded = np.pad(plane, 1, mode="edge")
    tall: F32 = (padded[:-2] + 4 * padded[1:-1] + padded[2:]) / np.float32(6)
    wide: F32 = (tall[:, :-2] + 4 * tall[:, 1:-1] + tall[:, 2:]) / np.float32(6)
    return wide
