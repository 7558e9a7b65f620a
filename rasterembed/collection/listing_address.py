"""The address of a listing: a folder, a pattern, a raster, or a document that names scenes."""

from __future__ import annotations

import os
from functools import cache

from rasterembed.name_pattern import fits_pattern
from rasterembed.store.collection_rules import is_scene
from rasterembed.store.https_url import is_https
from rasterembed.store.layout import is_pattern

_DOCUMENT_SUFFIXES = (".txt", ".json", ".geojson", ".parquet")
"""Endings of documents that name scenes anywhere."""


def is_file_pattern(address: str) -> bool:
    """Return whether an address is a pattern. The name of a file or folder can have the same characters."""
    return is_pattern(address) and not is_https(address) and not os.path.exists(address)


def lies_at(uri: str, address: str) -> bool:
    """Return whether a listing finds a file by the place where it lies. No file is looked at.

    Args:
        uri: absolute path, or s3://bucket/key.
        address: address of the listing in its full form. A document names scenes anywhere, so no file lies there.

    Example:
        >>> lies_at("/data/2026/a.tif", "/data"), lies_at("/data/2026/a.tif", "/data/*.tif")
        (True, False)
    """
    if is_file_pattern(address):
        return fits_path(tuple(uri.split("/")), tuple(address.split("/")))
    if is_https(address) or address.lower().endswith(_DOCUMENT_SUFFIXES):
        return False
    return uri == address or (is_scene(uri) and uri.startswith(f"{address.rstrip('/')}/"))


def fits_path(parts: tuple[str, ...], pattern: tuple[str, ...]) -> bool:
    """Return whether the segments of a path fit those of a pattern. `**` stands for any number of segments."""

    @cache  # Without it, a pattern with many `**` would take exponential time.
    def fits(part: int, place: int) -> bool:
        if place == len(pattern):
            return part == len(parts)
        if pattern[place] == "**":
            return fits(part, place + 1) or (part < len(parts) and fits(part + 1, place))
        return part < len(parts) and fits_pattern(parts[part], pattern[place]) and fits(part + 1, place + 1)

    return fits(0, 0)
