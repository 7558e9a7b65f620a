"""Read files from web servers over https. Only hosts that the operator listed are read.

GDAL's own reader, /vsicurl, is not used: it follows redirects and looks names up inside libcurl, where no host and no
address can be checked. Here, every URL is checked before its request, also the target of each redirect. A name is
looked up once for each connection, and the connection goes to an address that was checked. Proxies of the environment
are not used, because a proxy would look the name up again.
"""

from __future__ import annotations

import http.client
import os
import socket
import ssl
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from rasterembed.errors import StoreError, StoreUnavailableError
from rasterembed.store.https_answer import (
    AskedToWaitError,
    EmptyRangeError,
    FilePart,
    HttpsAnswer,
    check_status,
    part_of,
    whole_of,
)
from rasterembed.store.https_connection import Connection, TimedSocket
from rasterembed.store.https_url import checked_url, host_of, joined_url, resolve_host, shown_url
from rasterembed.store.storage import RETRY_DELAYS_S, ObjectInfo

MAX_WHOLE_BYTES = 16 * 2**20
"""Largest file that is fetched as a whole from a server that sends no parts of files."""

MAX_REDIRECTS = 5
"""Largest number of redirects of one request."""

_CONNECT_S = 10.0
"""Longest time to open a connection to one address of a server, in seconds."""

_READ_S = 60.0
"""Longest silence of a server, in seconds."""

_SLOWEST = 100_000
"""Slowest average speed of an answer, in bytes a second. An answer may take `_READ_S` longer than at this speed."""

_IDLE_S = 20.0
"""A connection that was not used for so many seconds is closed. Servers close idle connections too."""

_MOST_IDLE = 16
"""Largest number of open connections to one server that wait for their next request."""

_MOST_PENDING = 2**16
"""Bytes of an answer that is not used, such as a redirect's, which are read to keep the connection."""


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
        self._idle: dict[tuple[str, int], list[Connection]] = {}
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
    ) -> HttpsAnswer:
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
            except AskedToWaitError as error:
                time.sleep(max(delay, error.seconds))
            except StoreUnavailableError:
                time.sleep(delay)
        return self._follow(request)

    def _follow(self, request: _Request) -> HttpsAnswer:
        """Send a request once, and follow redirects. Every address is checked before it is requested."""
        target = request.url
        for _ in range(MAX_REDIRECTS + 1):
            target = checked_url(target, self.hosts)
            answer = self._once(request, target)
            if answer.status not in (301, 302, 303, 307, 308):
                check_status(answer)
                return answer
            if request.body is not None and answer.status not in (307, 308):
                raise StoreError(f"{shown_url(request.url)}: the server moved this address: give the new one")
            target = joined_url(target, answer.headers.get("location", ""))
        raise StoreError(f"{shown_url(request.url)}: more than {MAX_REDIRECTS} redirects, probably in a circle")

    def _once(self, request: _Request, target: str) -> HttpsAnswer:
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

    def _exchange(self, connection: Connection, request: _Request, target: str) -> HttpsAnswer:
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
            return HttpsAnswer(request.url, response.status, headers, data, complete)
        finally:
            if keep:
                self._put_back(connection)
            else:
                connection.close()
                if response is not None:
                    response.close()

    def _connected(self, host: str, port: int) -> Connection:
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
        return Connection(host, port, TimedSocket(secure, _READ_S))

    def _take(self, place: tuple[str, int]) -> Connection | None:
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

    def _put_back(self, connection: Connection) -> None:
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
        except EmptyRangeError:
            # A file that is not empty and ends before `start` was changed since it was opened.
            return FilePart(ObjectInfo(0, "empty", 0.0), b"", whole=True)
        return part_of(answer, start, length) if answer.status == 206 else whole_of(answer, MAX_WHOLE_BYTES)

    def describe(self, url: str) -> ObjectInfo:
        """Return size and version of a file, by a request for its first byte.

        Raises:
            ObjectMissingError: if the file does not exist.
            StoreError: if the file may not be read.
        """
        return self.fetch(url, 0, 1).info
