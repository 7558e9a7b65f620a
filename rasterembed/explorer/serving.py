"""Run the explorer in this process, until it is stopped."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import sys
import threading
import time
import webbrowser
from contextlib import suppress
from functools import partial
from typing import cast

import uvicorn

from rasterembed.errors import UsageError
from rasterembed.explorer.app import create_app
from rasterembed.explorer.page_files import STATIC, PageFiles, not_built
from rasterembed.explorer.settings import ExplorerSettings
from rasterembed.http_connections import Connections, GuardedProtocol, fit_descriptors
from rasterembed.log_limit import limit_repeats

log = logging.getLogger("uvicorn.error")

_THREADS_S = 2.0
"""Seconds that the threads of requests get to end, after the service has answered its last request."""


def serve(settings: ExplorerSettings, *, open_page: bool = False) -> None:
    """Serve the explorer until the process is stopped.

    Args:
        settings: the settings.
        open_page: whether the page is opened in a browser.

    Raises:
        UsageError: if the address or the port cannot be used.
    """
    listener = listen(settings.host, settings.port)
    settings = settings.model_copy(update={"port": listener.getsockname()[1]})
    server = uvicorn.Server(server_config(settings))
    address = page_address(settings)
    # A token is a secret, so it is not part of the printed address.
    asks = "" if settings.token is None else "; the page asks for the token"
    print(f"explorer of {settings.store.root}: {address} (stop it with Ctrl+C{asks})", flush=True)
    if not PageFiles().is_built:
        print(f"warning: {not_built(STATIC)}", file=sys.stderr, flush=True)
    if open_page:
        webbrowser.open(address)
    # The server has ended all requests when it hands on the signal that stopped it.
    with listener, suppress(KeyboardInterrupt):
        server.run(sockets=[listener])
    _leave_waiting_threads()


def _leave_waiting_threads() -> None:
    """End the process if a thread of a request still works, `_THREADS_S` after the service has stopped.

    Python would wait for it, and a thread that waits for a server that does not answer waits for minutes. The service
    only reads, so nothing is lost.
    """
    deadline = time.monotonic() + _THREADS_S
    for thread in threading.enumerate():
        if thread is threading.current_thread() or thread.daemon:
            continue
        thread.join(max(0.0, deadline - time.monotonic()))
        if thread.is_alive():
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(0)


def server_config(settings: ExplorerSettings) -> uvicorn.Config:
    """Return the configuration of the server with the limits for connections."""
    limits = settings.limits
    count, backlog = fit_descriptors(limits.connections)
    connections = Connections(count, limits.head_s, limits.body_s)
    config = uvicorn.Config(
        create_app(settings),
        host=settings.host,
        port=settings.port,
        loop="asyncio",
        http=cast(type[asyncio.Protocol], partial(GuardedProtocol, connections=connections)),
        ws="none",
        backlog=backlog,
        # A map asks for hundreds of tiles. A line for each would hide everything else, and fill a disk.
        access_log=False,
        log_level="warning",
        # The service names no software and no version.
        server_header=False,
        timeout_graceful_shutdown=5,
    )
    # `Config` has set up uvicorn's loggers. Everyone who can connect can cause lines, such as one for each request that
    # is no HTTP. Asyncio's logger reports connections that could not be accepted.
    limit_repeats(("uvicorn.error", "asyncio"))
    return config


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens on an address.

    Raises:
        UsageError: if the address does not belong to this machine, or if the port is taken.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host.strip("[]"), port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            # A browser that asks before the service has started waits, and another process cannot take the port.
            listener.listen()
        except OSError:
            listener.close()
            raise
    except OSError as error:
        raise UsageError(
            f"cannot listen on {host} port {port} ({error.strerror or error}): choose another `port`, or 0 for any "
            "free port, or another `host`"
        ) from error
    return listener


def page_address(settings: ExplorerSettings) -> str:
    """Return the address of the page, for people.

    Example:
        >>> from rasterembed.store.object_store import ObjectStore
        >>> page_address(ExplorerSettings(store=ObjectStore(root="/tmp"), port=8765))
        'http://127.0.0.1:8765/'
    """
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(settings.host, settings.host)
    host = f"[{host}]" if ":" in host and not host.startswith("[") else host
    return f"http://{host}:{settings.port}/"
