"""Patterns for names, as a shell has them: `incoming-*`."""

from __future__ import annotations

import re
from fnmatch import translate
from functools import lru_cache

KEPT_PATTERNS = 256
"""Largest number of compiled patterns that stay in memory. `fnmatch` itself keeps 32,768 of them, which is too many for
a service: each pattern in a request can have a thousand letters."""


_SPECIAL = frozenset("*?[")
"""Letters that make a pattern of a name."""


def fits_pattern(name: str, pattern: str) -> bool:
    """Return whether a whole name fits a pattern with `*`, `?` and `[…]`. Capital and small letters differ.

    Example:
        >>> fits_pattern("incoming-3", "incoming-*"), fits_pattern("Incoming-3", "incoming-*")
        (True, False)
    """
    if not _SPECIAL.intersection(pattern):
        return name == pattern
    return compiled_pattern(pattern).match(name) is not None


@lru_cache(maxsize=KEPT_PATTERNS)
def compiled_pattern(pattern: str) -> re.Pattern[str]:
    """Return a pattern as a regular expression for the whole name."""
    return re.compile(translate(pattern))
