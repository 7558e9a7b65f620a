"""Threads that share the work of queries.

FAISS releases Python's lock while it compares vectors, so Python threads use all cores. One pool serves all searchers
of a process. All cores work for a single query. Many queries at once share the cores, and do not start more threads
than cores.

FAISS' own threads are not used for queries. FAISS divides a call by queries, so they do not help a single query. Each
calling thread would also get a team of threads that spins while it waits, which slows down other work on the cores.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import count
from typing import TypeVar

from rasterembed.model.processor import usable_cores

Result = TypeVar("Result")


@cache
def cores() -> int:
    """Return the number of cores that this process may use. The system is asked once."""
    return usable_cores()


class _Pool:
    """The process's pool. It is started by the first query that needs it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._threads: ThreadPoolExecutor | None = None

    def threads(self) -> ThreadPoolExecutor:
        with self._lock:
            if self._threads is None:
                self._threads = ThreadPoolExecutor(cores(), "search", _use_one_thread)
            return self._threads

    def forget(self) -> None:
        self.__init__()  # type: ignore[misc]


def _use_one_thread() -> None:
    """Let FAISS compute in the calling thread alone. The setting counts for this thread alone."""
    import faiss

    faiss.omp_set_num_threads(1)


_pool = _Pool()
# A forked process has no threads but the one that forked: it starts its own pool.
os.register_at_fork(after_in_child=_pool.forget)


@cache
def turns() -> tuple[threading.Lock, ...]:
    """Return the turns of the process, one for each core. See `turn`."""
    return tuple(threading.Lock() for _ in range(cores()))


# The threads that had a turn do not exist in a forked process.
os.register_at_fork(after_in_child=turns.cache_clear)

_waiting = count()


def turn() -> threading.Lock:
    """Return a lock for a `with` block, which waits while as many threads as cores are in such blocks.

    A block must not contain another one. An answer of an index consists of many short steps, some of which need
    Python's lock. More threads than cores would interrupt each other between these steps. All answers together would
    then take longer.

    It is a lock for each core and no counter, because an interruption between the two steps of a counter would lose a
    turn for ever.
    """
    every = turns()
    return next((one for one in every if not one.locked()), every[next(_waiting) % len(every)])


def shares(rows: int) -> list[range]:
    """Divide rows into successive parts of about the same size, one for each core.

    Args:
        rows: number of rows, at least 1.

    Example:
        >>> sum(len(part) for part in shares(10))
        10
    """
    size = -(-rows // cores())
    return [range(start, min(start + size, rows)) for start in range(0, rows, size)]


def run_all(tasks: Sequence[Callable[[], Result]]) -> list[Result]:
    """Run functions at the same time, and return their results in order. A task must not call this function.

    Args:
        tasks: the functions. They should release Python's lock most of the time. A single task runs in the calling
            thread.
    """
    if len(tasks) == 1:
        return [tasks[0]()]
    return list(_pool.threads().map(lambda task: task(), tasks))
