"""DuckDB connections that read Parquet files of a store.

DuckDB reads the files of a folder directly. DuckDB reads objects on S3 through the store. The store has the credentials
and fetches only the byte ranges that DuckDB needs. A query therefore never holds a secret, and DuckDB needs no S3
extension.
"""

from __future__ import annotations

import hashlib
import io
import logging
import re
import uuid
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from importlib.util import find_spec
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import duckdb
import fsspec
import numpy as np
from numpy.typing import NDArray

from rasterembed.errors import DataError, ObjectMissingError, StoreError
from rasterembed.store.local_cache import scratch_folder
from rasterembed.store.modification_time import time_of
from rasterembed.store.object_store import ObjectStore
from rasterembed.store.storage import ObjectInfo

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_log = logging.getLogger(__name__)


def connect(*, threads: int = 1, memory_limit: str = "1GB") -> duckdb.DuckDBPyConnection:
    """Open an in-memory database that never uses the network by itself.

    The database never loads an extension by itself, and never reads Python variables as tables.

    Args:
        threads: number of threads for one query. In measurements, one thread was the fastest for tables of up to about
            100 000 vectors.
        memory_limit: DuckDB's memory limit, such as `1GB`. DuckDB writes data above the limit to a temporary folder.
            When the connection is closed, DuckDB removes this folder.

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
            # DuckDB's default folder is in the current folder. DuckDB creates the folder only when it needs the space.
            "temp_directory": str(scratch_folder() / f"duckdb-{uuid.uuid4().hex}"),
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
            "allow_community_extensions": False,
            "python_enable_replacements": False,
        },
    )
    # Cache the footers of the Parquet files. Without this cache, DuckDB would read a footer again for every query. If
    # the modification time of a file changes, DuckDB does not use the cached footer.
    con.execute("SET parquet_metadata_cache = true")
    # Turn the progress bar off. DuckDB would draw it on standard output after two seconds, even if the output is not a
    # terminal. In a notebook without ipywidgets, the bar is already off, and this setting would raise an error.
    if con.execute("SELECT current_setting('enable_progress_bar')").fetchone() == (True,):
        con.execute("SET enable_progress_bar = false")
    return con


def load_vss(con: duckdb.DuckDBPyConnection) -> bool:
    """Load the `vss` extension from the package `duckdb-extension-vss`, without the network.

    DuckDB checks the signature of the extension's file. The package works with exactly one version of DuckDB.

    Returns:
        True if the extension was loaded. False if the package is not installed, is for another version of DuckDB, or
        cannot be loaded.
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


def scan(
    con: duckdb.DuckDBPyConnection, store: ObjectStore, keys: Sequence[str], *, row_numbers: bool = False
) -> duckdb.DuckDBPyRelation:
    """Return the rows of some Parquet objects, in the order of `keys`.

    The vectors have the type `FLOAT[]`. DuckDB's array functions need a cast to `FLOAT[dimensions]`. The column
    `filename` ends with the key of the object that holds the row.

    Args:
        con: a connection from `connect`.
        store: store of the objects.
        keys: keys of the objects, at least one. Take the keys from a manifest, not from a listing of the store.
        row_numbers: whether the column `file_row_number` has the number of each row in its file, from 0.

    Raises:
        duckdb.Error: if an object does not exist or is not a Parquet file. Call this function and run its queries in a
            `with readable_errors(...)` block, which turns this error into an error of this library.
    """
    _scanned.setdefault(con, deque(maxlen=_REMEMBERED_SCANS)).append((store, tuple(keys)))
    if store.is_s3:
        scheme = _register(con, store)
        paths = [f"{scheme}://{key}" for key in keys]
    else:
        paths = [_literal(store.uri(key)) for key in keys]
    # Turn Hive partitioning off. With it, a root such as /data/year=2026 would add a column to the table.
    try:
        return con.read_parquet(paths, filename=True, file_row_number=row_numbers, hive_partitioning=False)
    except duckdb.IOException as error:
        if not store.is_s3:
            for file in map(store.uri, keys):
                if not Path(file).exists():
                    raise _FileMissingError(f"{file}: there is no such file") from error
        raise


def _literal(path: str) -> str:
    """Escape the wildcards in a path, because DuckDB reads a path as a pattern: `/data/a*b` would match `/data/axb`."""
    return re.sub(r"[*?\[]", r"[\g<0>]", path)


class _FileMissingError(duckdb.IOException):
    """A file of a folder does not exist. DuckDB's own text calls the file a pattern."""


_DAMAGED = (duckdb.InvalidInputException, duckdb.OperationalError)
"""Errors of DuckDB about files that cannot be read. About some damaged pages, DuckDB raises a plain `duckdb.Error`."""


def verify_advice(dataset_id: str) -> str:
    """Return what a person does if a file of a dataset is missing or damaged."""
    return f"run `rasterembed datasets verify {dataset_id}`, which says what to do"


@contextmanager
def dataset_errors(con: duckdb.DuckDBPyConnection, dataset_id: str) -> Iterator[None]:
    """Turn an error of DuckDB about the files of a dataset into an error of this library. See `readable_errors`."""
    with readable_errors(con, f"dataset {dataset_id!r}", verify_advice(dataset_id)):
        yield


