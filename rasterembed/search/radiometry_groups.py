"""Searched datasets that were stretched differently, and advice to make them comparable."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from rasterembed.dataset.dataset import Dataset
from rasterembed.number_text import first_names, rounded_text
from rasterembed.raster.radiometry import ResolvedRadiometry
from rasterembed.raster.resembling import ChannelNames, RasterColours, ResemblingGroups

_SHOWN_GROUPS = 4
"""Largest number of groups that a warning describes."""

_COVERED = 0.5
"""A stretch fits another group if it covers at least this share of the range from the group's black to its white. It
would clip the other values."""

_USED = 0.05
"""A stretch fits another group if the group's range takes up at least this share of the stretch. With a smaller share,
the colours of the group would be nearly equal."""

_LARGE_PART = 0.5
"""Share of a common range. The warning names the groups whose ranges take up less than this share."""


class RadiometryGroup(BaseModel):
    """Searched datasets with the same radiometry."""

    model_config = ConfigDict(frozen=True)

    dataset_ids: tuple[str, ...]
    radiometry: ResolvedRadiometry
    """Radiometry of the first dataset."""
    channel_names: ChannelNames = (None, None, None)
    """Names that the raster of the first dataset gives to the bands of the channels, such as `red`, or None."""
    pixel_types: tuple[str, ...] = ()
    """Types of the rasters' pixels, such as `uint16`, each once."""

    def __str__(self) -> str:
        """Return the datasets and their radiometry as text for people."""
        types = f", {' and '.join(self.pixel_types)} pixels" if self.pixel_types else ""
        return f"{self.name}: {self.radiometry.describe()}{types}"

    @property
    def colours(self) -> RasterColours:
        """How the pixels of the first dataset become colours."""
        return RasterColours(self.radiometry, self.channel_names)

    @property
    def name(self) -> str:
        """The first dataset, and the number of the others, as text for people."""
        return first_names(self.dataset_ids, 1)


def group_by_radiometry(datasets: Sequence[Dataset]) -> tuple[RadiometryGroup, ...]:
    """Return groups of datasets with the same radiometry. If all datasets have the same radiometry, return no group."""
    resembling = ResemblingGroups()
    groups: dict[int, list[tuple[Dataset, RasterColours]]] = {}
    for dataset in datasets:
        colours = RasterColours.of(dataset.plan.profile, dataset.radiometry)
        groups.setdefault(resembling.add(colours), []).append((dataset, colours))
    if len(groups) < 2:
        return ()
    return tuple(
        RadiometryGroup(
            dataset_ids=tuple(dataset.id for dataset, _ in group),
            radiometry=group[0][1].radiometry,
            channel_names=group[0][1].names,
            pixel_types=tuple(sorted({dataset.plan.profile.dtype for dataset, _ in group})),
        )
        for group in groups.values()
    )


def radiometry_warning(groups: Sequence[RadiometryGroup]) -> str:
    """Return a warning that describes groups with different radiometry, with advice to make them comparable.

    Args:
        groups: two groups or more.
    """
    shown = [str(group) for group in groups[:_SHOWN_GROUPS]]
    hidden = len(groups) - len(shown)
    if hidden:
        shown.append(f"{hidden} more")
    return (
        "warning: the datasets have different radiometry, so the same ground has different colours and vectors in "
        f"each of these groups: {'; '.join(shown)}. {_advice(groups)}"
    )


def _advice(groups: Sequence[RadiometryGroup]) -> str:
    """Return the advice: the stretch of a dataset that fits all groups, else a common range."""
    if len({group.radiometry.palette for group in groups}) > 1:
        return (
            "To compare the groups, write the colours of the palettes as three bands (gdal_translate -expand rgb), and "
            "embed them again"
        )
    if len({(group.radiometry.low, group.radiometry.high) for group in groups}) == 1:
        return "To compare the groups, embed them again with the --bands of the same colours"
    same_channels = all(group.colours.has_channels_of(groups[0].colours) for group in groups)
    bands = "" if same_channels else " and the --bands of the same colours"
    if len({pixel_type for group in groups for pixel_type in group.pixel_types}) == 1:
        fits = _fits(groups)
        best = int(fits.argmax())
        if fits[best] > 0:
            name, first = groups[best].name, groups[best].dataset_ids[0]
            return f"To compare the groups, embed all but {name} again with --stretch-of {first} --replace{bands}"
    return _range_advice(groups, bands)


def _range_advice(groups: Sequence[RadiometryGroup], bands: str) -> str:
    """Return advice to use a common range from the smallest black to the largest white.

    Args:
        groups: the groups.
        bands: advice about the bands, which follows the range. Empty if the channels mean the same in all groups.
    """
    low = min(min(*group.radiometry.low, *group.radiometry.high) for group in groups)
    high = max(max(*group.radiometry.low, *group.radiometry.high) for group in groups)
    common = " ".join(rounded_text(value, high - low) for value in (low, high))
    advice = f"To compare the groups, embed all of them again with a common --range {common} --replace{bands}"
    narrow = [group.name for group in groups if _used(group.radiometry, low, high) < _LARGE_PART]
    if not narrow:
        return advice
    named = ", ".join(narrow[:_SHOWN_GROUPS]) + (", ..." if len(narrow) > _SHOWN_GROUPS else "")
    return (
        f"No dataset's stretch fits the others. {advice}. The colours of {named} then take up only a part of "
        "this range. If the pixel values have different units, first convert the rasters to the same unit"
    )


def _fits(groups: Sequence[RadiometryGroup]) -> NDArray[np.float64]:
    """Return how well the stretch of each group fits all groups.

    Returns:
        For each group, the smallest share of another group's range that its stretch covers, shape (groups,). 0 if the
        stretch does not fit.
    """
    # A search may have a group for each of its datasets, so the pairs of groups are not compared in Python.
    low, high = np.moveaxis(np.array([_ends(group.radiometry) for group in groups]), -1, 0)
    fits = np.zeros(len(groups))
    for number, (own_low, own_high) in enumerate(zip(low, high, strict=True)):
        common = np.minimum(high, own_high) - np.maximum(low, own_low)
        covered, used = common / (high - low), common / (own_high - own_low)
        if covered.min() >= _COVERED and used.min() >= _USED:
            fits[number] = covered.min()
    return fits


def _used(radiometry: ResolvedRadiometry, low: float, high: float) -> float:
    """Return the largest share of a range that the stretch of a channel takes up."""
    return max((end - start) / (high - low) for start, end in _ends(radiometry))


def _ends(radiometry: ResolvedRadiometry) -> list[tuple[float, float]]:
    """Return the smaller and the larger of black and white of each channel.

    In a band with a negative scale, black is above white.
    """
    return [(min(pair), max(pair)) for pair in zip(radiometry.low, radiometry.high, strict=True)]
