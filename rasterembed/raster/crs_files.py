"""Find coordinate reference systems (CRSs) that name files, before any library reads them.

A CRS may name a file: the grid of a datum shift, or a file of definitions (`+init=`). PROJ opens whatever file is
named, and waits for ever at a named pipe. A raster may have been uploaded by a stranger, so a CRS that names a file by
its path is refused. A bare file name (`egm96_15.gtx`) is accepted: PROJ looks for it among its own data only.

GDAL looks at the grids already when it opens a raster. So the text of the CRS must be checked in the file itself.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from typing import IO

from rasterembed.errors import DataError

_QUOTED_FILE = re.compile(
    r"""(?:PARAMETERFILE\s*[\[(]\s*"(?:[^"]|"")*"|"PROJ4_GRIDS")\s*,\s*"((?:[^"]|"")*)\"""", re.IGNORECASE
)
"""A file that WKT names: `PARAMETERFILE["name", "file"]` or `EXTENSION["PROJ4_GRIDS", "file"]`."""

_PROJ_FILE = re.compile(
    r"\b(?:init|nadgrids|geoidgrids|grids|xy_grids|z_grids|file|model|catalog)\s*=([^+\])]*)", re.IGNORECASE
)
"""A file that a PROJ string names, such as `+nadgrids=file`."""

_MAX_TEXT_BYTES = 2**20
"""Longest text of a CRS. A real one has some kilobytes."""

_MAX_BOXES = 4096
"""Most boxes of a JPEG 2000 file."""

_JPEG_2000 = b"\0\0\0\x0cjP  \r\n\x87\n"
"""First bytes of a JPEG 2000 file."""

_GEO_BOX = bytes.fromhex("b14bf8bd083d4b43a5ae8cd7d5a6ce03")
"""First bytes of a box that holds georeferencing in the form of a small GeoTIFF."""


def named_path(text: str) -> str | None:
    """Return the first path that a CRS names, or None.

    Args:
        text: WKT of any version, a PROJ string, or text around one.

    Example:
        >>> from rasterembed.raster.crs_files import named_path
        >>> named_path("+proj=longlat +ellps=WGS84 +nadgrids=/data/shift.gsb")
        '/data/shift.gsb'
        >>> named_path("+proj=merc +nadgrids=@null")
    """
    for pattern in (_QUOTED_FILE, _PROJ_FILE):
        for found in pattern.finditer(text):
            value = found[1].strip(' "')
            if re.search(r"[/\\~]", value):
                return value
    return None


def check_crs_files(file: IO[bytes], geo_text: bytes, uri: str) -> None:
    """Refuse a raster whose CRS names a file by its path. GDAL must not have opened the raster yet.

    Args:
        file: the raster's file, opened to read bytes.
        geo_text: text of its GeoTIFF keys; empty for another format.
        uri: its name in errors.

    Raises:
        DataError: if its CRS names a file.
    """
    for text in (geo_text, *_geo_boxes(file, uri)):
        if len(text) > _MAX_TEXT_BYTES:
            raise DataError(f"{uri}: its georeferencing has {len(text)} bytes of text: the file is damaged")
        path = named_path(text.decode("latin-1"))
        if path is not None:
            raise DataError(f"{uri}: {refusal(path)}")


def refusal(path: str) -> str:
    """Return why a CRS that names a path is refused, and what to do."""
    return (
        f"its CRS names a file ({path[:100]!r}), and no file but the raster is opened: assign a CRS without a file "
        "(rio edit-info --crs EPSG:... FILE)"
    )


def _geo_boxes(file: IO[bytes], uri: str) -> Iterator[bytes]:
    """Yield the georeferencing of a JPEG 2000 file. Other formats have none."""
    file.seek(0)
    if file.read(len(_JPEG_2000)) != _JPEG_2000:
        return
    position = 0
    for _ in range(_MAX_BOXES):
        file.seek(position)
        head = file.read(16)
        if len(head) < 8:
            return
        length, kind = struct.unpack(">I4s", head[:8])
        start = position + 8
        if length == 1 and len(head) == 16:
            length, start = struct.unpack(">Q", head[8:])[0], position + 16
        if kind == b"uuid":
            file.seek(start)
            # One byte more than is allowed shows that the text is too long. A length of 0 means "to the end".
            content = file.read(min(position + length - start if length else _MAX_TEXT_BYTES + 1, _MAX_TEXT_BYTES + 1))
            if content.startswith(_GEO_BOX):
                yield content
        if length < 8:
            return
        position += length
    raise DataError(f"{uri}: it has more than {_MAX_BOXES} boxes: the file is damaged")
