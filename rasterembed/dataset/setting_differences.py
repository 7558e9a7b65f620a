"""The settings that differ between two configurations, and those of them that a person caused."""

from __future__ import annotations

import json
from typing import Any

from rasterembed.dataset.setting_names import Difference

_CAUSES_OF_SHARDS = (
    *(f"grid.{name}" for name in ("size", "stride", "edge", "anchor", "origin", "resolution", "crs")),
    "source.uri",
    "source.version",
)

_CAUSES = {
    "grid.stride": ("grid.size",),
    "model.input_size": ("grid.size",),
    "model.weights_sha256": ("model.id", "model.revision"),
    "radiometry.high": ("radiometry.method",),
    "radiometry.low": ("radiometry.method",),
    "shard.cols": _CAUSES_OF_SHARDS,
    "shard.rows": _CAUSES_OF_SHARDS,
    "source.item.acquired": ("source.version",),
    "source.item.cloud_cover": ("source.version",),
    "source.size": ("source.version",),
    "source.valid_mask.size": ("source.valid_mask.uri", "source.valid_mask.version"),
    "source.valid_mask.version": ("source.valid_mask.uri",),
}
"""Entries of a configuration that follow from others by default: the name of the entry, and the names of its causes."""

_EQUAL_TO_CAUSE = ("grid.stride", "model.input_size")
"""Entries that a person can also give. They follow from their cause only if they have its value."""


def without_consequences(differences: list[Difference]) -> list[Difference]:
    """Return the differences that a person caused. Leave those out that only follow from another one."""
    values = {name: (own, other) for name, own, other in differences}

    def follows(name: str) -> bool:
        causes = [cause for cause in _CAUSES.get(name, ()) if cause in values]
        return bool(causes) and (name not in _EQUAL_TO_CAUSE or values[name] == values[causes[0]])

    return [difference for difference in differences if not follows(difference[0])]


def entry_differences(own: dict[str, Any], other: dict[str, Any]) -> list[Difference]:
    """Return the entries that differ between two nested mappings of values that JSON can hold.

    Returns:
        Dotted name, value in `own` and value in `other` of each entry. The values are JSON. A missing value is None.
    """
    own, other = _flat(own), _flat(other)
    names = [name for name in sorted(own | other) if own.get(name) != other.get(name)]
    return [(name, own.get(name), other.get(name)) for name in names]


def _flat(value: Any, name: str = "") -> dict[str, str]:
    """Return the innermost values of nested mappings as JSON. The key of each value is its dotted name."""
    if isinstance(value, dict):
        return {
            key: text
            for inner, child in value.items()
            for key, text in _flat(child, f"{name}.{inner}" if name else inner).items()
        }
    return {name: json.dumps(value)}
