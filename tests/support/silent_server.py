"""Run a server that accepts connections and answers nothing, as a store that hangs."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from tests.support.servers import HOST


@dataclass
class SilentServer:
    """A server that accepts connections, and answers nothing until it is closed."""

    listener: socket.socket
    held: list[socket.socket] = field(default_factory=list)
    arrived: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    """Released for each connection."""

    @property
    def url(self) -> str:
        """Address of the server."""
        return f"http://{HOST}:{self.listener.getsockname()[1]}"

    def accept(self) -> None:
        """Accept connections until the server is closed."""
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            self.held.append(connection)
            self.arrived.release()

    def close(self) -> None:
        """Break all connections, and accept no further ones."""
        with suppress(OSError):  # It is closed already.
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for connection in self.held:
            connection.close()


@contextmanager
def silent_server() -> Iterator[SilentServer]:
    """Run a server that answers nothing."""
    server = SilentServer(socket.create_server((HOST, 0)))
    thread = threading.Thread(target=server.accept)
    thread.start()
    try:
        yield server
    finally:
        server.close()
        thread.join()
