"""Words for an error about an unknown name: the known names that are similar to it."""

from __future__ import annotations

from collections.abc import Callable, Collection
from difflib import get_close_matches

_SHOWN = 3
"""Largest number of names in an error."""

_CUTOFF = 0.6
"""Smallest similarity of a near name, from 0 to 1. It is the default of `difflib.get_close_matches`."""

_CONTAINED = 3
"""Smallest number of letters of a wanted name. If it has so many, every name that contains it is near."""

_OTHER_WORDS = {
    **dict.fromkeys(("start", "begin", "after", "start_date", "start_datetime"), "since"),
    **dict.fromkeys(("end", "before", "end_date", "end_datetime"), "until"),
}
"""Words of other libraries, and of STAC, for a name of this library. No letters show that they mean the same."""


def near_names(wanted: str, names: Collection[str], by: Callable[[str], str] = str) -> str:
    """Return up to three near names, separated by commas: those that contain the wanted name, else similar ones.

    Names that begin with the wanted name come first, and short names before longer ones.

    Args:
        wanted: the name or the pattern that a person gave. The characters of a pattern that stand for others are left
            out.
        names: all known names. If there are more than the result has, the result ends with `, ...`.
        by: function that returns the part of a name that is compared. The default is the whole name.

    Returns:
        The names. Empty if no name is near.

    Example:
        >>> near_names("alp", ["alps", "delta", "town"])
        'alps, ...'
        >>> near_names("scen", ["archive--scene", "scene", "town"])
        'scene, archive--scene, ...'
        >>> near_names("quarry", ["alps", "delta", "town"])
        ''
    """
    return _listed(_near(wanted, names, by), names)


def known_names(wanted: str, names: Collection[str]) -> str:
    """Return up to three known names, separated by commas: near names, else any.

    Use this function only where nothing else lists the names, such as for the options of a class.

    Args:
        wanted: the name that a person gave.
        names: all known names. If there are more than the result has, the result ends with `, ...`.

    Example:
        >>> known_names("quarry", ["alps", "delta", "town", "lake"])
        'alps, delta, town, ...'
    """
    return _listed(_near(wanted, names, str) or list(names)[:_SHOWN], names)


def _near(wanted: str, names: Collection[str], by: Callable[[str], str]) -> list[str]:
    text = "".join(letter for letter in wanted if letter not in "*?[]")
    if _OTHER_WORDS.get(text.lower()) in names:
        return [_OTHER_WORDS[text.lower()]]
    found = [name for name in names if text.lower() in by(name).lower()] if len(text) >= _CONTAINED else []
    found.sort(key=lambda name: (not by(name).lower().startswith(text.lower()), len(by(name))))
    parts: dict[str, list[str]] = {}
    for name in names:
        parts.setdefault(by(name), []).append(name)
    close = get_close_matches(text, parts, n=_SHOWN, cutoff=_CUTOFF)
    return (found or [name for part in close for name in parts[part]])[:_SHOWN]


def _listed(found: Collection[str], names: Collection[str]) -> str:
    more = ", ..." if len(names) > len(found) else ""
    return f"{', '.join(found)}{more}" if found else ""