@contextmanager
def readable_errors(con: duckdb.DuckDBPyConnection | None, what: str, advice: str = "") -> Iterator[None]:
    """Turn an error of DuckDB into an error of this library. The text is one line that begins with `what`.

    If a file is missing or damaged, the text names the file.

    Args:
        con: connection whose queries read a store with `scan`, or None if the queries read only local files.
        what: name of the data that the queries read, for the error text.
        advice: what a person does if a file is missing or damaged.

    Raises:
        StoreError: if the store refused. The error has the same class as the store's own error, for example
            ObjectMissingError.
        DataError: for any other error of DuckDB.
    """
    files = [] if con is None else _files_of.setdefault(con, {}).values()
    for of_store in files:
        of_store.error = None
    try:
        yield
    except duckdb.Error as error:
        # DuckDB keeps only the text of the store's exception. `_StoreFiles` therefore remembers the exception.
        files = [] if con is None else _files_of[con].values()
        for of_store in files:
            if of_store.error is not None:
                end = advice if isinstance(of_store.error, ObjectMissingError) else ""
                raise type(of_store.error)(": ".join(filter(None, (what, str(of_store.error), end)))) from error
        if isinstance(error, _FileMissingError):
            raise ObjectMissingError(": ".join(filter(None, (what, str(error), advice)))) from error
        if con is not None and (isinstance(error, _DAMAGED) or type(error) is duckdb.Error):
            raise _unreadable(con, what, advice, error) from error
        raise DataError(f"{what}: {first_line(error)}") from error


def _unreadable(con: duckdb.DuckDBPyConnection, what: str, advice: str, error: duckdb.Error) -> DataError:
    """Return the error for files that DuckDB cannot read. If the footer of a file is damaged, the text names the file.

    Args:
        con: the connection.
        what: see `readable_errors`.
        advice: see `readable_errors`.
        error: the error of DuckDB.
    """
    import pyarrow as pa  # Only errors need these two modules.
    import pyarrow.parquet as pq

    if isinstance(error, duckdb.OutOfMemoryException):
        return DataError(f"{what}: {first_line(error)}")
    for store, keys in _scanned.get(con, ()):
        for key in keys:
            try:
                with store.open(key) as file:
                    pq.read_metadata(file)
            except StoreError as refused:
                return type(refused)(f"{what}: {refused}")
            except (pa.ArrowException, OSError):
                damaged = f"{store.uri(key)} is damaged: it is no complete Parquet file"
                return DataError(": ".join(filter(None, (what, damaged, advice))))
    return DataError(": ".join(filter(None, (what, f"a file is damaged ({first_line(error)})", advice))))


def vector_text(vector: NDArray[np.floating]) -> str:
    """Return a vector as a text that DuckDB casts to a list. Bind this text, and not a list of numbers.

    Without pandas, the DuckDB client tries to import it for each number of a bound list: 384 numbers take 30 ms. The
    cast of the text takes 1 ms. It gives the same float32 numbers.

    Args:
        vector: the vector, shape (n,).
    """
    return str(vector.tolist())


def first_line(error: Exception) -> str:
    """Return the first line of an error's text. DuckDB adds explanations in further lines."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _register(con: duckdb.DuckDBPyConnection, store: ObjectStore) -> str:
    """Register a store with a connection, and return the URL scheme of the store's objects."""
    scheme = "store" + hashlib.sha256(f"{store.endpoint_url} {store.root}".encode()).hexdigest()[:12]
    registered = _files_of.setdefault(con, {})
    if scheme not in registered:
        registered[scheme] = _StoreFiles(store, scheme)
        con.register_filesystem(registered[scheme])
    return scheme


class _StoreFiles(fsspec.AbstractFileSystem):  # type: ignore[misc]
    """A file system through which DuckDB reads the objects of one store.

    DuckDB opens each file by its key and never lists files. Wildcards in a key have no special meaning.
    """

    cachable = False

    def __init__(self, store: ObjectStore, scheme: str) -> None:
        super().__init__()
        self.protocol = scheme
        self.error: StoreError | None = None
        """The store's last error in the current `readable_errors` block."""
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
        # Remember size and modification time: DuckDB asks for them about ten times after it opened a file.
        self._infos[path] = file.info  # type: ignore[attr-defined]
        return _StoreFile(self, file)  # type: ignore[return-value]

    def size(self, path: str) -> int:
        return self._infos[path].size

    def modified(self, path: str) -> datetime:
        return time_of(self._infos[path].modified)


class _StoreFile(io.RawIOBase):
    """An open object. If a read fails, `_StoreFiles` remembers the error."""

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


_REMEMBERED_SCANS = 4
"""Number of calls of `scan` whose files are looked at after an error."""

_scanned: WeakKeyDictionary[duckdb.DuckDBPyConnection, deque[tuple[ObjectStore, tuple[str, ...]]]] = WeakKeyDictionary()
"""The last files that `scan` was given, by connection."""

_files_of: WeakKeyDictionary[duckdb.DuckDBPyConnection, dict[str, _StoreFiles]] = WeakKeyDictionary()
"""The file systems that `scan` registered, by connection and URL scheme."""
