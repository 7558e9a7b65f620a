"""Names that a person typed in one text, with commas between them."""

from __future__ import annotations


def split_commas(text: str) -> tuple[str, ...]:
    """Return the names in a text, without the spaces around them. Empty names are left out.

    Example:
        >>> split_commas("red, green,")
        ('red', 'green')
    """
    return tuple(name for name in map(str.strip, text.split(",")) if name)
