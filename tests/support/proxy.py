"""Run a proxy before a server. It records requests. It can remove headers, fail, cut an answer short, and delay."""

from __future__ import annotations

import http.client
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any, Literal
from urllib.parse import urlsplit

from tests.support.servers import HOST

Fault = Literal["unavailable", "unanswered", "cut short"]
"""What the proxy does with a request.

- `unavailable`: answers 503. The server does not get the request.
- `unanswered`: passes the request on, but closes the connection without an answer.
- `cut short`: sends only half of the body of the server's answer.
"""


@dataclass(frozen=True)
class Exchange:
    """A request and its answer."""

    method: str
    path: str
    status: int
    """Status of the answer; 0 if there was none."""
    sent: int
    """Bytes of the body that were sent to the client."""


@dataclass
class Proxy:
    """A running proxy. Its fields may be changed while it runs."""

    endpoint_url: str = ""
    exchanges: list[Exchange] = field(default_factory=list)
    hidden: set[str] = field(default_factory=set)
    """Names, in lower case, of request headers that are not passed on."""
    fault: Callable[[str, str], Fault | None] = lambda method, path: None
    """Returns the fault of a request, given its method and path."""
    rewrite: Callable[[str], str] = lambda path: path
    """Returns the path and query for the server, given those of the client. The server must not check signatures."""
    delay_s: float = 0.0
    """Delay of every request in seconds."""

    @property
    def sent(self) -> int:
        """Bytes of all bodies that were sent to clients."""
        return sum(exchange.sent for exchange in self.exchanges)


@contextmanager
def proxy_before(url: str) -> Iterator[Proxy]:
    """Run a proxy before the server of a URL on loopback."""
    proxy, target = Proxy(), urlsplit(url)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _exchange(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if (
                proxy.delay_s
            ):  # Tests watch calls of `sleep` in the whole process, so there must be none without a delay.
                time.sleep(proxy.delay_s)
            fault = proxy.fault(self.command, self.path)
            if fault == "unavailable":
                # A client that has the answer may look at the exchanges at once.
                proxy.exchanges.append(Exchange(self.command, self.path, 503, 0))
                self.send_response(503)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            status, headers, content = self._forward(body)
            if fault == "unanswered":
                proxy.exchanges.append(Exchange(self.command, self.path, 0, 0))
                self.close_connection = True
                return
            if fault == "cut short":
                content = content[: len(content) // 2]
                self.close_connection = True
            proxy.exchanges.append(Exchange(self.command, self.path, status, len(content)))
            self.send_response_only(status)
            chunked = any(name.lower() == "transfer-encoding" for name, _ in headers)
            for name, value in headers:
                if name.lower() not in ("transfer-encoding", "connection"):
                    self.send_header(name, value)
            if chunked:
                self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def _forward(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
            upstream = http.client.HTTPConnection(HOST, target.port, timeout=60)
            try:
                upstream.putrequest(self.command, proxy.rewrite(self.path), skip_host=True, skip_accept_encoding=True)
                for name, value in self.headers.items():
                    if name.lower() not in proxy.hidden | {"expect", "connection"}:
                        upstream.putheader(name, value)
                upstream.endheaders(body)
                answer = upstream.getresponse()
                return answer.status, answer.getheaders(), answer.read()
            finally:
                upstream.close()

        do_GET = do_PUT = do_POST = do_PATCH = do_HEAD = do_DELETE = _exchange  # noqa: N815

        def log_message(self, *_: Any) -> None:
            pass

    listener = ThreadingHTTPServer((HOST, 0), Handler)
    listener.daemon_threads = True
    proxy.endpoint_url = f"http://{HOST}:{listener.server_port}"
    thread = Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield proxy
    finally:
        listener.shutdown()
        thread.join()
        listener.server_close()
