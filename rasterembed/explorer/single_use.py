"""Codes that sign one browser in once. A notebook's file may keep the address of a frame, so it holds no token."""

from __future__ import annotations

import hashlib
import secrets
import threading
import time

_SECONDS = 600.0
"""Time after which an unused code is not valid any more."""

_MOST = 64
"""Largest number of unused codes. The oldest one is forgotten first."""


class SingleUseCodes:
    """Makes codes, and takes each of them once. Several threads may use one object."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._expiries: dict[bytes, float] = {}
        """Time when each code expires, by its digest. The time of a look-up therefore tells nothing about a code."""

    def new(self) -> str:
        """Return a new code."""
        code = secrets.token_urlsafe(32)
        with self._lock:
            self._expiries[_digest(code)] = time.monotonic() + _SECONDS
            while len(self._expiries) > _MOST:
                self._expiries.pop(next(iter(self._expiries)))
        return code

    def take(self, code: str) -> bool:
        """Return whether a code is valid. It is not valid a second time."""
        with self._lock:
            expiry = self._expiries.pop(_digest(code), 0.0)
        return time.monotonic() < expiry


def _digest(code: str) -> bytes:
    return hashlib.sha256(code.encode(errors="surrogatepass")).digest()
