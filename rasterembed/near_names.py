"""Words for an error about an unknown name: the known names that are similar to it."""

from __future__ import annotations

from collections.abc import Collection
from difflib import get_close_matches


def near_names(wanted: str, names: Collection[str], *, cutoff: float = 0.5) -> str:
    """Return up to three names, separated by commas: the most similar ones, or else the first ones.

    Args:
        wanted: the name or the pattern that a person gave.
        names: all known names. If there are more than the result has, the result ends with `, ...`.
        cutoff: smallest similarity, from 0 to 1. See `difflib.get_close_matches`.

    Example:
        >>> near_names("alp", ["alps", "delta", "town"])
        'alps, ...'
    """
    near = get_close_matches(wanted, names, n=3, cutoff=cutoff) or list(names)[:3]
    more = ", ..." if len(names) > len(near) else ""
    return f"{', '.join(near)}{more}"
