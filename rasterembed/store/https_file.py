"""A file on a web server that is read as a local file. Each read fetches a part, and small parts are kept."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from rasterembed.store.https import HttpsClient
from rasterembed.store.https_answer import check_same
from rasterembed.store.range_file import RangeFile
from rasterembed.store.storage import ObjectInfo

_CHUNK_BYTES = 2**16
"""Size of the parts that are kept. In most files, the first part holds the header and the block index."""

_KEPT_CHUNKS = 256
"""Largest number of parts that are kept, 16 MiB."""

_MOST_AHEAD = 64
"""Largest number of parts that one request fetches ahead of a reader that goes through a file, 4 MiB."""

_LARGE_BYTES = 2**20
"""A read of at least so many bytes fetches exactly these bytes, and keeps nothing."""

_NEAR_BYTES = 2**15
"""Two ranges are fetched by one request if fewer bytes than these lie between them."""

_REQUESTS = 8
"""Largest number of ranges that are fetched at the same time."""


class RemoteFile:
    """The content of a file on a web server, in one state.

    Args:
        client: sends the requests, and checks every address.
        url: canonical https:// address.

    Raises:
        ObjectMissingError: if the file does not exist.
        StoreError: if the file may not be read.
    """

    def __init__(self, client: HttpsClient, url: str) -> None:
        self._client = client
        self.url = url
        first = client.fetch(url, 0, _CHUNK_BYTES)
        self.info: ObjectInfo = first.info
        """Size and version of the file when it was opened."""
        self._whole = first.data if first.whole else None
        self._first = first.data
        self._kept: OrderedDict[int, bytes] = OrderedDict()
        self._ahead = 1
        self._next = 1
        self._lock = threading.Lock()

    def read(self, start: int, length: int) -> bytes:
        """Return the bytes of a range. At the end of the file there are fewer.

        Raises:
            RasterChangedError: if the file was changed since it was opened.
            StoreError: if the server refuses or does not answer.
        """
        length = min(length, self.info.size - start)
        if length <= 0:
            return b""
        if self._whole is not None:
            return self._whole[start : start + length]
        if start + length <= len(self._first):
            return self._first[start : start + length]
        if length >= _LARGE_BYTES:
            return self._fetch(start, length)
        first, last = start // _CHUNK_BYTES, (start + length - 1) // _CHUNK_BYTES
        with self._lock:
            data = b"".join(self._chunk(number, last) for number in range(first, last + 1))
        offset = start - first * _CHUNK_BYTES
        return data[offset : offset + length]

    def read_ranges(self, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """Return the bytes of several ranges. Ranges that are near each other are fetched by one request.

        Args:
            ranges: position and length of each range, in bytes.
        """
        groups: list[list[tuple[int, int]]] = []
        for start, length in sorted(set(ranges)):
            if groups and start - max(first + size for first, size in groups[-1]) <= _NEAR_BYTES:
                groups[-1].append((start, length))
            else:
                groups.append([(start, length)])

        def fetch(group: list[tuple[int, int]]) -> dict[tuple[int, int], bytes]:
            begin = group[0][0]
            data = self._read_exactly(begin, max(start + length for start, length in group) - begin)
            return {(start, length): data[start - begin : start - begin + length] for start, length in group}

        found: dict[tuple[int, int], bytes] = {}
        if len(groups) == 1:
            found = fetch(groups[0])
        else:
            with ThreadPoolExecutor(_REQUESTS, thread_name_prefix="https") as pool:
                for part in pool.map(fetch, groups):
                    found |= part
        return [found[each] for each in ranges]

    def _read_exactly(self, start: int, length: int) -> bytes:
        """Return the bytes of a range without reading ahead."""
        length = min(length, self.info.size - start)
        if self._whole is not None or start + length <= len(self._first):
            return self.read(start, length)
        return self._fetch(start, length) if length > 0 else b""

    def _chunk(self, number: int, last: int) -> bytes:
        """Return a kept part. If it is missing, fetch it with those that follow, up to `last` and ahead of it."""
        if number == 0:
            return self._first
        if number in self._kept:
            self._kept.move_to_end(number)
            return self._kept[number]
        # A reader that goes through the file asks for one part after the other. Each request then fetches twice as
        # many parts as the one before.
        self._ahead = min(2 * self._ahead, _MOST_AHEAD) if number == self._next else 1
        count = max(last - number + 1, self._ahead)
        start = number * _CHUNK_BYTES
        data = self._fetch(start, min(count * _CHUNK_BYTES, self.info.size - start))
        for offset in range(0, len(data), _CHUNK_BYTES):
            self._kept[number + offset // _CHUNK_BYTES] = data[offset : offset + _CHUNK_BYTES]
        while len(self._kept) > _KEPT_CHUNKS:
            self._kept.popitem(last=False)
        self._next = number + count
        return data[:_CHUNK_BYTES]

    def _fetch(self, start: int, length: int) -> bytes:
        part = self._client.fetch(self.url, start, length)
        check_same(self.url, self.info, part.info)
        return part.data[start : start + length] if part.whole else part.data


class HttpsFile(RangeFile):
    """A `RemoteFile` as a seekable binary file for Python's readers.

    Args:
        file: the content.
    """

    def __init__(self, file: RemoteFile) -> None:
        super().__init__(file.info)
        self._file = file

    def _fetch(self, start: int, length: int) -> bytes:
        return self._file.read(start, length)
