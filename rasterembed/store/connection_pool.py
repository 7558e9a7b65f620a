"""DuckDB connections that several threads share.

This module does not import DuckDB, which takes long. A searcher whose datasets all have an index never opens a
connection.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import duckdb


class ConnectionPool:
    """Connections that several threads share. Each connection is used by one thread at a time.

    Views and registered tables of a connection are visible to all its cursors. Each thread therefore borrows a whole
    connection. A returned connection is lent again, with the footers of Parquet files that it has in memory. The pool
    has as many connections as threads that borrowed one at the same time.

    Args:
        make: function that opens a new connection.

    Example:
        >>> from rasterembed.store import duck
        >>> pool = ConnectionPool(duck.connect)
        >>> with pool.borrow() as con:
        ...     con.sql("SELECT 1 + 1").fetchone()
        (2,)
        >>> pool.close()
    """

    def __init__(self, make: Callable[[], duckdb.DuckDBPyConnection]) -> None:
        self._make = make
        self._lock = threading.Lock()
        self._idle: list[duckdb.DuckDBPyConnection] = []
        self._closed = False

    @contextmanager
    def borrow(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """Lend a connection to the calling thread until the end of the `with` block.

        If the block raises an error, the connection is closed, because its state is not known.
        """
        with self._lock:
            con = self._idle.pop() if self._idle else None
        if con is None:
            con = self._make()
        kept = False
        try:
            yield con
            with self._lock:
                kept = not self._closed
                if kept:
                    self._idle.append(con)
        finally:
            if not kept:
                con.close()

    def close(self) -> None:
        """Close the connections. A connection that is lent is closed when its block ends."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for con in idle:
            con.close()
