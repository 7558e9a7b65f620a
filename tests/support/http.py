"""Send requests to servers on loopback."""

from __future__ import annotations

from typing import Any

import httpx

TIMEOUT_S = 60.0
"""Longest time for a step of a request, in seconds. The default of httpx is 5 s, and a busy machine may need more."""


def request(method: str, url: str, **options: Any) -> httpx.Response:
    """Send a request as `httpx.request` does, without the certificates of authorities, and with a longer timeout.

    By default, httpx loads the certificates for each request, also to an address without TLS. That takes longer than
    most answers.
    """
    return httpx.request(method, url, **({"verify": False, "timeout": TIMEOUT_S} | options))


def patient_client() -> httpx.Client:
    """Return a client that keeps cookies and connections. See `request`."""
    return httpx.Client(verify=False, timeout=TIMEOUT_S)
