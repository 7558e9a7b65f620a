"""Let GDAL read a file on a web server through `RemoteFile`, so that GDAL itself opens no connection."""

from __future__ import annotations

from typing import Any

from rasterio.abc import MultiByteRangeResourceContainer

from rasterembed.errors import DataError, RasterEmbedError
from rasterembed.store.https_file import RemoteFile
from rasterembed.store.range_file import RangeFile


class GdalOpener(MultiByteRangeResourceContainer):  # type: ignore[misc]  # rasterio ships no types
    """Opens one file for GDAL, and no other. GDAL gets every other name as a missing file.

    GDAL cannot pass a Python exception on. An error while GDAL reads is kept in `problem`, and GDAL gets no bytes.
    Whoever opened the raster must look at `problem` at the end.

    Args:
        file: the file.
    """

    def __init__(self, file: RemoteFile) -> None:
        self._file = file
        self.problem: RasterEmbedError | None = None
        """The first error while GDAL read, or None."""

    def open(self, path: str, mode: str = "r", **_: Any) -> _GdalFile:
        """Open the file for GDAL."""
        if path != self._file.url or "w" in mode or "+" in mode:
            raise FileNotFoundError(path)
        return _GdalFile(self, self._file)

    def isfile(self, path: str) -> bool:
        """Return whether it is the file."""
        return path == self._file.url

    def isdir(self, path: str) -> bool:
        """Return False: the file has no folder."""
        return False

    def ls(self, path: str) -> list[str]:
        """Return no names: the files beside the raster are never looked for."""
        return []

    def mtime(self, path: str) -> int:
        """Return the time of the last modification, in seconds since 1970."""
        return int(self._file.info.modified)

    def rm(self, path: str) -> None:
        """Refuse to remove the file."""
        raise PermissionError(path)

    def size(self, path: str) -> int:
        """Return the size in bytes."""
        return self._file.info.size


class _GdalFile(RangeFile):
    """The file while GDAL reads it."""

    def __init__(self, opener: GdalOpener, file: RemoteFile) -> None:
        super().__init__(file.info)
        self._opener, self._file = opener, file

    def _fetch(self, start: int, length: int) -> bytes:
        """Return the bytes of a range. After an error there are none, which GDAL takes for a damaged file."""
        if self._opener.problem is not None:
            return b""
        try:
            return self._file.read(start, length)
        except RasterEmbedError as error:
            self._opener.problem = error
            return b""

    def get_byte_ranges(self, offsets: list[int], sizes: list[int]) -> list[bytes]:
        """Return the bytes of several blocks. After an error they are zeros, and `problem` says that they are wrong."""
        if self._opener.problem is None:
            try:
                found = self._file.read_ranges(list(zip(offsets, sizes, strict=True)))
                if all(len(data) == size for data, size in zip(found, sizes, strict=True)):
                    return found
                self._opener.problem = DataError(f"{self._file.url}: it is damaged: a block lies behind its end")
            except RasterEmbedError as error:
                self._opener.problem = error
        return [bytes(size) for size in sizes]
