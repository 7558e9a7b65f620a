"""Tell when a number of threads wait for the work of another thread."""

from __future__ import annotations

import threading
from concurrent.futures import Future
from typing import Any

import pytest

from rasterembed import shared_work


class Waiting:
    """Watches `SharedWork`, and sets an event when enough threads wait for a result.

    Args:
        monkeypatch: ends the watch at the end of the test.
        threads: number of threads that must wait.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, threads: int) -> None:
        self.all = threading.Event()
        """Is set when the threads wait."""
        waiting: list[int] = []
        all_wait = self.all

        class Watched(Future[Any]):
            def result(self, timeout: float | None = None) -> Any:
                waiting.append(1)
                if len(waiting) == threads:
                    all_wait.set()
                return super().result(timeout)

        monkeypatch.setattr(shared_work, "Future", Watched)
