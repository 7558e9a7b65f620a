"""Check the names of columns that a person gives."""

from __future__ import annotations

from collections.abc import Sequence

from rasterembed.errors import UsageError


def check_columns(owner: str, columns: Sequence[str], known: Sequence[str]) -> None:
    """Refuse a column that does not exist. pyarrow leaves out such a column without a word.

    Args:
        owner: what has the columns, for the error, such as `dataset 'scene'`.
        columns: names of the columns to read.
        known: names of the existing columns.

    Raises:
        UsageError: if a column does not exist.
    """
    for name in columns:
        if name not in known:
            raise UsageError(f"{owner} has no column {name!r}: choose from {', '.join(known)}")
