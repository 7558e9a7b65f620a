"""A connection to a web server whose answer must be complete before a deadline."""

from __future__ import annotations

import http.client
import io
import ssl
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer


class TimedSocket:
    """A socket whose operations all end before a deadline. Otherwise a server could send a byte a minute for ever.

    Args:
        secure: a socket that speaks TLS.
        silence_s: longest time in seconds for which one operation waits.
    """

    def __init__(self, secure: ssl.SSLSocket, silence_s: float) -> None:
        self._socket, self._silence_s = secure, silence_s
        self._users = 1
        self.deadline = time.monotonic() + silence_s
        """Time at which the answer must be complete, as `time.monotonic` gives it."""

    def _limit(self) -> None:
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("the answer takes too long")
        self._socket.settimeout(min(left, self._silence_s))

    def sendall(self, data: ReadableBuffer) -> None:
        """Send bytes. See `socket.socket.sendall`."""
        self._limit()
        self._socket.sendall(data)

    def receive_into(self, buffer: WriteableBuffer) -> int:
        """Receive bytes into a buffer, and return their number. See `socket.socket.recv_into`."""
        self._limit()
        return self._socket.recv_into(buffer)

    def makefile(self, mode: str) -> io.BufferedReader:
        """Return a file that receives the bytes. See `socket.socket.makefile`."""
        assert mode == "rb"
        self._users += 1
        return io.BufferedReader(_SocketReader(self))

    def close(self) -> None:
        """Close the socket when its last user has closed it. Its files are users too."""
        # http.client closes the socket before the answer is read, if the answer is the last one of the connection.
        self._users -= 1
        if self._users == 0:
            self._socket.close()


class _SocketReader(io.RawIOBase):
    def __init__(self, source: TimedSocket) -> None:
        self._source = source

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        return self._source.receive_into(buffer)

    def close(self) -> None:
        if not self.closed:
            super().close()
            self._source.close()


class Connection(http.client.HTTPConnection):
    """A connection over a socket that speaks TLS already. Like the socket, it has a deadline."""

    def __init__(self, host: str, port: int, connected: TimedSocket) -> None:
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
