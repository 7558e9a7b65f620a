"""Read files from web servers over https. Only hosts that the operator listed are read.

GDAL's own reader, /vsicurl, is not used: it follows redirects and looks names up inside libcurl, where no host and no
address can be checked. Here, every URL is checked before its request, also the target of each redirect. A name is
looked up once for each connection, and the connection goes to an address that was checked. Proxies of the environment
are not used, because a proxy would look the name up again.
"""

from __future__ import annotations

import hashlib
import http.client
import io
import os
import re
import socket
import ssl
import threading
import time
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import mktime_tz, parsedate_tz
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from rasterembed.errors import ObjectMissingError, RasterChangedError, StoreError, StoreUnavailableError
from rasterembed.store.https_url import checked_url, host_of, joined_url, resolve_host, shown_url
from rasterembed.store.storage import RETRY_DELAYS_S, ObjectInfo

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer

MAX_WHOLE_BYTES = 16 * 2**20
"""Largest file that is fetched as a whole from a server that sends no parts of files."""

MAX_REDIRECTS = 5
"""Largest number of redirects of one request."""

_CONNECT_S = 10.0
_READ_S = 60.0
"""Longest silence of a server, in seconds."""

_SLOWEST = 100_000
"""Slowest average speed of an answer, in bytes a second. An answer may take `_READ_S` longer than at this speed."""

_LONGEST_WAIT_S = 60.0
"""Longest time that is waited because a server asks for it in the header Retry-After, in seconds."""

_IDLE_S = 20.0
"""A connection that was not used for so many seconds is closed. Servers close idle connections too."""

_MOST_IDLE = 16
"""Largest number of open connections to one server that wait for their next request."""

_MOST_PENDING = 2**16
"""Bytes of an answer that is not used, such as a redirect's, which are read to keep the connection."""

_VERSION_LETTERS = 1000
"""Largest length of an ETag that becomes a version."""


@dataclass(frozen=True)
class Answer:
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
class _Request:
    """A request that is sent until it has an answer. See `HttpsClient.request`."""

    url: str
    headers: dict[str, str]
    body: bytes | None
    span: tuple[int, int] | None
    most: int

    @property
    def all_headers(self) -> dict[str, str]:
        """The headers to send."""
        usual = {"User-Agent": "rasterembed", "Accept-Encoding": "identity"}
        if self.span is not None:
            usual["Range"] = f"bytes={self.span[0]}-{sum(self.span) - 1}"
        return usual | self.headers

    def most_of(self, status: int) -> int:
        """Return the largest number of bytes to read of an answer with this status."""
        if status == 206 and self.span is not None:
            return self.span[1]
        return self.most if status == 200 else _MOST_PENDING


