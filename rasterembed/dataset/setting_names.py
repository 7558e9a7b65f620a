"""Texts about settings that differ between two configurations. A setting has the name that a person gives."""

from __future__ import annotations

from collections.abc import Iterable

from rasterembed.dataset.selection import Selection
from rasterembed.model.choice import Dinov3
from rasterembed.raster.grid import Grid
from rasterembed.raster.radiometry import Radiometry
from rasterembed.raster.validity import Validity

Difference = tuple[str, str | None, str | None]
"""Dotted name of an entry of a configuration, and its two values as JSON. A missing value is None."""

_PARAMETERS = {
    f"{group}.{name}": name
    for group, model in (
        ("grid", Grid),
        ("radiometry", Radiometry),
        ("validity", Validity),
        ("model", Dinov3),
        ("selection", Selection),
    )
    for name in model.model_fields
}
"""The parameter that gives an entry of a configuration, by the dotted name of the entry."""

_COLOURS = "`scale`, `range` or `percentile`"

_NAMES = {name: f"`{parameter}`" for name, parameter in _PARAMETERS.items()} | {
    "dtype.compute": "`dtype`",
    "dtype.vector": "`vector_dtype`",
    "model.id": "`model`",
    "pooling": "`pooling`",
    "radiometry.high": f"white ({_COLOURS})",
    "radiometry.low": f"black ({_COLOURS})",
    "radiometry.method": f"the colours ({_COLOURS})",
    "shard.cols": "columns of tiles in a shard, which follow from `shard_tiles`",
    "shard.rows": "rows of tiles in a shard, which follow from `shard_tiles`",
    "source.ignore_alpha": "`ignore_alpha`",
    "source.nodata": "`nodata`",
    "source.valid_mask.uri": "`mask`",
    "source.valid_mask.version": "state of the file of `mask`",
}
"""Name for people of each entry that a person can give. Any other entry, such as `source.version`, keeps its name."""


def differences_text(differences: Iterable[Difference], own: str, other: str) -> str:
    """Return one line about the differences between two configurations.

    Args:
        differences: the differences.
        own: text after the first value, such as "in the dataset".
        other: text after the second value, such as "requested".

    Example:
        >>> differences_text([("grid.size", "32", "64"), ("radiometry.range", "null", "[0, 9]")], "stored", "requested")
        '`size`: 32 stored, 64 requested; `range`: not stored, [0, 9] requested'
    """
    found = {name: values for name, *values in differences}
    if "shard.rows" in found:  # Both follow from one parameter, which is named once.
        found.pop("shard.cols", None)
    return "; ".join(
        f"{_NAMES.get(name, name)}: {_value(first, own)}, {_value(second, other)}"
        for name, (first, second) in found.items()
    )


def _value(text: str | None, where: str) -> str:
    return f"not {where}" if text in (None, "null") else f"{text} {where}"
