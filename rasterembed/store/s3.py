"""Objects on an S3 server, by s3fs."""

from __future__ import annotations

import hashlib
import io
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeVar, cast

import boto3
import s3fs
from aiohttp import ClientError as HttpError
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionError,
    HTTPClientError,
    IncompleteReadError,
    NoCredentialsError,
    SSLError,
)
from botocore.parsers import ResponseParserError

from rasterembed.errors import ObjectMissingError, StoreError, StoreUnavailableError, one_line, os_errors
from rasterembed.store.storage import ObjectInfo

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

RETRY_DELAYS_S = (0.5, 1.0, 2.0, 4.0, 8.0)
"""Waits before a request is tried again; together they outlast the restart of a server."""

_SETTLE_S = 1.0
"""How long a server without conditional writes is given to show a rival's write."""

_SINGLE_PUT_BYTES = 64 * 2**20
"""Larger files go up in parts, which appear as one object, but not conditionally on every server."""

_NO_ANSWER = (ConnectionError, HTTPClientError, IncompleteReadError, HttpError, ConnectionResetError, TimeoutError)
"""What botocore, aiohttp and sockets raise where no connection can be had, or one breaks or stays silent."""

_T = TypeVar("_T")


class S3Storage:
    """Objects by `bucket/key`. A PUT is atomic; `create` is a PUT with `If-None-Match: *`.

    Args:
        endpoint_url: the server; by default AWS.
        access_key: access key id; by default botocore's chain of credentials.
        secret_key: secret access key.
        region: region of the buckets.
        path_style: address buckets by path, not by host name.
        unsigned: send no credentials at all, for public buckets.
    """

    def __init__(
        self,
        *,
        endpoint_url: str | None,
        access_key: str | None,
        secret_key: str | None,
        region: str,
        path_style: bool,
        unsigned: bool,
    ) -> None:
        self._server = endpoint_url or "AWS"
        self.session = boto3.Session(aws_access_key_id=access_key, aws_secret_access_key=secret_key, region_name=region)
        """Where GDAL's credentials come from: rasterio asks for a session of boto3's."""
        self._fs = s3fs.S3FileSystem(
            anon=unsigned,
            key=access_key,
            secret=secret_key,
            endpoint_url=endpoint_url,
            client_kwargs={"region_name": region},
            config_kwargs={
                "s3": {"addressing_style": "path" if path_style else "virtual"},
                "retries": {"total_max_attempts": 1, "mode": "standard"},  # `_call` retries, broken downloads too
                "connect_timeout": 10,
                "read_timeout": 60,
                # servers older than these checksums answer them with errors
                "request_checksum_calculation": "when_required",
                "response_checksum_validation": "when_required",
            },
            use_listings_cache=False,  # other workers write too
            skip_instance_cache=True,  # keys must not outlive the store in a cache of the process
        )
        self._fs.retries = 1
        self._conditional: bool | None = None
        """Whether the server heeds `If-None-Match`; None until it was seen."""

    def _call(self, path: str, request: Callable[[], _T]) -> _T:
        """The request's result; one that finds no server is sent again."""
        for delay in RETRY_DELAYS_S:
            try:
                return self._once(path, request)
            except StoreUnavailableError:
                time.sleep(delay)
        return self._once(path, request)

    def _once(self, path: str, request: Callable[[], _T]) -> _T:
        where = f"s3://{path} on {self._server}"
        try:
            return request()
        except ClientError as error:
            raise _refusal(where, error) from error
        except SSLError as error:
            raise StoreError(
                f"{where}: TLS failed: check the endpoint's https:// and the server's certificate"
            ) from error
        except _NO_ANSWER as error:
            raise StoreUnavailableError(
                f"{where}: no answer ({type(error).__name__}): check the endpoint, and that the server runs"
            ) from error
        except NoCredentialsError as error:
            raise StoreError(
                f"{where}: no credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or use a store block"
            ) from error
        except (BotoCoreError, ResponseParserError) as error:
            raise StoreError(f"{where}: {one_line(error)}") from error
        except OSError as error:
            # s3fs gives a server's refusal the nearest of Python's names, and keeps what it was
            if isinstance(error.__cause__, ClientError):
                raise _refusal(where, error.__cause__) from error
            raise

    def read(self, path: str) -> bytes | None:
        """GET, or None for 404."""
        try:
            return self._call(path, lambda: cast(bytes, self._fs.cat_file(path, max_concurrency=1)))
        except ObjectMissingError:
            return None

    def write(self, path: str, data: bytes) -> None:
        """One PUT."""
        self._call(path, lambda: self._fs.pipe_file(path, data))

    def create(self, path: str, data: bytes) -> bool:
        """One PUT with `If-None-Match: *`; where the server ignores that, write, settle, and read back."""
        # the first time looks first: a server that ignores the condition would overwrite what is there
        if not self._conditional and self._exists(path):
            return False
        if not self._put_if_absent(path, data):
            self._conditional = True
            return False
        if self._conditional is None:
            self._conditional = not self._put_if_absent(path, data)
        # Without conditions, of writers within the settling time the last one wins, and later ones see the object.
        # Good for a lease: a lost race costs double work, never wrong data, as shards are deterministic.
        return self._conditional or self._still_there(path, data)

    def _put_if_absent(self, path: str, data: bytes) -> bool:
        def put() -> bool:
            try:
                self._fs.pipe_file(path, data, mode="create")
            except FileExistsError:
                return False
            except OSError as error:
                status = _status(error.__cause__) if isinstance(error.__cause__, ClientError) else 0
                if status == 412:
                    return False
                if status != 501:
                    raise
                self._conditional = False
                self._fs.pipe_file(path, data)
            return True

        return self._call(path, put)

    def _still_there(self, path: str, data: bytes) -> bool:
        time.sleep(_SETTLE_S)
        return self.read(path) == data

    def write_from_file(self, path: str, file: Path) -> None:
        """PUT, in parts if large; either appears whole."""
        # two parts of half the size in memory at a time
        part = _SINGLE_PUT_BYTES // 2
        self._call(path, lambda: self._fs.put_file(str(file), path, chunksize=part, max_concurrency=2))

    def create_from_file(self, path: str, file: Path) -> bool:
        """Conditional PUT of a file; a large one is checked first and then sent in parts."""
        if file.stat().st_size <= _SINGLE_PUT_BYTES:
            return self.create(path, file.read_bytes())
        if self._exists(path):
            return False
        self.write_from_file(path, file)
        return True

    def _exists(self, path: str) -> bool:
        try:
            self.describe(path)
        except ObjectMissingError:
            return False
        return True

    def open(self, path: str) -> IO[bytes]:
        """A file that fetches exactly the ranges asked for."""
        return cast(IO[bytes], S3File(self, path))

    def read_range(self, path: str, start: int, length: int) -> bytes:
        """GET of `length` bytes, which must be there."""
        data = self._call(path, lambda: cast(bytes, self._fs.cat_file(path, start=start, end=start + length)))
        if len(data) != length:
            raise StoreError(f"s3://{path} on {self._server}: {len(data)} bytes came instead of {length}")
        return data

    def sizes(self, folder: str) -> dict[str, int]:
        """One listing, paged."""
        return {path[len(folder) + 1 :]: info.size for path, info in self._listed(folder, Delimiter="/")}

    def find(self, folder: str) -> Iterator[tuple[str, ObjectInfo]]:
        """A listing, a request for each thousand objects."""
        return self._listed(folder)

    def _listed(self, folder: str, **options: str) -> Iterator[tuple[str, ObjectInfo]]:
        bucket, prefix = _split(f"{folder}/")
        token: dict[str, str] = {}
        while True:
            page = self._request(folder, "list_objects_v2", Bucket=bucket, Prefix=prefix, **options, **token)
            for entry in page.get("Contents", []):
                info = ObjectInfo(int(entry["Size"]), entry["ETag"].strip('"'), entry["LastModified"].timestamp())
                yield f"{bucket}/{entry['Key']}", info
            if not page.get("IsTruncated"):
                return
            token = {"ContinuationToken": page["NextContinuationToken"]}

    def _request(self, path: str, name: str, **arguments: str) -> dict[str, Any]:
        """One request of the S3 protocol by its name in botocore."""
        return self._call(path, partial(cast(Callable[..., dict[str, Any]], self._fs.call_s3), name, **arguments))

    def version_id(self, path: str) -> str | None:
        """Version id of an object's present state, or None where the bucket is not versioned."""
        found = self._request(path, "head_object", **_names(path)).get("VersionId")
        return None if found in (None, "", "null") else str(found)

    def delete(self, path: str) -> None:
        """DELETE; S3 answers the same whether or not the object was there."""
        self._request(path, "delete_object", **_names(path))

    def describe(self, path: str) -> ObjectInfo:
        """HEAD: size and ETag."""
        info = self._request(path, "head_object", **_names(path))
        return ObjectInfo(int(info["ContentLength"]), info["ETag"].strip('"'), info["LastModified"].timestamp())

    def scratch(self, folder: str) -> Path:
        """A folder below the system's temporary one, of its own so that a dead run's files are found again."""
        digest = hashlib.sha256(f"{self._server} {folder}".encode()).hexdigest()[:16]
        path = Path(tempfile.gettempdir()) / f"rasterembed-{os.getuid()}" / digest
        with os_errors(str(path)):
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
        return path


