"""Words for an error about an unknown name: the known names that are similar to it."""

from __future__ import annotations

from collections.abc import Collection
from difflib import get_close_matches


def near_names(wanted: str, names: Collection[str], *, cutoff: float = 0.5) -> str:
    """Return up to three names, separated by commas: those that contain the wanted name, else similar ones, else any.

    Args:
        wanted: the name or the pattern that a person gave.
        names: all known names. If there are more than the result has, the result ends with `, ...`.
        cutoff: smallest similarity, from 0 to 1. See `difflib.get_close_matches`.

    Example:
        >>> near_names("alp", ["alps", "delta", "town"])
        'alps, ...'
    """
    near = [name for name in names if wanted.lower() in name.lower()][:3]
    near = near or get_close_matches(wanted, names, n=3, cutoff=cutoff) or list(names)[:3]
    more = ", ..." if len(names) > len(near) else ""
    return f"{', '.join(near)}{more}"
