"""The webhook against clients that hold connections, send slowly, or want to fill the log. They have no token."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress

import psutil
import pytest

from tests.support.http import patient_client, request
from tests.support.servers import HOST, free_port
from tests.support.webhook import TOKEN, Webhook, webhook

HEAD = b"POST /uploads HTTP/1.1\r\nHost: webhook\r\n"
AUTHORISED = HEAD + f"Authorization: Bearer {TOKEN}\r\nContent-Length: 1000\r\n\r\n".encode()


@pytest.fixture(scope="module")
def service() -> Iterator[Webhook]:
    """Run the webhook with few file descriptors and short time limits. Nothing answers at Prefect's address."""
    prefect = f"http://{HOST}:{free_port()}/api"
    limits = {"head_timeout_s": "2", "body_timeout_s": "1"}
    with webhook(prefect, "raster-embeddings/x", descriptors=128, **limits) as running:
        yield running


@pytest.fixture
def connections() -> Iterator[ExitStack]:
    """Close the sockets of a test."""
    with ExitStack() as stack:
        yield stack


def _connect(service: Webhook, connections: ExitStack) -> socket.socket:
    return connections.enter_context(socket.create_connection((HOST, service.port), timeout=60))


def _is_closed(client: socket.socket, send: bytes = b"") -> bool:
    """Return whether the service closes the connection, although the client sends a byte from time to time.

    Without a limit of the service, the connection would stay open for ever.
    """
    deadline = time.monotonic() + 60
    client.settimeout(0.2)
    while time.monotonic() < deadline:
        try:
            client.sendall(send)
            if client.recv(65536) == b"":
                return True
        except TimeoutError:
            continue
        except OSError:
            return True
    return False


@pytest.fixture
def patient_service() -> Iterator[Webhook]:
    """Run the webhook with few file descriptors. It waits for a head for longer than a test takes."""
    prefect = f"http://{HOST}:{free_port()}/api"
    with webhook(prefect, "raster-embeddings/x", descriptors=128, head_timeout_s="600") as running:
        yield running


@pytest.mark.slow
def test_others_are_answered_while_clients_hold_more_connections_than_there_are_descriptors(
    patient_service: Webhook, connections: ExitStack
) -> None:
    service = patient_service
    process = psutil.Process(service.pid)
    before = process.cpu_times().user + process.cpu_times().system
    for _ in range(150):
        with suppress(OSError):
            _connect(service, connections).sendall(HEAD)
    for _ in range(5):
        assert request("GET", f"{service.url}/healthz").status_code == 200
        assert service.post({"Event": "s3:TestEvent"}).status_code == 200
    assert process.num_fds() < 128
    time.sleep(0.5)
    assert process.cpu_times().user + process.cpu_times().system - before < 2
    log = service.log.read_text()
    assert "out of system resource" not in log
    assert len(log) < 20_000


def test_a_head_that_comes_too_slowly_ends_the_connection(service: Webhook, connections: ExitStack) -> None:
    silent, slow = _connect(service, connections), _connect(service, connections)
    slow.sendall(HEAD)
    assert _is_closed(slow, send=b"x")
    assert _is_closed(silent)


def test_a_body_that_comes_too_slowly_ends_the_connection(service: Webhook, connections: ExitStack) -> None:
    client = _connect(service, connections)
    begun = time.monotonic()
    client.sendall(AUTHORISED)
    assert _is_closed(client, send=b" ")
    assert time.monotonic() - begun > 0.7


def test_a_body_after_a_refused_head_ends_the_connection(service: Webhook, connections: ExitStack) -> None:
    client = _connect(service, connections)
    client.sendall(HEAD + b"Content-Length: 100000\r\n\r\n")
    assert b" 401 " in client.recv(65536)
    assert _is_closed(client, send=b" ")


def test_a_connection_that_is_used_again_is_served(service: Webhook) -> None:
    with patient_client() as client:
        for _ in range(3):
            assert client.get(f"{service.url}/healthz").status_code == 200
            time.sleep(0.8)


def test_requests_that_anyone_may_send_do_not_fill_the_log(service: Webhook, connections: ExitStack) -> None:
    before = len(service.log.read_text())
    with patient_client() as client:
        for _ in range(300):
            assert client.post(f"{service.url}/uploads", content=b"{}").status_code == 401
    for _ in range(50):
        _connect(service, connections).sendall(b"no HTTP at all\r\n\r\n")
    assert request("GET", f"{service.url}/healthz").status_code == 200
    assert 0 < len(service.log.read_text()) - before < 5_000
