"""Compare how rasters become colours, and group the rasters that become nearly the same colours."""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Hashable
from dataclasses import dataclass

from rasterembed.raster.profile import RasterProfile
from rasterembed.raster.radiometry import SAME_SHARE, ResolvedRadiometry
from rasterembed.raster.scene import COLOURS

_NO_COLOUR = ("undefined", "gray", "palette", "alpha")
"""GDAL's colour interpretations that name no colour."""

ChannelNames = tuple[str | None, str | None, str | None]


@dataclass(frozen=True)
class RasterColours:
    """How the pixels of a raster become colours."""

    radiometry: ResolvedRadiometry
    """Bands, black and white."""
    names: ChannelNames
    """Name that the raster gives to the band of the red, green and blue channel, such as `nir`, or None."""

    @classmethod
    def of(cls, profile: RasterProfile, radiometry: ResolvedRadiometry) -> RasterColours:
        """Return how the pixels of a raster become colours.

        Args:
            profile: header of the raster.
            radiometry: its bands, black and white.
        """
        red, green, blue = (_colour(profile, band) for band in radiometry.bands)
        return cls(radiometry, (red, green, blue))

    def has_channels_of(self, other: RasterColours) -> bool:
        """Return whether the channels have the same meaning: the same colours, and the same kind of pixels.

        If both rasters name the bands of a channel, the names count. A name is nothing to compare with a raster that
        gives none, so the numbers of the bands count then.
        """
        one, another = self.radiometry, other.radiometry
        return one.palette == another.palette and all(
            mine == its if None in (name, its_name) else name == its_name
            for mine, its, name, its_name in zip(one.bands, another.bands, self.names, other.names, strict=True)
        )

    def resembles(self, other: RasterColours) -> bool:
        """Return whether both give nearly the same colours: black and white differ by at most 1 % of their range."""
        return self.has_channels_of(other) and all(
            abs(low - its_low) <= reach and abs(high - its_high) <= reach
            for low, high, its_low, its_high, reach in zip(
                self.radiometry.low,
                self.radiometry.high,
                other.radiometry.low,
                other.radiometry.high,
                # In a band with a negative scale, black is above white.
                (SAME_SHARE * abs(span) for span in self.radiometry.spans),
                strict=True,
            )
        )


class ResemblingGroups:
    """Groups of rasters that become nearly the same colours. The first raster of a group decides about the others.

    The groups are sorted by the middle between black and white of their first channel. A raster is compared only with
    the groups whose middle is near enough, so that the work for many rasters grows with their number.
    """

    def __init__(self) -> None:
        self._firsts: list[RasterColours] = []
        self._middles: list[tuple[float, int]] = []
        self._known: dict[Hashable, int] = {}

    def add(self, colours: RasterColours) -> int:
        """Return the number of the group of a raster, from 0: the oldest one that fits, else a new one."""
        radiometry = colours.radiometry
        key = (radiometry.bands, radiometry.low, radiometry.high, radiometry.palette, colours.names)
        if key not in self._known:
            self._known[key] = self._find_or_add(colours)
        return self._known[key]

    def _find_or_add(self, colours: RasterColours) -> int:
        low, high = colours.radiometry.low[0], colours.radiometry.high[0]
        middle = low / 2 + high / 2  # Their sum may be too large for a float.
        # The ends of a group may differ by a share of the group's own range, which is then at most this much longer
        # than the range of the raster. The last factor allows for rounding.
        reach = SAME_SHARE * abs(high - low) / (1 - 2 * SAME_SHARE) * 1.01
        start = bisect_left(self._middles, (middle - reach, -1))
        stop = bisect_right(self._middles, (middle + reach, len(self._firsts)))
        for number in sorted(number for _, number in self._middles[start:stop]):
            if self._firsts[number].resembles(colours):
                return number
        insort(self._middles, (middle, len(self._firsts)))
        self._firsts.append(colours)
        return len(self._firsts) - 1


def _colour(profile: RasterProfile, band: int) -> str | None:
    """Return the colour that a raster names a band with: by colour interpretation, else by description.

    Other descriptions are any text, such as the name of the file, so they tell nothing.
    """
    if not 1 <= band <= profile.count:  # A stored radiometry can hold any number.
        return None
    if profile.colorinterp[band - 1] not in _NO_COLOUR:
        return profile.colorinterp[band - 1]
    description = (profile.descriptions[band - 1] or "").lower()
    return description if description in COLOURS else None
