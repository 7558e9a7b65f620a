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

_ABOUT_HEADERS = (
    "unknown JFIF revision number",
    "Unknown Adobe color transform code",
    "Invalid SOS parameters for sequential JPEG",
)
"""Parts of libjpeg's warnings about headers with odd values. The pixels are the same."""


class _Warnings(logging.Filter):
    """Keeps the warnings of libjpeg that the present thread causes while it reads."""

    def __init__(self) -> None:
        super().__init__()
        self._local = threading.local()

    def filter(self, record: logging.LogRecord) -> bool:
        """Keep a warning of damage. Return whether the program wants to log the record."""
        found: list[str] | None = getattr(self._local, "found", None)
        if found is not None:
            text = record.getMessage()
            if _MARK in text and not any(part in text for part in _ABOUT_HEADERS):
                found.append(text.partition(_MARK)[2])
        return logging.Logger.isEnabledFor(_LOGGER, record.levelno)

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


def _reaches_filter(level: int) -> bool:
    """Return whether rasterio's logger makes a record. The filter then drops what the program does not want to log."""
    return level >= logging.WARNING or logging.Logger.isEnabledFor(_LOGGER, level)


def _listen() -> None:
    """Let the warnings reach the filter, even if the program silences rasterio or all warnings."""
    if _WARNINGS not in _LOGGER.filters:
        _LOGGER.addFilter(_WARNINGS)
        _LOGGER.isEnabledFor = _reaches_filter  # type: ignore[method-assign]
    _LOGGER.disabled = False  # By default, `logging.config` disables all loggers that exist.


@contextmanager
def damage_is_an_error() -> Iterator[None]:
    """Raise an error at the end of the block if libjpeg warned of damage in a block of a TIFF.

    GDAL then has wrong pixels in its cache, so the caller must open the file again before it reads again.

    Raises:
        RasterioIOError: if a block is damaged.
    """
    _listen()
    with _WARNINGS.kept() as found:
        yield
    if found:
        raise RasterioIOError(f"a JPEG block is damaged: {found[0]}")
