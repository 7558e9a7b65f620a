"""A file on a server that is read as a local file: each read fetches its bytes by their position."""

from __future__ import annotations

import io
from abc import abstractmethod
from typing import TYPE_CHECKING

from rasterembed.store.storage import ObjectInfo

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer


class RangeFile(io.RawIOBase):
    """A seekable binary file without a buffer.

    Args:
        info: size and version of the file when it was opened.
    """

    def __init__(self, info: ObjectInfo) -> None:
        self.info = info
        """Size and version of the file when it was opened."""
        self._position = 0

    @abstractmethod
    def _fetch(self, start: int, length: int) -> bytes:
        """Return the bytes of a range, which has at least one byte and ends inside the file."""

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def tell(self) -> int:
        """Return the position in bytes from the start."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Set the position and return it. No request is sent."""
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self.info.size}[whence]
        self._position = max(0, start + offset)
        return self._position

    def read(self, size: int = -1, /) -> bytes:
        """Return the next bytes. At the end of the file there are none. A negative size reads the rest of the file."""
        left = self.info.size - self._position
        length = left if size < 0 else min(size, left)
        if length <= 0:
            return b""
        data = self._fetch(self._position, length)
        self._position += len(data)
        return data

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        """Read bytes into the buffer and return their number. At the end of the file it is 0."""
        view = memoryview(buffer).cast("B")
        data = self.read(len(view))
        view[: len(data)] = data
        return len(data)

    def readall(self) -> bytes:
        """Return the rest of the file."""
        return self.read()
