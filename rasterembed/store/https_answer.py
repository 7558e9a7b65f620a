"""The answer of a web server to a request for a file: its status, its bytes, and the version of the file."""

from __future__ import annotations

import hashlib
import re
import time
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import mktime_tz, parsedate_tz

from rasterembed.errors import ObjectMissingError, RasterChangedError, StoreError, StoreUnavailableError
from rasterembed.store.https_url import shown_url
from rasterembed.store.storage import ObjectInfo

_LONGEST_WAIT_S = 60.0
"""Longest time that is waited because a server asks for it in the header Retry-After, in seconds."""

_VERSION_LETTERS = 1000
"""Largest length of an ETag that becomes a version."""


@dataclass(frozen=True)
class HttpsAnswer:
    """The answer of a server to a request for a file or a document."""

    url: str
    """The address that was asked for, before any redirect."""
    status: int
    headers: Mapping[str, str]
    """Headers by name in lower case."""
    data: bytes
    """The body, or its first bytes."""
    complete: bool
    """Whether `data` is the whole body."""


@dataclass(frozen=True)
class FilePart:
    """A part of a file, and the state of the whole file."""

    info: ObjectInfo
    """Size and version of the file. The version is its ETag, else the time of its last modification, else a digest."""
    data: bytes
    whole: bool
    """Whether `data` is the whole file, because the server sends no parts."""


class EmptyRangeError(StoreError):
    """The server answered that the file has no byte in the range."""


class AskedToWaitError(StoreUnavailableError):
    """The server asked to wait before the next request."""

    def __init__(self, text: str, seconds: float) -> None:
        super().__init__(text)
        self.seconds = seconds
        """Seconds to wait."""


def check_status(answer: HttpsAnswer) -> None:
    """Refuse an answer whose status is no success.

    Raises:
        ObjectMissingError: if the file does not exist.
        EmptyRangeError: if the file has no byte in the range that was asked for.
        StoreUnavailableError: if the same request may succeed later.
        StoreError: if the server refused.
    """
    status, shown = answer.status, shown_url(answer.url)
    if status in (200, 206):
        return
    if status in (404, 410):
        raise ObjectMissingError(f"{shown}: there is no such file (HTTP {status})")
    if status in (401, 403):
        raise StoreError(f"{shown}: access denied (HTTP {status}): only files that need no key are read from https://")
    if status == 416:
        raise EmptyRangeError(f"{shown}: the file ends before the bytes that were asked for")
    if status in (408, 425, 429) or status >= 500:
        text = f"{shown}: the server does not answer now (HTTP {status})"
        wait = _retry_after(answer.headers.get("retry-after", ""))
        raise StoreUnavailableError(text) if wait is None else AskedToWaitError(text, wait)
    raise StoreError(f"{shown}: the server refused (HTTP {status})")


def _retry_after(text: str) -> float | None:
    """Return the seconds that the header Retry-After asks for, at most `_LONGEST_WAIT_S`; or None."""
    if re.fullmatch(r"\d{1,9}", text.strip()):
        return min(float(text), _LONGEST_WAIT_S)
    moment = _time(text)
    return None if moment is None else min(max(0.0, moment - time.time()), _LONGEST_WAIT_S)


def _time(text: str) -> float | None:
    """Return a time of HTTP, such as `Mon, 01 Jun 2026 12:00:00 GMT`, in seconds since 1970; or None."""
    try:
        parts = parsedate_tz(text)
        return None if parts is None else float(mktime_tz(parts))
    except (ValueError, OverflowError, TypeError):
        return None


