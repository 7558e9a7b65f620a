"""Work that is done once for all threads that ask for it at the same time."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass
from types import TracebackType
from typing import Generic, TypeVar

V = TypeVar("V")


@dataclass
class _Piece(Generic[V]):
    """A piece of work that a thread is doing."""

    thread: int
    """Number of the thread, from `threading.get_ident`."""
    result: Future[V]
    traceback: TracebackType | None = None
    """Where the work failed. Each thread that waits adds its own frames to the traceback of the shared error."""


class SharedWork(Generic[V]):
    """Does pieces of work that have names. Threads that ask for a piece while it is being done wait for its result.

    Nothing is kept: the next thread that asks after the end does the work again.

    Example:
        >>> SharedWork[int]().do("sum", lambda: 1 + 1)
        2
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._done_now: dict[Hashable, _Piece[V]] = {}

    def do(self, name: Hashable, work: Callable[[], V]) -> V:
        """Return the result of a piece of work: do it, or wait for the thread that is doing it.

        Args:
            name: name of the piece. All threads that give this name want the same result.
            work: function that returns the result. It is called without a lock, so it may ask for other pieces.

        Raises:
            Exception: the error of `work`. All threads that wait for this piece get it.
            RuntimeError: if `work` asks for its own name, and would wait for itself for ever.
        """
        while True:
            with self._lock:
                other = self._done_now.get(name)
                if other is None:
                    own = self._done_now[name] = _Piece(threading.get_ident(), Future[V]())
            if other is None:
                return self._do(name, work, own)
            if other.thread == threading.get_ident():
                raise RuntimeError(f"the work {name!r} asks for its own result")
            try:
                return other.result.result()
            except CancelledError:
                continue  # The other thread was stopped, for example by Ctrl+C.
            except Exception as error:
                failure = error
            raise failure.with_traceback(other.traceback)

    def _do(self, name: Hashable, work: Callable[[], V], piece: _Piece[V]) -> V:
        try:
            value = work()
        except BaseException as error:
            self._end(name)
            if isinstance(error, Exception):
                piece.traceback = error.__traceback__
                piece.result.set_exception(error)
            else:
                piece.result.cancel()
            raise
        self._end(name)
        piece.result.set_result(value)
        return value

    def _end(self, name: Hashable) -> None:
        with self._lock:
            del self._done_now[name]
