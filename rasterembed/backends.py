"""How objects are read and written: in a folder, and on an S3 server."""

from __future__ import annotations

import errno
import os
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO, Any, Protocol, TypeVar, cast

import botocore.exceptions
import s3fs

from rasterembed.errors import StoreError, StoreUnavailableError

_SINGLE_PUT_BYTES = 64 * 2**20
"""Larger files go up as multipart, which is as atomic but not conditional on every server."""

_T = TypeVar("_T")

_SETTLE_S = 1.0
"""How long a server without conditional writes is given to show a rival's write."""


@dataclass(frozen=True)
class ObjectInfo:
    """What identifies one state of an object."""

    size: int
    """Bytes."""
    version: str
    """ETag of an S3 object, or the modification time of a file in nanoseconds."""
    modified: float
    """Time of the last modification, in seconds since 1970."""


class Backend(Protocol):
    """What the store needs of a place that keeps objects; paths are full, without a scheme."""

    def read(self, path: str) -> bytes | None:
        """Content of an object, or None."""

    def write(self, path: str, data: bytes) -> None:
        """Put an object in place, whole."""

    def create(self, path: str, data: bytes) -> bool:
        """As `write`, but only if the name is free; of several callers exactly one gets True."""

    def write_from_file(self, path: str, file: Path) -> None:
        """As `write`, from a file in `scratch`."""

    def create_from_file(self, path: str, file: Path) -> bool:
        """As `create`, from a file in `scratch`."""

    def open(self, path: str) -> IO[bytes]:
        """The object as a seekable file."""

    def sizes(self, folder: str) -> dict[str, int]:
        """Names and sizes in bytes of the objects directly in a folder."""

    def delete(self, path: str) -> None:
        """Remove an object if it is there."""

    def describe(self, path: str) -> ObjectInfo:
        """Identity of an object's present state."""

    def scratch(self, folder: str) -> Path:
        """A local folder to write files in that will go to `folder`."""


@contextmanager
def os_errors(path: str) -> Iterator[None]:
    """Turn what the operating system refused into a StoreError of one line; errors without a number pass."""
    try:
        yield
    except OSError as error:
        if error.errno is None:
            raise
        hint = {
            errno.ENOSPC: "the disk is full: free some space and run again",
            errno.EDQUOT: "the quota is used up: free some space and run again",
            errno.EACCES: "no permission",
            errno.EROFS: "the file system is read-only",
            errno.ENOENT: "there is no such file",
            errno.ENOTDIR: "a part of the path is a file",
            errno.EISDIR: "it is a folder",
        }.get(error.errno, error.strerror)
        raise StoreError(f"{path}: {hint}") from error


class FolderBackend:
    """Objects as files. A file is written aside, flushed to the disk and moved into place."""

    def read(self, path: str) -> bytes | None:
        """Content of the file, or None."""
        with os_errors(path):
            try:
                return Path(path).read_bytes()
            except FileNotFoundError:
                return None

    def write(self, path: str, data: bytes) -> None:
        """Write aside, then `os.replace`."""
        with os_errors(path):
            self.write_from_file(path, self._aside(path, data))

    def create(self, path: str, data: bytes) -> bool:
        """Write aside, then a hard link, which fails if the name is taken."""
        with os_errors(path):
            file = self._aside(path, data)
            try:
                return self.create_from_file(path, file)
            finally:
                file.unlink(missing_ok=True)

    def _aside(self, path: str, data: bytes) -> Path:
        file = self.scratch(os.path.dirname(path)) / f"{uuid.uuid4().hex}.part"
        file.write_bytes(data)
        return file

    def write_from_file(self, path: str, file: Path) -> None:
        """Move the file into place."""
        with os_errors(path):
            _flush(file)
            os.replace(file, path)

    def create_from_file(self, path: str, file: Path) -> bool:
        """Link the file into place unless the name is taken."""
        with os_errors(path):
            _flush(file)
            try:
                os.link(file, path)
            except FileExistsError:
                return False
            return True

    def open(self, path: str) -> IO[bytes]:
        """Open for reading."""
        with os_errors(path):
            return Path(path).open("rb")

    def sizes(self, folder: str) -> dict[str, int]:
        """Files directly in the folder; files on their way (`.part`) are no objects."""
        with os_errors(folder):
            if not os.path.isdir(folder):
                return {}
            with os.scandir(folder) as entries:
                return {
                    entry.name: entry.stat().st_size
                    for entry in entries
                    if entry.is_file() and not entry.name.endswith(".part")
                }

    def delete(self, path: str) -> None:
        """Unlink; the folder is left."""
        with os_errors(path):
            Path(path).unlink(missing_ok=True)

    def describe(self, path: str) -> ObjectInfo:
        """Size and modification time."""
        with os_errors(path):
            stat = os.stat(path)
            if not os.path.isfile(path):
                raise StoreError(f"{path}: it is not a file")
        return ObjectInfo(stat.st_size, str(stat.st_mtime_ns), stat.st_mtime)

    def scratch(self, folder: str) -> Path:
        """The folder itself, so that a move into place stays on one file system."""
        with os_errors(folder):
            Path(folder).mkdir(parents=True, exist_ok=True)
        return Path(folder)


