"""The cache of the tiles' layers keeps what was used last, within its bytes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rasterembed.explorer.tiles.kept import Kept


def test_objects_that_were_not_used_for_the_longest_time_are_dropped() -> None:
    kept: Kept[NDArray[np.uint8]] = Kept(10_000)
    for name in ("a", "b"):
        kept.add(name, np.zeros(3000, np.uint8))
    assert kept.get("a") is not None
    kept.add("c", np.zeros(3000, np.uint8))
    assert [name for name in ("a", "b", "c") if kept.get(name) is not None] == ["a", "c"]
    kept.add("large", np.zeros(20_000, np.uint8))
    assert kept.get("large") is not None
    assert kept.get("a") is kept.get("c") is None


def test_the_number_of_small_objects_is_bounded_too() -> None:
    kept: Kept[NDArray[np.bool_]] = Kept(100_000)
    for number in range(10_000):
        kept.add(str(number), np.ones(2, bool))
    names = [number for number in range(10_000) if kept.get(str(number)) is not None]
    assert names == list(range(10_000 - len(names), 10_000))
    assert 0 < len(names) <= 100
    assert kept.nbytes <= 100_000
