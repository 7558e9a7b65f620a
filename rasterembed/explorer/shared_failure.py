"""Requests that wait for the same answer of the store share its failure."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rasterembed.errors import StoreUnavailableError


class OneAtATime:
    """A lock for questions to the store. If the store does not answer, all threads that wait get this error.

    A store that is away is asked for many seconds before a question fails. Without sharing, each of the waiting
    requests would ask again, one after the other.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._failed: tuple[float, str] | None = None

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Hold the lock while the block runs.

        Raises:
            StoreUnavailableError: if the store did not answer the thread that held the lock, while this one waited.
        """
        arrived = time.monotonic()
        with self._lock:
            if self._failed is not None and self._failed[0] >= arrived:
                raise StoreUnavailableError(self._failed[1])
            try:
                yield
            except StoreUnavailableError as error:
                self._failed = time.monotonic(), str(error)
                raise