class HttpsClient:
    """Sends requests to listed hosts. Several threads may use it at the same time.

    Args:
        hosts: hosts that may be read, as `canonical_host` returns them.
        private: True if the hosts may have private and loopback addresses.
    """

    def __init__(self, hosts: tuple[str, ...], *, private: bool) -> None:
        self.hosts = hosts
        self._private = private
        self._context: ssl.SSLContext | None = None
        self._lock = threading.Lock()
        self._idle: dict[tuple[str, int], list[_Connection]] = {}
        self._process = os.getpid()

    def __del__(self) -> None:
        for idle in self._idle.values():
            for connection in idle:
                connection.close()

    def check(self, url: str) -> None:
        """Refuse an address on a host that is not listed. No request is sent.

        Raises:
            StoreError: if the address may not be read.
        """
        checked_url(url, self.hosts)

    def request(
        self,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        span: tuple[int, int] | None = None,
        most: int,
    ) -> Answer:
        """Send a request, follow redirects, and read the answer. Try again if the server does not answer.

        Args:
            url: the address. It may have a query.
            headers: headers to send, beside those that every request has.
            body: body of a POST request. None sends a GET request.
            span: position and length of the part of the file that is asked for. None asks for all of it.
            most: largest number of bytes of the answer's body to read. The connection is closed if the body is longer.

        Returns:
            The answer, with status 200 or 206.

        Raises:
            ObjectMissingError: if the server answers that the file does not exist.
            StoreError: if an address may not be read, or the server refuses. The text shows no query.
            StoreUnavailableError: if the server does not answer, after all retries.
        """
        request = _Request(url, dict(headers or {}), body, span, most)
        for delay in RETRY_DELAYS_S:
            try:
                return self._follow(request)
            except _AskedToWaitError as error:
                time.sleep(max(delay, error.seconds))
            except StoreUnavailableError:
                time.sleep(delay)
        return self._follow(request)

    def _follow(self, request: _Request) -> Answer:
        """Send a request once, and follow redirects. Every address is checked before it is requested."""
        target = request.url
        for _ in range(MAX_REDIRECTS + 1):
            target = checked_url(target, self.hosts)
            answer = self._once(request, target)
            if answer.status not in (301, 302, 303, 307, 308):
                _check_status(answer)
                return answer
            if request.body is not None and answer.status not in (307, 308):
                raise StoreError(f"{shown_url(request.url)}: the server moved this address: give the new one")
            target = joined_url(target, answer.headers.get("location", ""))
        raise StoreError(f"{shown_url(request.url)}: more than {MAX_REDIRECTS} redirects, probably in a circle")

    def _once(self, request: _Request, target: str) -> Answer:
        """Send one request. An idle connection may be dead, so its failure is followed by a try with a new one."""
        place = host_of(target)
        shown = shown_url(request.url)
        try:
            idle = self._take(place)
            if idle is not None:
                try:
                    return self._exchange(idle, request, target)
                except TimeoutError:
                    raise
                except (http.client.HTTPException, OSError):
                    pass  # The server closed the connection in the meantime.
            return self._exchange(self._connected(*place), request, target)
        except ssl.SSLCertVerificationError as error:
            raise StoreError(
                f"{shown}: the certificate of {place[0]} is not valid ({error.verify_message}): if you trust "
                "its authority, name the certificate of the authority in SSL_CERT_FILE"
            ) from error
        except (ssl.SSLEOFError, ssl.SSLZeroReturnError, ssl.SSLSyscallError) as error:
            raise StoreUnavailableError(f"{shown}: the connection to {place[0]} broke") from error
        except ssl.SSLError as error:
            raise StoreError(f"{shown}: TLS with {place[0]} failed ({error.reason})") from error
        except (http.client.HTTPException, OSError) as error:
            # The text of such an exception may quote the answer.
            raise StoreUnavailableError(
                f"{shown}: no answer ({type(error).__name__}): check the address, and that the server runs"
            ) from error

    def _exchange(self, connection: _Connection, request: _Request, target: str) -> Answer:
        """Send a request over a connection, and read the answer. Keep the connection if all of the answer was read."""
        parts = urlsplit(target)
        path = parts.path + (f"?{parts.query}" if parts.query else "")
        connection.deadline = time.monotonic() + _READ_S
        keep, response = False, None
        try:
            connection.request("GET" if request.body is None else "POST", path, request.body, request.all_headers)
            response = connection.getresponse()
            headers = {name.lower(): value for name, value in response.getheaders()}
            most = request.most_of(response.status)
            connection.deadline = time.monotonic() + _READ_S + most / _SLOWEST
            data = response.read(most)
            if response.length and len(data) < most:
                raise http.client.IncompleteRead(b"")  # The connection broke.
            complete = not response.length and not response.read(1)
            keep = complete and not response.will_close
            return Answer(request.url, response.status, headers, data, complete)
        finally:
            if keep:
                self._put_back(connection)
            else:
                connection.close()
                if response is not None:
                    response.close()

    def _connected(self, host: str, port: int) -> _Connection:
        """Open a connection to an address of the host that was checked."""
        addresses = resolve_host(host, port, private=self._private)
        if self._context is None:
            # It trusts the authorities of SSL_CERT_FILE, else those of certifi, as other Python programs do.
            import httpx  # It takes long to import, and most processes read nothing over https.

            self._context = httpx.create_ssl_context()
        for number, address in enumerate(addresses):
            try:
                plain = socket.create_connection((address, port), timeout=_CONNECT_S)
                break
            except OSError:
                if number == len(addresses) - 1:
                    raise
        try:
            secure = self._context.wrap_socket(plain, server_hostname=host)
        except BaseException:
            plain.close()
            raise
        return _Connection(host, port, _TimedSocket(secure))

    def _take(self, place: tuple[str, int]) -> _Connection | None:
        """Return an idle connection that is not too old, or None."""
        with self._lock:
            if self._process != os.getpid():
                # After a fork, two processes would speak on one connection.
                self._idle, self._process = {}, os.getpid()
            idle = self._idle.get(place, [])
            while idle:
                connection = idle.pop()
                if time.monotonic() - connection.used < _IDLE_S:
                    return connection
                connection.close()
        return None

    def _put_back(self, connection: _Connection) -> None:
        connection.used = time.monotonic()
        with self._lock:
            idle = self._idle.setdefault((connection.host, connection.port), [])
            idle.append(connection)
            if len(idle) > _MOST_IDLE:
                idle.pop(0).close()

    def fetch(self, url: str, start: int, length: int) -> FilePart:
        """Fetch a part of a file, or the whole file if the server sends no parts.

        Args:
            url: the address.
            start: position of the first byte.
            length: number of bytes. The file may end earlier.

        Raises:
            ObjectMissingError: if the file does not exist.
            StoreError: if the file may not be read, or the server's answer cannot be used.
        """
        try:
            answer = self.request(url, span=(start, length), most=MAX_WHOLE_BYTES)
        except _EmptyRangeError:
            # A file that is not empty and ends before `start` was changed since it was opened.
            return FilePart(ObjectInfo(0, "empty", 0.0), b"", whole=True)
        return _part(answer, start, length) if answer.status == 206 else _whole(answer)

    def describe(self, url: str) -> ObjectInfo:
        """Return size and version of a file, by a request for its first byte.

        Raises:
            ObjectMissingError: if the file does not exist.
            StoreError: if the file may not be read.
        """
        return self.fetch(url, 0, 1).info


