"""Give every pixel its class."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from examples.landscape.classes import BARE, FIELD, FOREST, NODATA, TOWN, WATER
from examples.landscape.districts import BLOCK, PARCEL, Districts, at_middles, cut_bricks, strips
from examples.landscape.terrain import Terrain

# Shares of the valid pixels. Water is assigned first, then town, bare rock and fields. All other pixels are forest.
_TOWN_SHARE, _BARE_SHARE, _FIELD_SHARE = 0.14, 0.10, 0.30


def assign_classes(terrain: Terrain, districts: Districts) -> npt.NDArray[np.uint8]:
    """Return the class of every pixel, shape (height, width). Towns have whole blocks. Fields are whole parcels."""
    shape = terrain.valid.shape
    town, farmed = np.empty(shape, np.float32), np.empty(shape, np.float32)
    for rows in strips(shape):
        town[rows] = at_middles(terrain.town, districts, rows, cut_bricks(districts, rows, *BLOCK))
        parcels = cut_bricks(districts, rows, *PARCEL)
        farmed[rows] = at_middles(terrain.farmed, districts, rows, parcels)

    classes = np.where(terrain.valid, np.uint8(FOREST), np.uint8(NODATA))
    classes[terrain.valid & terrain.water] = WATER
    area = np.count_nonzero(terrain.valid)
    for value, suitability, share in (
        (TOWN, town, _TOWN_SHARE),
        (BARE, terrain.rocky, _BARE_SHARE),
        (FIELD, farmed, _FIELD_SHARE),
    ):
        left = classes == FOREST
        candidates = suitability[left]
        if not candidates.size:
            break
        level = np.quantile(candidates[::7], max(0.0, 1 - share * area / candidates.size))
        classes[left & (suitability >= level)] = value
    return classes
