"""Work that is done once for all threads that ask for it at the same time."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from concurrent.futures import CancelledError, Future
from typing import Generic, TypeVar

V = TypeVar("V")


class SharedWork(Generic[V]):
    """Does pieces of work that have names. Threads that ask for a piece while it is being done wait for its result.

    Nothing is kept: the next thread that asks after the end does the work again.

    Example:
        >>> SharedWork[int]().do("sum", lambda: 1 + 1)
        2
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._done_now: dict[Hashable, Future[V]] = {}

    def do(self, name: Hashable, work: Callable[[], V]) -> V:
        """Return the result of a piece of work: do it, or wait for the thread that is doing it.

        Args:
            name: name of the piece. All threads that give this name want the same result.
            work: function that returns the result. It is called without a lock, so it may ask for other pieces.

        Raises:
            Exception: the error of `work`. All threads that wait for this piece get it.
        """
        while True:
            with self._lock:
                other = self._done_now.get(name)
                if other is None:
                    own = self._done_now[name] = Future[V]()
            if other is None:
                return self._do(name, work, own)
            try:
                return other.result()
            except CancelledError:
                continue  # The other thread was stopped, for example by Ctrl+C.

    def _do(self, name: Hashable, work: Callable[[], V], result: Future[V]) -> V:
        try:
            value = work()
        except BaseException as error:
            self._end(name)
            if isinstance(error, Exception):
                result.set_exception(error)
            else:
                result.cancel()
            raise
        self._end(name)
        result.set_result(value)
        return value

    def _end(self, name: Hashable) -> None:
        with self._lock:
            del self._done_now[name]
