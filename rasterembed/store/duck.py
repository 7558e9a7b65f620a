"""DuckDB over a store's Parquet files: a connection that never goes to the network by itself, and a way to scan.

DuckDB reads a folder's files directly. Objects on S3 it reads through the store, which has the keys and fetches only
the ranges asked for; so no secret is ever part of a query, and any DuckDB will do.
"""

from __future__ import annotations

import hashlib
import logging
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any

import duckdb
import fsspec

from rasterembed.errors import DataError, ObjectMissingError, StoreError, StoreUnavailableError
from rasterembed.store.object_store import ObjectStore
from rasterembed.store.storage import ObjectInfo

_log = logging.getLogger(__name__)


def connect(*, threads: int = 1, memory_limit: str = "1GB") -> duckdb.DuckDBPyConnection:
    """An in-memory database that loads no extension and reads no Python variable unless told to.

    Args:
        threads: threads of a query; one is the fastest for tables of up to some 100 000 vectors, measured.
        memory_limit: as DuckDB writes it, `1GB`; what does not fit goes to a temporary folder until the connection is
            closed.
    """
    con = duckdb.connect(
        ":memory:",
        config={
            "threads": threads,
            "memory_limit": memory_limit,
            # made when something spills, and removed by DuckDB; the default would be below the current folder
            "temp_directory": f"{tempfile.gettempdir()}/duckdb-{uuid.uuid4().hex}",
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
            "allow_community_extensions": False,
            "python_enable_replacements": False,
        },
    )
    # footers are read once a connection, not once a query; a changed modification time is noticed
    con.execute("SET parquet_metadata_cache = true")
    # After two seconds DuckDB would draw a progress bar on standard output, even if that is not a terminal. In a
    # notebook without ipywidgets the bar is off already, and setting it is an error.
    if con.execute("SELECT current_setting('enable_progress_bar')").fetchone() == (True,):
        con.execute("SET enable_progress_bar = false")
    return con


def load_vss(con: duckdb.DuckDBPyConnection) -> bool:
    """Load the `vss` extension out of its wheel, signature checked, no network; False if it cannot be had.

    The wheel holds a binary for exactly one DuckDB; another DuckDB goes without.
    """
    spec = find_spec("duckdb_extension_vss")
    if spec is None or not spec.submodule_search_locations:
        return False
    wheel = Path(spec.submodule_search_locations[0])
    file = wheel / "extensions" / f"v{duckdb.__version__}" / "vss.duckdb_extension"
    if not file.is_file():
        return False
    try:
        con.load_extension(str(file))
    except duckdb.Error as error:
        _log.warning("%s cannot be loaded, searching goes without: %s", file, first_line(error))
        return False
    return True


def scan(con: duckdb.DuckDBPyConnection, store: ObjectStore, keys: Sequence[str]) -> duckdb.DuckDBPyRelation:
    """Rows of some Parquet objects, in the order of `keys`: the shards that a manifest lists, never a listing.

    Vectors come as `FLOAT[]`; cast them to `FLOAT[dimensions]` for DuckDB's array functions. Column `filename` ends
    with the row's key.

    Args:
        con: a connection made by `connect`.
        store: where the objects are.
        keys: their keys, at least one.

    Raises:
        duckdb.Error: if an object is missing or no Parquet; `readable` turns that into one line.
    """
    if store.is_s3:
        prefix = _register(con, store)
        paths = [f"{prefix}://{key}" for key in keys]
    else:
        paths = [store.uri(key) for key in keys]
    # a root like /data/year=2026 must not add a column
    return con.read_parquet(paths, filename=True, hive_partitioning=False)


@contextmanager
def readable(what: str) -> Iterator[None]:
    """Turn what DuckDB could not read into an error of one line that begins with `what`.

    Raises:
        ObjectMissingError: if an object is not there.
        StoreUnavailableError: if the store did not answer.
        StoreError: if it refused.
        DataError: for anything else.
    """
    try:
        yield
    except duckdb.Error as error:
        line = first_line(error)
        # raised below DuckDB, which leaves only the text
        for kind in (ObjectMissingError, StoreUnavailableError, StoreError):
            if line.startswith(f"{kind.__name__}: "):
                raise kind(f"{what}: {line.removeprefix(f'{kind.__name__}: ')}") from error
        raise DataError(f"{what}: {line}") from error


def first_line(error: Exception) -> str:
    """What an error says, without the lines that DuckDB adds."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _register(con: duckdb.DuckDBPyConnection, store: ObjectStore) -> str:
    """Make a store known to a connection under a URL scheme of its own, which is returned."""
    scheme = "store" + hashlib.sha256(f"{store.endpoint_url} {store.root}".encode()).hexdigest()[:12]
    if not con.filesystem_is_registered(scheme):
        con.register_filesystem(_StoreFiles(store, scheme))
    return scheme


class _StoreFiles(fsspec.AbstractFileSystem):  # type: ignore[misc]
    """A store's objects as DuckDB asks for files: opened by key, never listed, and no character of a key is special."""

    cachable = False

    def __init__(self, store: ObjectStore, scheme: str) -> None:
        super().__init__()
        self.protocol = scheme
        self._store = store
        self._infos: dict[str, ObjectInfo] = {}

    def glob(self, path: str, **_: Any) -> list[str]:
        return [path]

    def open(self, path: str, mode: str = "rb", **_: Any) -> IO[bytes]:
        file = self._store.open(path.removeprefix(f"{self.protocol}://"))
        # asked for by DuckDB after each opening, some ten times
        self._infos[path] = file.info  # type: ignore[attr-defined]
        return file

    def size(self, path: str) -> int:
        return self._infos[path].size

    def modified(self, path: str) -> datetime:
        return datetime.fromtimestamp(self._infos[path].modified, tz=UTC)
