"""A web server on loopback with TLS, whose certificate an authority of the test signed."""

from __future__ import annotations

import datetime
import ipaddress
import re
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

MODIFIED = "Mon, 01 Jun 2026 12:00:00 GMT"

Script = Callable[["Handler"], None]
"""Function that answers a request in place of the server."""


def make_certificate(folder: Path, *names: str) -> tuple[Path, Path]:
    """Write an authority's certificate, and a certificate with its key for a server of these names.

    Returns:
        The file of the authority, and the file of the server.
    """
    keys = [ec.generate_private_key(ec.SECP256R1()) for _ in range(2)]
    issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "authority of a test")])
    now = datetime.datetime.now(datetime.UTC)

    def build(subject: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
        span = datetime.timedelta(days=1)
        made = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(key.public_key())
        return made.serial_number(x509.random_serial_number()).not_valid_before(now - span).not_valid_after(now + span)

    authority = build(issuer, keys[0]).add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    owner = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "server of a test")])
    alternatives: list[x509.GeneralName] = [x509.DNSName(name) for name in names]
    alternatives.append(x509.IPAddress(ipaddress.ip_address("127.0.0.1")))
    server = build(owner, keys[1]).add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
    ca, pair = folder / "authority.pem", folder / "server.pem"
    ca.write_bytes(authority.sign(keys[0], hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    private = keys[1].private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    pair.write_bytes(server.sign(keys[0], hashes.SHA256()).public_bytes(serialization.Encoding.PEM) + private)
    return ca, pair


@dataclass
class WebServer:
    """A server with files. It sends parts of files, as a bucket does."""

    port: int
    files: dict[str, bytes] = field(default_factory=dict)
    """Content by path."""
    scripts: dict[str, Script] = field(default_factory=dict)
    """Special answers by path."""
    versions: dict[str, str] = field(default_factory=dict)
    """ETags by path. The ETag of other files is `"first"`."""
    requests: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)
    """Method, path with query, and headers with lower-case names, of each request."""
    sent: int = 0
    """Number of bytes of all bodies that were sent."""

    @property
    def paths(self) -> list[str]:
        """The path of each request."""
        return [path for _, path, _ in self.requests]

    def url(self, path: str, host: str = "data.test") -> str:
        """Return the address of a file."""
        return f"https://{host}:{self.port}{path}"


class Handler(BaseHTTPRequestHandler):
    """Answers requests of a `WebServer`."""

    protocol_version = "HTTP/1.1"
    site: WebServer

    def do_GET(self) -> None:
        self._answer(b"")

    def do_POST(self) -> None:
        self._answer(self.rfile.read(int(self.headers["Content-Length"])))

    def _answer(self, body: bytes) -> None:
        self.body = body
        path = self.path.split("?")[0]
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.site.requests.append((self.command, self.path, headers))
        script = self.site.scripts.get(path)
        if script is not None:
            script(self)
            return
        data = self.site.files.get(path)
        if data is None:
            self.send(404, b"")
            return
        self.send_file(data, self.site.versions.get(path, '"first"'))

    def send_file(self, data: bytes, etag: str = '"first"', **extra: str) -> None:
        """Send the part of a file that was asked for."""
        asked = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        headers = {"ETag": etag, "Last-Modified": MODIFIED} | extra
        if not asked:
            self.send(200, data, **headers)
        elif int(asked[1]) >= len(data):
            self.send(416, b"", **{"Content-Range": f"bytes */{len(data)}"})
        else:
            start, stop = int(asked[1]), min(int(asked[2]) + 1, len(data))
            self.send(206, data[start:stop], **headers, **{"Content-Range": f"bytes {start}-{stop - 1}/{len(data)}"})

    def send(self, status: int, body: bytes, **headers: str) -> None:
        """Send an answer. An empty header is left out."""
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(body))} | headers).items():
            if value:
                self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)
        self.site.sent += len(body)

    def log_message(self, *_: object) -> None:
        """Print nothing."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, handler: type[Handler], certificate: Path) -> None:
        super().__init__(("127.0.0.1", 0), handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        # The handshake belongs to the thread of the connection, so that a client without TLS stops nobody else.
        self.socket = context.wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False)

    def handle_error(self, *_: object) -> None:
        """Print nothing about clients that leave early."""


@contextmanager
def web_server(certificate: Path) -> Iterator[WebServer]:
    """Run a server."""
    handler = type("_Handler", (Handler,), {})
    server = _Server(handler, certificate)
    site = WebServer(server.server_port)
    handler.site = site  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield site
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def set_names(monkeypatch: pytest.MonkeyPatch, names: dict[str, list[list[str]]]) -> list[str]:
    """Give the names of hosts their addresses.

    Args:
        monkeypatch: of the test.
        names: for each name the addresses of each answer. The last answer is repeated.

    Returns:
        A list that gets the name of each later question.
    """
    asked: list[str] = []
    real = socket.getaddrinfo

    def getaddrinfo(host: str, port: int, *args: Any, **kwargs: Any) -> Any:
        if host not in names:
            return real(host, port, *args, **kwargs)
        answers = names[host]
        number = min(asked.count(host), len(answers) - 1)
        asked.append(host)
        kinds = [socket.AF_INET6 if ":" in address else socket.AF_INET for address in answers[number]]
        return [
            (kind, socket.SOCK_STREAM, 6, "", (address, port))
            for kind, address in zip(kinds, answers[number], strict=True)
        ]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return asked
