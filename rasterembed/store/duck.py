"""DuckDB connections that read Parquet files of a store.

DuckDB reads the files of a folder directly. It reads objects on S3 through the store, which has the keys and fetches
only the ranges that DuckDB asks for. A query therefore never holds a secret, and any DuckDB will do.
"""

from __future__ import annotations

import hashlib
import io
import logging
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import duckdb
import fsspec

from rasterembed.errors import DataError, StoreError
from rasterembed.store.object_store import ObjectStore
from rasterembed.store.storage import ObjectInfo

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_log = logging.getLogger(__name__)


def connect(*, threads: int = 1, memory_limit: str = "1GB") -> duckdb.DuckDBPyConnection:
    """Open an in-memory database that never uses the network by itself.

    It loads no extension, and reads no Python variable, unless it is told to.

    Args:
        threads: threads of one query. One was the fastest for tables of up to about 100 000 vectors, measured.
        memory_limit: DuckDB's memory limit, as `1GB`. Data beyond it goes to a temporary folder, which DuckDB removes
            when the connection is closed.

    Example:
        >>> from rasterembed.store import duck
        >>> with duck.connect() as con:
        ...     con.sql("SELECT 1 + 1").fetchone()
        (2,)
    """
    con = duckdb.connect(
        ":memory:",
        config={
            "threads": threads,
            "memory_limit": memory_limit,
            # DuckDB makes this folder only when it needs it. Its default would be below the current folder.
            "temp_directory": f"{tempfile.gettempdir()}/duckdb-{uuid.uuid4().hex}",
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
            "allow_community_extensions": False,
            "python_enable_replacements": False,
        },
    )
    # Each footer is read once per connection instead of once per query. DuckDB notices a changed modification time.
    con.execute("SET parquet_metadata_cache = true")
    # After two seconds DuckDB would draw a progress bar on standard output, even if that is not a terminal. In a
    # notebook without ipywidgets the bar is off already, and setting it is an error.
    if con.execute("SELECT current_setting('enable_progress_bar')").fetchone() == (True,):
        con.execute("SET enable_progress_bar = false")
    return con


def load_vss(con: duckdb.DuckDBPyConnection) -> bool:
    """Load the `vss` extension from the package `duckdb-extension-vss`, without the network.

    DuckDB checks the signature of the file. The package fits exactly one version of DuckDB.

    Returns:
        False if the package is not installed, fits another DuckDB, or cannot be loaded.
    """
    spec = find_spec("duckdb_extension_vss")
    if spec is None or not spec.submodule_search_locations:
        return False
    package = Path(spec.submodule_search_locations[0])
    file = package / "extensions" / f"v{duckdb.__version__}" / "vss.duckdb_extension"
    if not file.is_file():
        return False
    try:
        con.load_extension(str(file))
    except duckdb.Error as error:
        _log.warning("%s cannot be loaded, so searches do not use the vector index: %s", file, first_line(error))
        return False
    return True


def scan(con: duckdb.DuckDBPyConnection, store: ObjectStore, keys: Sequence[str]) -> duckdb.DuckDBPyRelation:
    """Return the rows of some Parquet objects, in the order of `keys`.

    The vectors have the type `FLOAT[]`. Cast them to `FLOAT[dimensions]` for DuckDB's array functions. The column
    `filename` ends with the key of the row's object.

    Args:
        con: a connection from `connect`.
        store: store of the objects.
        keys: keys of the objects, at least one. Take them from a manifest, not from a listing of the store.

    Raises:
        duckdb.Error: if an object does not exist or is not a Parquet file. Use it inside of `readable_errors`.
    """
    if store.is_s3:
        scheme = _register(con, store)
        paths = [f"{scheme}://{key}" for key in keys]
    else:
        paths = [store.uri(key) for key in keys]
    # With Hive partitioning, a root such as /data/year=2026 would add a column.
    return con.read_parquet(paths, filename=True, hive_partitioning=False)


@contextmanager
def readable_errors(con: duckdb.DuckDBPyConnection | None, what: str) -> Iterator[None]:
    """Turn an error of DuckDB into an error of this library, in one line that begins with `what`.

    Args:
        con: connection whose queries read a store with `scan`, or None if they read only local files.
        what: what the queries read, for people.

    Raises:
        StoreError: if the store refused, as ObjectMissingError or StoreUnavailableError where the store said so.
        DataError: for any other error of DuckDB.
    """
    files = [] if con is None else _files_of.setdefault(con, {}).values()
    for of_store in files:
        of_store.error = None
    try:
        yield
    except duckdb.Error as error:
        # DuckDB drops the store's exception and keeps only its text, so the file system has remembered it.
        files = [] if con is None else _files_of[con].values()
        for of_store in files:
            if of_store.error is not None:
                raise type(of_store.error)(f"{what}: {of_store.error}") from error
        raise DataError(f"{what}: {first_line(error)}") from error


def first_line(error: Exception) -> str:
    """Return the first line of an error's text, without the explanations that DuckDB adds below it."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _register(con: duckdb.DuckDBPyConnection, store: ObjectStore) -> str:
    """Make a store known to a connection, and return the URL scheme of its objects."""
    scheme = "store" + hashlib.sha256(f"{store.endpoint_url} {store.root}".encode()).hexdigest()[:12]
    registered = _files_of.setdefault(con, {})
    if scheme not in registered:
        registered[scheme] = _StoreFiles(store, scheme)
        con.register_filesystem(registered[scheme])
    return scheme


class _StoreFiles(fsspec.AbstractFileSystem):  # type: ignore[misc]
    """The objects of one store, as the file system that DuckDB asks for files.

    Files are opened by their keys and never listed. No character of a key has a special meaning.
    """

    cachable = False

    def __init__(self, store: ObjectStore, scheme: str) -> None:
        super().__init__()
        self.protocol = scheme
        self.error: StoreError | None = None
        """The last error of the store since `readable_errors` began."""
        self._store = store
        self._infos: dict[str, ObjectInfo] = {}

    @contextmanager
    def remember_error(self) -> Iterator[None]:
        try:
            yield
        except StoreError as error:
            self.error = error
            raise

    def glob(self, path: str, **_: Any) -> list[str]:
        return [path]

    def open(self, path: str, mode: str = "rb", **_: Any) -> IO[bytes]:
        with self.remember_error():
            file = self._store.open(path.removeprefix(f"{self.protocol}://"))
        # DuckDB asks for size and modification time about ten times after it opened a file.
        self._infos[path] = file.info  # type: ignore[attr-defined]
        return _StoreFile(self, file)  # type: ignore[return-value]

    def size(self, path: str) -> int:
        return self._infos[path].size

    def modified(self, path: str) -> datetime:
        return datetime.fromtimestamp(self._infos[path].modified, tz=UTC)


class _StoreFile(io.RawIOBase):
    """An open object whose errors `_StoreFiles` remembers."""

    def __init__(self, files: _StoreFiles, file: IO[bytes]) -> None:
        self._files = files
        self._file = file

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._file.tell()

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def readinto(self, buffer: WriteableBuffer) -> int:
        with self._files.remember_error():
            return self._file.readinto(buffer)  # type: ignore[attr-defined, no-any-return]

    def readall(self) -> bytes:
        with self._files.remember_error():
            return self._file.read()


_files_of: WeakKeyDictionary[duckdb.DuckDBPyConnection, dict[str, _StoreFiles]] = WeakKeyDictionary()
"""File systems that `scan` registered with each connection, by URL scheme."""