class S3File(io.RawIOBase):
    """An object as a file without any buffer: each read is one request for just those bytes.

    Raises:
        ObjectMissingError: if there is no such object.
    """

    def __init__(self, storage: S3Storage, path: str) -> None:
        self._storage = storage
        self._path = path
        self._position = 0
        self.info = storage.describe(path)
        """The object's state when it was opened."""

    def readable(self) -> bool:
        """True."""
        return True

    def seekable(self) -> bool:
        """True."""
        return True

    def tell(self) -> int:
        """Bytes from the start."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move; no request."""
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self.info.size}[whence]
        self._position = max(0, start + offset)
        return self._position

    def readinto(self, buffer: WriteableBuffer) -> int:
        """Fill the buffer, as far as the object goes."""
        view = memoryview(buffer).cast("B")
        data = self._take(len(view))
        view[: len(data)] = data
        return len(data)

    def readall(self) -> bytes:
        """The rest, in one request."""
        return self._take(self.info.size)

    def _take(self, most: int) -> bytes:
        length = min(most, self.info.size - self._position)
        if length <= 0:
            return b""
        data = self._storage.read_range(self._path, self._position, length)
        self._position += length
        return data


def _split(path: str) -> tuple[str, str]:
    bucket, _, key = path.partition("/")
    return bucket, key


def _names(path: str) -> dict[str, str]:
    bucket, key = _split(path)
    return {"Bucket": bucket, "Key": key}


def _status(error: ClientError) -> int:
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def _refusal(where: str, error: ClientError) -> StoreError:
    """What the server answered, in one line; its own words may name keys, its codes do not."""
    status, code = _status(error), error.response.get("Error", {}).get("Code") or "no code"
    if code == "NoSuchBucket":
        return StoreError(f"{where}: there is no such bucket")
    if status == 404:
        what = "object" if code == "NoSuchKey" else "object, or no such bucket"  # HEAD has no body to tell
        return ObjectMissingError(f"{where}: there is no such {what}")
    if status == 403:
        return StoreError(f"{where}: access denied ({code}): check the keys and the bucket's policy")
    # 409: another conditional write to the same key is under way
    if status in (409, 429, 500, 502, 503, 504):
        return StoreUnavailableError(f"{where}: {code} (HTTP {status})")
    return StoreError(f"{where}: {code} (HTTP {status})")