def part_of(answer: HttpsAnswer, start: int, length: int) -> FilePart:
    """Return the part of a file that an answer with the status 206 holds.

    Args:
        answer: the answer.
        start: position of the first byte that was asked for.
        length: number of bytes that were asked for. The file may end earlier.

    Raises:
        StoreError: if the answer holds another part, or does not tell the version of the file.
        StoreUnavailableError: if bytes are missing.
    """
    shown = shown_url(answer.url)
    match = re.fullmatch(r"bytes (\d{1,19})-(\d{1,19})/(\d{1,19})", answer.headers.get("content-range", "").strip())
    if match is None:
        raise StoreError(f"{shown}: the server does not say which part of the file it sent, or how long the file is")
    first, last, size = map(int, match.groups())
    expected = min(length, size - start)
    if answer.headers.get("content-encoding", "identity").lower() not in ("", "identity"):
        raise StoreError(f"{shown}: the server sends a compressed form of the file, whose parts cannot be read")
    if first != start or last - first + 1 != expected:
        raise StoreError(f"{shown}: the server sent another part of the file than was asked for")
    if len(answer.data) != expected or not answer.complete:
        raise StoreUnavailableError(f"{shown}: {len(answer.data)} bytes arrived instead of {expected}")
    version = _version(answer)
    if version is None:
        raise StoreError(
            f"{shown}: the server sends no ETag and no Last-Modified, so a change of the file would not be noticed: "
            "copy the file"
        )
    return FilePart(ObjectInfo(size, *version), answer.data, whole=False)


def whole_of(answer: HttpsAnswer, most: int) -> FilePart:
    """Return the whole file that an answer with the status 200 holds.

    Args:
        answer: the answer.
        most: largest number of bytes of the file.

    Raises:
        StoreError: if the file is larger, or if the answer is damaged.
    """
    shown = shown_url(answer.url)
    if not answer.complete:
        raise StoreError(
            f"{shown}: the server sends no parts of files (HTTP ranges), and the file has more than "
            f"{most // 2**20} MiB: copy the file"
        )
    data = decoded(answer, most)
    version = _version(answer) or (f"sha256-{hashlib.sha256(data).hexdigest()}", 0.0)
    return FilePart(ObjectInfo(len(data), *version), data, whole=True)


def decoded(answer: HttpsAnswer, most: int) -> bytes:
    """Return the body of an answer without its compression.

    Args:
        answer: the answer.
        most: largest number of bytes of the body without its compression.

    Raises:
        StoreError: if the body is compressed in another way than gzip, or is damaged.
    """
    shown = shown_url(answer.url)
    encoding = answer.headers.get("content-encoding", "").strip().lower()
    if encoding in ("", "identity"):
        return answer.data
    if encoding not in ("gzip", "x-gzip"):
        raise StoreError(
            f"{shown}: the server compresses its answer as {encoding[:20]!r}, although nobody asked for it"
        )
    reader = zlib.decompressobj(wbits=31)
    try:
        data = reader.decompress(answer.data, most)
    except zlib.error as error:
        raise StoreError(f"{shown}: the compressed answer is damaged") from error
    if not reader.eof:
        raise StoreError(f"{shown}: the compressed answer is damaged, or too long")
    return data


def _version(answer: HttpsAnswer) -> tuple[str, float] | None:
    """Return the version of a file, and the time of its last modification in seconds since 1970, or 0.

    A strong ETag is used first. A weak one stays the same while bytes change, so the time is used instead.
    """
    modified = _time(answer.headers.get("last-modified", ""))
    etag = answer.headers.get("etag", "").strip()
    if re.fullmatch(r'"[^"]+"', etag) and etag.isprintable() and len(etag) <= _VERSION_LETTERS:
        return etag.strip('"'), modified or 0.0
    return None if modified is None else (f"modified-{modified:.0f}", modified)


def check_same(url: str, opened: ObjectInfo, now: ObjectInfo) -> None:
    """Refuse a file that was changed while it was read.

    Raises:
        RasterChangedError: if size or version changed.
    """
    if (opened.size, opened.version) != (now.size, now.version):
        raise RasterChangedError(f"{url}: the file was changed while it was read: run again to read its new state")