def _flush(file: Path) -> None:
    with file.open("rb") as handle:
        os.fsync(handle.fileno())


class S3Backend:
    """Objects on an S3 server, by s3fs. A PUT is atomic; `create` is a PUT with `If-None-Match: *`."""

    def __init__(
        self,
        *,
        endpoint_url: str | None,
        access_key: str | None,
        secret_key: str | None,
        region: str,
        path_style: bool,
    ) -> None:
        self._server = endpoint_url or "AWS"
        self._options: dict[str, Any] = {
            "key": access_key,
            "secret": secret_key,
            "endpoint_url": endpoint_url,
            "client_kwargs": {"region_name": region},
            "config_kwargs": {
                "s3": {"addressing_style": "path" if path_style else "virtual"},
                "retries": {"max_attempts": 4, "mode": "standard"},
                "connect_timeout": 10,
                "read_timeout": 60,
                # servers older than these checksums answer them with errors
                "request_checksum_calculation": "when_required",
                "response_checksum_validation": "when_required",
            },
        }
        self._conditional: dict[str, bool] = {}

    @cached_property
    def _fs(self) -> s3fs.S3FileSystem:
        return s3fs.S3FileSystem(
            **self._options,
            use_listings_cache=False,  # other workers write too
            default_cache_type="none",  # read-ahead fetched twenty times too much, measured
            skip_instance_cache=True,  # keys must not outlive the store in a global cache
        )

    def _call(self, path: str, function: Callable[[], _T]) -> _T:
        """Run one request, with the server's refusal as one line."""
        bucket = path.split("/", 1)[0]
        where = f"s3://{path} on {self._server}"
        try:
            return function()
        except FileNotFoundError as error:
            if "bucket" in str(error).lower():
                raise StoreError(f"{where}: there is no bucket {bucket!r}") from error
            raise
        except PermissionError as error:
            raise StoreError(f"{where}: access denied: check the keys and the bucket's policy") from error
        except (
            botocore.exceptions.HTTPClientError,
            botocore.exceptions.ConnectionError,
            ConnectionError,
            TimeoutError,
        ) as error:
            raise StoreUnavailableError(f"{where}: no answer ({type(error).__name__})") from error
        except botocore.exceptions.NoCredentialsError as error:
            raise StoreError(
                f"{where}: no credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or use a store block"
            ) from error
        except botocore.exceptions.ClientError as error:
            status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
            code = error.response.get("Error", {}).get("Code", "error")
            kind = StoreUnavailableError if status >= 500 or status == 429 else StoreError
            raise kind(f"{where}: {code} (HTTP {status})") from error
        except OSError as error:
            if isinstance(error, FileExistsError):
                raise
            # s3fs turns server errors that it knows no better word for into a plain OSError
            text = " ".join(str(error).split())
            raise StoreUnavailableError(f"{where}: {text}") from error

    def read(self, path: str) -> bytes | None:
        """GET, or None for 404."""
        try:
            return cast(bytes, self._call(path, lambda: self._fs.cat_file(path)))
        except FileNotFoundError:
            return None

    def write(self, path: str, data: bytes) -> None:
        """One PUT."""
        self._call(path, lambda: self._fs.pipe_file(path, data))

    def create(self, path: str, data: bytes) -> bool:
        """One PUT with `If-None-Match: *`; where the server ignores that, write, settle, and read back."""
        if self._has_conditional_writes(path):
            return self._put_if_absent(path, data)
        return self._create_by_reading_back(path, data)

    def _put_if_absent(self, path: str, data: bytes) -> bool:
        try:
            self._call(path, lambda: self._fs.pipe_file(path, data, mode="create"))
        except FileExistsError:
            return False
        return True

    def _create_by_reading_back(self, path: str, data: bytes) -> bool:
        # Of writers within the settling time the last one wins; later ones see the object. Good for a
        # lease (a lost race costs double work, never wrong data), as shards are deterministic.
        if self.read(path) is not None:
            return False
        self.write(path, data)
        time.sleep(_SETTLE_S)
        return self.read(path) == data

    def _has_conditional_writes(self, path: str) -> bool:
        """Whether the server refuses a second conditional PUT: tried once a store and bucket."""
        bucket = path.split("/", 1)[0]
        if bucket not in self._conditional:
            probe = f"{path}.{uuid.uuid4().hex}.probe"
            try:
                self._put_if_absent(probe, b"1")
                self._conditional[bucket] = not self._put_if_absent(probe, b"2")
            except StoreUnavailableError:
                raise
            except StoreError as error:
                if "(HTTP 501)" not in str(error) and "NotImplemented" not in str(error):
                    raise
                self._conditional[bucket] = False
            finally:
                self.delete(probe)
        return self._conditional[bucket]

    def write_from_file(self, path: str, file: Path) -> None:
        """PUT, multipart if large; either appears whole."""
        self._call(path, lambda: self._fs.put_file(str(file), path))

    def create_from_file(self, path: str, file: Path) -> bool:
        """Conditional PUT of a file; a large one is checked first and then sent as multipart."""
        if file.stat().st_size <= _SINGLE_PUT_BYTES:
            return self.create(path, file.read_bytes())
        if self._exists(path):
            return False
        self.write_from_file(path, file)
        return True

    def _exists(self, path: str) -> bool:
        return bool(self._call(path, lambda: self._fs.exists(path)))

    def open(self, path: str) -> IO[bytes]:
        """A file that fetches exactly the ranges asked for."""
        return cast(IO[bytes], self._call(path, lambda: self._fs.open(path, "rb")))

    def sizes(self, folder: str) -> dict[str, int]:
        """One listing, paged."""
        try:
            found = self._call(folder, lambda: self._fs.ls(folder, detail=True, refresh=True))
        except FileNotFoundError:
            return {}
        return {entry["name"].rsplit("/", 1)[1]: int(entry["size"]) for entry in found if entry["type"] == "file"}

    def delete(self, path: str) -> None:
        """DELETE; S3 answers the same whether or not the object was there."""
        try:
            self._call(path, lambda: self._fs.rm_file(path))
        except FileNotFoundError:
            return

    def describe(self, path: str) -> ObjectInfo:
        """HEAD: size and ETag."""
        try:
            info = self._call(path, lambda: self._fs.info(path, refresh=True))
        except FileNotFoundError as error:
            raise StoreError(f"s3://{path} on {self._server}: there is no such object") from error
        if info["type"] != "file":
            raise StoreError(f"s3://{path}: it is a prefix, not an object")
        modified = info["LastModified"]
        return ObjectInfo(int(info["size"]), info["ETag"].strip('"'), modified.timestamp())

    def scratch(self, folder: str) -> Path:
        """A folder of the machine's own; only whole objects ever reach the server."""
        return Path(tempfile.gettempdir())