@dataclass(frozen=True)
class FilePart:
    """A part of a file, and the state of the whole file."""

    info: ObjectInfo
    """Size and version of the file. The version is its ETag, else the time of its last modification, else a digest."""
    data: bytes
    whole: bool
    """Whether `data` is the whole file, because the server sends no parts."""


class _EmptyRangeError(StoreError):
    """The server answered that the file has no byte in the range."""


class _AskedToWaitError(StoreUnavailableError):
    """The server asked to wait before the next request."""

    def __init__(self, text: str, seconds: float) -> None:
        super().__init__(text)
        self.seconds = seconds
        """Seconds to wait."""


class _Connection(http.client.HTTPConnection):
    """A connection over a socket that speaks TLS already."""

    def __init__(self, host: str, port: int, connected: _TimedSocket) -> None:
        super().__init__(host, port)
        self.default_port = 443
        self.sock: Any = connected
        self._timed = connected  # http.client forgets `sock` when an answer is the last one of its connection.
        self.auto_open = 0  # It would connect again without a check.
        self.used = time.monotonic()
        """Time of the last use, as `time.monotonic` gives it."""

    @property
    def deadline(self) -> float:
        """Time at which the answer must be complete, as `time.monotonic` gives it."""
        return self._timed.deadline

    @deadline.setter
    def deadline(self, moment: float) -> None:
        self._timed.deadline = moment


class _TimedSocket:
    """A socket whose operations all end before a deadline. Otherwise a server could send a byte a minute for ever."""

    def __init__(self, secure: ssl.SSLSocket) -> None:
        self._socket = secure
        self._users = 1
        self.deadline = time.monotonic() + _READ_S

    def _limit(self) -> None:
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("the answer takes too long")
        self._socket.settimeout(min(left, _READ_S))

    def sendall(self, data: ReadableBuffer) -> None:
        self._limit()
        self._socket.sendall(data)

    def receive_into(self, buffer: WriteableBuffer) -> int:
        self._limit()
        return self._socket.recv_into(buffer)

    def makefile(self, mode: str) -> io.BufferedReader:
        assert mode == "rb"
        self._users += 1
        return io.BufferedReader(_SocketReader(self))

    def close(self) -> None:
        # http.client closes the socket before the answer is read, if the answer is the last one of the connection.
        self._users -= 1
        if self._users == 0:
            self._socket.close()


class _SocketReader(io.RawIOBase):
    def __init__(self, source: _TimedSocket) -> None:
        self._source = source

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        return self._source.receive_into(buffer)

    def close(self) -> None:
        if not self.closed:
            super().close()
            self._source.close()


def _check_status(answer: Answer) -> None:
    """Raise an error for a status that is no success."""
    status, shown = answer.status, shown_url(answer.url)
    if status in (200, 206):
        return
    if status in (404, 410):
        raise ObjectMissingError(f"{shown}: there is no such file (HTTP {status})")
    if status in (401, 403):
        raise StoreError(f"{shown}: access denied (HTTP {status}): only files that need no key are read from https://")
    if status == 416:
        raise _EmptyRangeError(f"{shown}: the file ends before the bytes that were asked for")
    if status in (408, 425, 429) or status >= 500:
        text = f"{shown}: the server does not answer now (HTTP {status})"
        wait = _retry_after(answer.headers.get("retry-after", ""))
        raise StoreUnavailableError(text) if wait is None else _AskedToWaitError(text, wait)
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


def _part(answer: Answer, start: int, length: int) -> FilePart:
    """Return the part of a file that an answer with the status 206 holds."""
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
        raise StoreUnavailableError(f"{shown}: {len(answer.data)} bytes were received instead of {expected}")
    version = _version(answer)
    if version is None:
        raise StoreError(
            f"{shown}: the server sends no ETag and no Last-Modified, so a change of the file would not be noticed: "
            "copy the file"
        )
    return FilePart(ObjectInfo(size, *version), answer.data, whole=False)


def _whole(answer: Answer) -> FilePart:
    """Return the whole file that an answer with the status 200 holds."""
    shown = shown_url(answer.url)
    if not answer.complete:
        raise StoreError(
            f"{shown}: the server sends no parts of files (HTTP ranges), and the file has more than "
            f"{MAX_WHOLE_BYTES // 2**20} MiB: copy the file"
        )
    data = decoded(answer, MAX_WHOLE_BYTES)
    version = _version(answer) or (f"sha256-{hashlib.sha256(data).hexdigest()}", 0.0)
    return FilePart(ObjectInfo(len(data), *version), data, whole=True)


def decoded(answer: Answer, most: int) -> bytes:
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


def _version(answer: Answer) -> tuple[str, float] | None:
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
