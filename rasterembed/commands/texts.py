"""Small texts for a terminal that several commands print."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def text_table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table as text: one line for the heads and one for each row, with two spaces between columns.

    Example:
        >>> print(text_table(("id", "rows"), [("a", "4"), ("long", "16")]))
        id    rows
        a     4
        long  16
    """
    widths = [max(len(row[column]) for row in (heads, *rows)) for column in range(len(heads))]
    lines = ["  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)) for row in (heads, *rows)]
    return "\n".join(line.rstrip() for line in lines)


def pairs(values: dict[str, Any]) -> str:
    """Return a mapping as text. Commas separate the pairs of a name and a value.

    Example:
        >>> pairs({"size": 224, "stride": None, "edge": "pad"})
        'size 224, edge pad'
    """
    return ", ".join(f"{name} {value}" for name, value in values.items() if value is not None)
