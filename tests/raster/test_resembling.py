"""Rasters that become nearly the same colours are found, and grouped."""

from __future__ import annotations

import numpy as np
import pytest

from rasterembed.raster import resembling
from rasterembed.raster.profile import RasterProfile
from rasterembed.raster.radiometry import PRESETS, ResolvedRadiometry
from rasterembed.raster.resembling import ChannelNames, RasterColours, ResemblingGroups

UNNAMED: ChannelNames = (None, None, None)
RGB: ChannelNames = ("red", "green", "blue")


def colours(black: float = 0, white: float = 255, names: ChannelNames = UNNAMED, **changes: object) -> RasterColours:
    """Return the colours of a raster. By default, the channels are the bands 1, 2 and 3."""
    radiometry = ResolvedRadiometry(bands=(1, 2, 3), low=(black,) * 3, high=(white,) * 3, method="range")
    return RasterColours(radiometry.model_copy(update=changes), names)


def test_black_and_white_may_differ_by_a_hundredth_of_their_range() -> None:
    low, high = PRESETS["sentinel2-l2a"]
    one = colours(low, high)
    same = colours(low, high, low=(low + 35, low, low), method="percentile 2 98")
    assert one.resembles(same)
    assert same.resembles(one)
    for change in ({"low": (low + 37, low, low)}, {"high": (high, high, high - 37)}, {"bands": (3, 2, 1)},
                   {"palette": True}):  # fmt: skip
        assert not one.resembles(colours(low, high, **change))


def test_black_may_be_above_white() -> None:
    one = colours(255, 0)
    assert one.resembles(one)
    assert one.resembles(colours(253, 1))
    assert not one.resembles(colours(250, 1))
    assert not one.resembles(colours(0, 255))


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (colours(names=RGB), colours(names=RGB, bands=(3, 2, 1)), True),
        (colours(names=RGB), colours(names=("blue", "green", "red")), False),
        (colours(names=RGB), colours(), True),
        (colours(names=RGB), colours(bands=(3, 2, 1)), False),
        (colours(names=("nir", "red", None)), colours(names=("nir", "red", "blue"), bands=(4, 1, 3)), True),
        (colours(names=("nir", "red", None)), colours(names=("nir", "red", "blue"), bands=(4, 1, 2)), False),
    ],
)
def test_the_names_of_bands_count_if_both_rasters_have_them(
    one: RasterColours, other: RasterColours, same: bool
) -> None:
    assert one.has_channels_of(other) == other.has_channels_of(one) == same
    assert one.resembles(other) == same


def test_a_band_is_named_by_its_colour_only() -> None:
    profile = RasterProfile.model_construct(
        count=6,
        colorinterp=("nir", "gray", "undefined", "undefined", "undefined", "alpha"),
        descriptions=("red", "Green", "scene-of-july.tif", None, "BLUE", None),
    )

    def names(*bands: int) -> ChannelNames:
        return RasterColours.of(profile, colours(bands=bands).radiometry).names

    assert names(1, 2, 3) == ("nir", "green", None)
    assert names(4, 5, 6) == (None, "blue", None)
    assert names(7, 0, -1) == UNNAMED, "a stored radiometry can hold any number"


def test_the_oldest_group_that_fits_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The answer is that of a comparison with each group in turn, with far fewer comparisons."""
    random = np.random.default_rng(0)
    rasters = []
    for _ in range(600):
        low, span = random.integers(0, 60) * 5.0, random.choice([-1000.0, 700, 1000, 1012, 10_000])
        bands = [(1, 2, 3), (3, 2, 1)][random.integers(2)]
        rasters.append(
            colours(low, low + span + random.integers(0, 12), [RGB, UNNAMED][random.integers(2)], bands=bands)
        )
    firsts: list[RasterColours] = []
    expected = []
    for raster in rasters:
        fits = [number for number, first in enumerate(firsts) if first.resembles(raster)]
        expected.append(fits[0] if fits else len(firsts))
        firsts += [] if fits else [raster]
    compared = []
    resembles = RasterColours.resembles

    def counted(self: RasterColours, other: RasterColours) -> bool:
        compared.append(other)
        return resembles(self, other)

    monkeypatch.setattr(resembling.RasterColours, "resembles", counted)
    groups = ResemblingGroups()
    assert [groups.add(raster) for raster in rasters] == expected
    assert 100 < len(firsts) < 500
    assert len(compared) < 10 * len(rasters)


def test_numbers_of_any_size_are_grouped() -> None:
    groups = ResemblingGroups()
    ends = [(-0.8e308, 0.8e308), (1.6e308, 1.7e308), (0, 5e-324), (-1e-300, 1e300)]
    assert [groups.add(colours(*pair)) for pair in (*ends, *ends)] == [0, 1, 2, 3, 0, 1, 2, 3]
