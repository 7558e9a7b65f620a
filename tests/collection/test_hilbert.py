"""The curve visits every cell once, goes from each cell to a neighbour, and stays in a quadrant for a quarter of it."""

from __future__ import annotations

import numpy as np
import pytest

from rasterembed.collection.hilbert import NOWHERE, ORDER, curve_positions, hilbert_keys


@pytest.mark.parametrize("order", [1, 2, 5])
def test_the_curve_visits_each_cell_once_in_steps_of_one_cell(order: int) -> None:
    side = 2**order
    x, y = (axis.ravel() for axis in np.meshgrid(np.arange(side), np.arange(side)))
    position = curve_positions(x, y, order)
    assert sorted(position.tolist()) == list(range(side * side))
    path = np.argsort(position)
    steps = np.abs(np.diff(x[path])) + np.abs(np.diff(y[path]))
    assert (steps == 1).all()
    # A quarter of the curve stays in one quadrant.
    for quarter in np.split(path, 4):
        assert len(np.unique(x[quarter] // (side // 2))) == len(np.unique(y[quarter] // (side // 2))) == 1


def test_the_keys_of_places_do_not_depend_on_other_places() -> None:
    lon, lat = np.array([-180.0, 24.9, 180.0, np.nan]), np.array([-90.0, 60.2, 90.0, 0.0])
    keys = hilbert_keys(lon, lat)
    assert keys[3] == NOWHERE
    assert (keys[:3] >= 0).all()
    assert (keys[:3] < 4**ORDER).all()
    assert [int(hilbert_keys(lon[i : i + 1], lat[i : i + 1])[0]) for i in range(4)] == keys.tolist()
    near = hilbert_keys(np.array([24.9, 24.9001]), np.array([60.2, 60.2]))
    assert abs(near[1] - near[0]) < 4**ORDER / 1e9
