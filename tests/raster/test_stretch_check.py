"""A run warns if the black and white that a person gave do not fit the pixels of the raster."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from rasterembed.raster.profile import inspect_raster
from rasterembed.raster.radiometry import Radiometry, ResolvedRadiometry, resolve_radiometry
from rasterembed.raster.stretch_check import doubtful_stretch
from rasterembed.store.object_store import ObjectStore
from tests.support.rasters import write

PIXELS = np.random.default_rng(3).integers(0, 4000, (3, 60, 80)).astype(np.uint16)


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return ObjectStore(root=str(tmp_path / "store"))


def doubt(
    store: ObjectStore, path: Path, radiometry: Radiometry, shared: ResolvedRadiometry | None = None
) -> str | None:
    profile = inspect_raster(store, str(path))
    resolved = resolve_radiometry(store, str(path), profile, radiometry, shared)
    found = doubtful_stretch(store, str(path), profile, resolved)
    return None if found is None else found.text


def test_the_share_of_clipped_pixels_is_that_of_numpy(store: ObjectStore, tmp_path: Path) -> None:
    pixels = PIXELS.copy()
    pixels[:, :20] = 65_535  # They are nodata, and so they do not count.
    path = write(tmp_path / "r.tif", pixels, nodata=65_535)
    eight = ResolvedRadiometry(bands=(1, 2, 3), low=(0, 0, 0), high=(255, 255, 255), method="uint8")
    message = doubt(store, path, Radiometry(stretch_of="eight"), eight)
    valid = pixels[:, 20:].reshape(3, -1)
    share = (valid > 255).all(axis=0).mean()
    assert 0.8 < share < 0.9
    assert message is None
    brighter = write(tmp_path / "brighter.tif", np.where(pixels == 65_535, pixels, pixels + 200), nodata=65_535)
    message = doubt(store, brighter, Radiometry(stretch_of="eight"), eight)
    share = (valid + 200 > 255).all(axis=0).mean()
    assert message is not None
    assert f"white 255,255,255 (stretch of eight) clip {share:.1%} of the sampled valid pixels" in message
    low, high = (np.percentile(valid + 200, each, axis=1) for each in (2, 98))
    assert f"give a `range` such as {low.min():g} {high.max():g}, or another `stretch_of`" in message
    message = doubt(store, path, Radiometry(range=(60_000, 65_000)))
    assert message is not None
    assert message.partition(": give a `range` such as ")[2]
    assert "stretch_of" not in message  # Nobody gave it.


@pytest.mark.parametrize(
    ("pixels", "radiometry", "problem"),
    [
        (PIXELS, Radiometry(range=(0, 4000)), None),
        (PIXELS, Radiometry(range=(5000, 9000)), "clip 100.0%"),
        (PIXELS, Radiometry(scale="landsat-c2-l2"), "clip 100.0%"),
        (PIXELS, Radiometry(range=(0, 1_000_000)), "leave nearly one colour"),
        (PIXELS, Radiometry(range=(0, 300_000)), None),
        (PIXELS % 2, Radiometry(range=(0, 1)), None),  # Black and white themselves are not clipped.
        (PIXELS * 0 + 7, Radiometry(range=(0, 4000)), None),
        (PIXELS * 0 + 7, Radiometry(range=(10, 20)), "clip 100.0%.* are between 7 and 7$"),
    ],
)
def test_what_does_not_fit(
    pixels: NDArray[Any], radiometry: Radiometry, problem: str | None, store: ObjectStore, tmp_path: Path
) -> None:
    message = doubt(store, write(tmp_path / "r.tif", pixels), radiometry)
    if problem is None:
        assert message is None
    else:
        assert message is not None
        assert message.startswith(str(tmp_path / "r.tif"))
        assert re.search(problem, message)


def test_one_channel_that_is_not_clipped_is_enough(store: ObjectStore, tmp_path: Path) -> None:
    path = write(tmp_path / "r.tif", PIXELS)
    good = ResolvedRadiometry(bands=(1, 2, 3), low=(0, 0, 5000), high=(10, 4000, 9000), method="range")
    assert doubt(store, path, Radiometry(stretch_of="x"), good) is None


def test_black_above_white_fits_the_same_pixels(store: ObjectStore, tmp_path: Path) -> None:
    """A band with a negative scale has such values."""
    path = write(tmp_path / "r.tif", PIXELS)
    inverted = ResolvedRadiometry(bands=(1, 2, 3), low=(4000,) * 3, high=(0,) * 3, method="range")
    assert doubt(store, path, Radiometry(stretch_of="x"), inverted) is None
    far = ResolvedRadiometry(bands=(1, 2, 3), low=(9000,) * 3, high=(5000,) * 3, method="range")
    assert "clip 100.0%" in (doubt(store, path, Radiometry(stretch_of="x"), far) or "")
