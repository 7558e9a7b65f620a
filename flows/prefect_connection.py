"""The connection of commands and scripts to the Prefect server at PREFECT_API_URL."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.settings import PREFECT_API_URL


@contextmanager
def connect() -> Iterator[SyncPrefectClient]:
    """Return a client of the server, and end the process with one line if the server cannot be used.

    Raises:
        SystemExit: if PREFECT_API_URL is not set or has no API, if no server answers, or if the server refuses the
            password.
    """
    url = PREFECT_API_URL.value()
    if not url:
        sys.exit("PREFECT_API_URL is not set: start a server (prefect server start) and set it to http://HOST:4200/api")
    shown = httpx.URL(url).copy_with(userinfo=b"")
    try:
        with get_client(sync_client=True) as client:
            yield client
    except httpx.TransportError as error:
        reason = str(error) or type(error).__name__
        sys.exit(f"no Prefect server answers at {shown} ({reason}): start the server, or correct PREFECT_API_URL")
    except httpx.HTTPStatusError as error:
        if error.response.status_code == httpx.codes.NOT_FOUND and not shown.path.rstrip("/").endswith("/api"):
            sys.exit(f"no Prefect API is at {shown}: PREFECT_API_URL ends in /api, as in http://HOST:4200/api")
        if error.response.status_code not in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
            raise
        sys.exit(
            f"the Prefect server at {shown} refuses access ({error.response.status_code}): "
            "set PREFECT_API_AUTH_STRING to the server's user:password"
        )
