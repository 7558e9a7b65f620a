"""Turn libjpeg's warnings about damaged blocks of a TIFF into errors.

GDAL reads on behind the damage in such a block, and gives wrong pixels. Its option GDAL_ERROR_ON_LIBJPEG_WARNING holds
for JPEG files only. For a block of a TIFF, GDAL gives a warning, which rasterio passes on to the log.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from rasterio.errors import RasterioIOError

_MARK = "JPEGLib:"
"""Mark of libtiff in GDAL's text of such a warning."""


class _Warnings(logging.Handler):
    """Keeps the warnings of libjpeg that the present thread causes while it reads."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._local = threading.local()

    def emit(self, record: logging.LogRecord) -> None:
        found: list[str] | None = getattr(self._local, "found", None)
        if found is not None:
            text = record.getMessage()
            if _MARK in text:
                found.append(text.partition(_MARK)[2])

    @contextmanager
    def kept(self) -> Iterator[list[str]]:
        """Keep the warnings of a block of code in the list that the block gets."""
        found: list[str] = []
        self._local.found = found
        try:
            yield found
        finally:
            self._local.found = None


_LOGGER = logging.getLogger("rasterio._err")
_WARNINGS = _Warnings()


@contextmanager
def damage_is_an_error() -> Iterator[None]:
    """Raise an error at the end of the block if libjpeg warned of damage in a block of a TIFF.

    GDAL then has wrong pixels in its cache, so the caller must open the file again before it reads again.

    Raises:
        RasterioIOError: if a block is damaged.
    """
    if _WARNINGS not in _LOGGER.handlers:
        _LOGGER.addHandler(_WARNINGS)
        _LOGGER.setLevel(logging.WARNING)  # Also if a program silences rasterio.
    with _WARNINGS.kept() as found:
        yield
    if found:
        raise RasterioIOError(f"a JPEG block is damaged: {found[0]}")
