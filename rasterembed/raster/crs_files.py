"""Refuse a coordinate reference system (CRS) that names a file, before GDAL or PROJ reads the CRS.

A CRS may name a file: the grid of a datum shift, or a file with definitions (`+init=`). PROJ opens any file that is
named, and waits forever if it is a named pipe. A stranger may have uploaded the raster. A CRS that names a file by its
path is therefore refused. A file name without a path (`egm96_15.gtx`) is accepted, because PROJ looks for it only among
PROJ's own data.

GDAL already looks at the grids when it opens a raster. The text of the CRS must therefore be read without GDAL.
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
"""Largest size of the text of a CRS, in bytes. A real CRS has a few kilobytes of text."""

_MAX_BOXES = 4096
"""Largest number of boxes that a JPEG 2000 file may have. A box is a section of the file."""

_JPEG_2000 = b"\0\0\0\x0cjP  \r\n\x87\n"
"""First bytes of a JPEG 2000 file."""

_GEO_BOX = bytes.fromhex("b14bf8bd083d4b43a5ae8cd7d5a6ce03")
"""UUID at the start of a box with georeferencing. The georeferencing is stored as a small GeoTIFF."""


def named_path(text: str) -> str | None:
    """Return the first path that a CRS names, or None.

    Args:
        text: WKT of any version, a PROJ string, or a text that contains one of them.

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
    """Refuse a raster whose CRS names a file by its path. Call this function before GDAL opens the raster.

    Args:
        file: the raster's file, opened in binary mode.
        geo_text: text of the raster's GeoTIFF keys. It is empty if the raster is not a TIFF.
        uri: address of the raster, for errors.

    Raises:
        DataError: if the CRS names a file by its path, or if the georeferencing is damaged.
    """
    for text in (geo_text, *_geo_boxes(file, uri)):
        if len(text) > _MAX_TEXT_BYTES:
            raise DataError(f"{uri}: its georeferencing has {len(text)} bytes of text: the file is damaged")
        path = named_path(text.decode("latin-1"))
        if path is not None:
            raise DataError(f"{uri}: {refusal(path)}")


def refusal(path: str) -> str:
    """Return the error text for a CRS that names a path: the reason, and what to do."""
    return (
        f"its CRS names a file ({path[:100]!r}), and no file but the raster is opened: assign a CRS without a file "
        "(rio edit-info --crs EPSG:... FILE)"
    )


def _geo_boxes(file: IO[bytes], uri: str) -> Iterator[bytes]:
    """Yield each box with georeferencing of a JPEG 2000 file. Yield nothing for any other format."""
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
            # Read one byte more than is allowed, so that `check_crs_files` sees when the text is too long. A length of
            # 0 means that the box ends with the file.
            content = file.read(min(position + length - start if length else _MAX_TEXT_BYTES + 1, _MAX_TEXT_BYTES + 1))
            if content.startswith(_GEO_BOX):
                yield content
        if length < 8:
            return
        position += length
    raise DataError(f"{uri}: it has more than {_MAX_BOXES} boxes: the file is damaged")
