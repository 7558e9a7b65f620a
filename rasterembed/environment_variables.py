"""Environment variables with a prefix of this project that mean nothing, such as misspelt ones."""

from __future__ import annotations

import os
from collections.abc import Collection

from rasterembed.near_names import known_names


def unknown_variable(prefix: str, known: Collection[str], others: tuple[str, ...] = ()) -> str | None:
    """Return words about a variable of the environment that begins with a prefix and is not known.

    Args:
        prefix: the prefix.
        known: names of all variables with this prefix that mean something.
        others: beginnings of variables with this prefix that other programs set.

    Returns:
        The variable and the known names that are near, or None if all variables are known.

    Example:
        >>> os.environ["EXAMPLE_TOKN"] = "secret"
        >>> unknown_variable("EXAMPLE_", ["EXAMPLE_TOKEN"])
        'EXAMPLE_TOKN: there is no such variable: use EXAMPLE_TOKEN, or unset it'
        >>> del os.environ["EXAMPLE_TOKN"]
    """
    for name in sorted(os.environ):
        if name.startswith(prefix) and name not in known and not name.startswith(others):
            return f"{name}: there is no such variable: use {known_names(name, known)}, or unset it"
    return None
