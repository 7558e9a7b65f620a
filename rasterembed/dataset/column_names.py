"""Check the names of columns that a person gives."""

from __future__ import annotations

from collections.abc import Sequence

from rasterembed.errors import UsageError


def column_list(columns: Sequence[str]) -> list[str]:
    """Return the names of columns as a list.

    Raises:
        UsageError: if the names are one text. Its letters would be taken as names.
    """
    if isinstance(columns, str):
        raise UsageError(f"the columns are a list of names: give [{columns!r}], not {columns!r}")
    return list(columns)


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
