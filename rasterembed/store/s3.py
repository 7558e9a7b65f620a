"""Keep objects on an S3 server. The requests are sent with s3fs."""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import IO, Any, TypeVar, cast

import boto3
import s3fs
from aiohttp import ClientError as HttpError
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionError,
    HTTPClientError,
    IncompleteReadError,
    InvalidRegionError,
    NoCredentialsError,
    ProxyConnectionError,
    SSLError,
)
from botocore.parsers import ResponseParserError
from fsspec.asyn import sync_wrapper

from rasterembed.errors import Access, ObjectMissingError, StoreError, StoreUnavailableError, one_line, os_errors
from rasterembed.store.local_cache import scratch_folder
from rasterembed.store.range_file import RangeFile
from rasterembed.store.s3_errors import (
    NOT_S3,
    EmptyRangeError,
    NotS3Error,
    check_answer,
    refusal,
    status_of,
    why_no_certificates,
    why_not_sent,
)
from rasterembed.store.storage import RETRY_DELAYS_S, ObjectInfo

_SETTLE_S = 1.0
"""Seconds to wait after a write to a server without conditional writes. After this time, all runs see the object."""

_SINGLE_PUT_BYTES = 64 * 2**20
"""Size in bytes of the largest file that is sent in one request.

A larger file is sent in parts. All parts appear together as one object after the last part. Some servers accept no
condition for an upload in parts.
"""

_NO_ANSWER = (ConnectionError, HTTPClientError, IncompleteReadError, HttpError, ConnectionResetError, TimeoutError)
"""Exceptions of botocore, aiohttp and sockets for a connection that fails, breaks, or gets no answer."""

_BUCKET = re.compile(r"[A-Za-z0-9._-]{1,255}")
"""Names of buckets, also of old ones. Addresses here cannot name an access point by its ARN, which has slashes."""

_T = TypeVar("_T")


class _FileSystem(s3fs.S3FileSystem):  # type: ignore[misc]
    """The file system of s3fs. Each answer must be that of an S3 server."""

    async def _call_s3(self, method: str, *options: dict[str, Any], **arguments: Any) -> dict[str, Any]:
        answer: dict[str, Any] = await super()._call_s3(method, *options, **arguments)
        check_answer(method, answer)
        return answer

    call_s3 = sync_wrapper(_call_s3)


class S3Storage:
    """Keeps objects on an S3 server. A path is `bucket/key`.

    Each PUT is atomic. `create` sends a PUT with the condition `If-None-Match: *`.

    Args:
        endpoint_url: URL of the server, or None for AWS.
        access_key: access key id, or None for botocore's chain of credentials.
        secret_key: secret access key, or None if `access_key` is None.
        region: region of the buckets.
        path_style: True to address buckets by path, False to address them by host name.
        unsigned: True to send no credentials, for public buckets.
        requester_pays: True to accept the costs of each request.
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
        requester_pays: bool,
    ) -> None:
        self._server = endpoint_url or "AWS"
        self._region = region
        with self._explaining("the settings of AWS"):
            self.session = boto3.Session(access_key, secret_key, region_name=region)
            """The boto3 session. Rasterio reads GDAL's credentials from this session."""
        self._fs = _FileSystem(
            anon=unsigned,
            requester_pays=requester_pays,
            key=access_key,
            secret=secret_key,
            endpoint_url=endpoint_url,
            client_kwargs={"region_name": region},
            config_kwargs={
                "s3": {"addressing_style": "path" if path_style else "virtual"},
                # Turn botocore's retries off, because `_call` retries. `_call` also retries a download that breaks,
                # which botocore does not.
                "retries": {"total_max_attempts": 1, "mode": "standard"},
                "connect_timeout": 10,
                "read_timeout": 60,
                # Send no optional checksums, because some servers do not know them and answer with errors.
                "request_checksum_calculation": "when_required",
                "response_checksum_validation": "when_required",
            },
            use_listings_cache=False,  # A cached listing would lack the objects that other processes write.
            skip_instance_cache=True,  # Otherwise s3fs would keep the secret keys in a global cache.
        )
        self._fs.retries = 1
        self._conditional: bool | None = None
        """Whether the server obeys `If-None-Match`. None means that this is not known yet."""

    def _call(self, path: str, request: Callable[[], _T]) -> _T:
        """Send a request and return the result. If the server does not answer, send the request again."""
        for delay in RETRY_DELAYS_S:
            try:
                return self._once(path, request)
            except StoreUnavailableError:
                time.sleep(delay)
        return self._once(path, request)

    def _once(self, path: str, request: Callable[[], _T]) -> _T:
        """Send a request once."""
        where = f"s3://{path} on {self._server}"
        if "?versionId=" in path:  # s3fs would cut the key before this text, and read another object.
            raise StoreError(f"{where}: a key with ?versionId= cannot be read: copy the object to another key")
        if not _BUCKET.fullmatch(_split(path)[0]):
            raise StoreError(
                f"{where}: there can be no such bucket, because its name has other characters than letters, digits, "
                "dots, hyphens and underscores: check its name"
            )
        with self._explaining(where):
            return request()

    @contextmanager
    def _explaining(self, where: str) -> Iterator[None]:
        """Turn any failure into a StoreError that begins with `where`. Its text has one line."""
        try:
            yield
        except ClientError as error:
            raise refusal(where, self._region, error) from error
        except SSLError as error:
            raise StoreError(
                f"{where}: TLS failed: check the endpoint's https:// and the server's certificate. If your own "
                "authority signed it, AWS_CA_BUNDLE must name the file with the authority's certificate"
            ) from error
        except ProxyConnectionError as error:
            raise StoreUnavailableError(
                f"{where}: the proxy does not answer: check HTTPS_PROXY and HTTP_PROXY. NO_PROXY lists the hosts that "
                "are reached without a proxy"
            ) from error
        except _NO_ANSWER as error:
            if isinstance(error, BotoCoreError) and (reason := why_not_sent(error)):
                raise StoreError(f"{where}: {reason}") from error
            unusable = None if self._server.startswith("http:") else why_no_certificates()
            if unusable is not None:
                raise StoreError(f"{where}: {unusable}: give the file of the authority's certificate") from error
            raise StoreUnavailableError(
                f"{where}: no answer ({type(error).__name__}): check the endpoint, and that the server runs"
            ) from error
        except NoCredentialsError as error:
            raise StoreError(
                f"{where}: no credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or use a store block that "
                "has keys"
            ) from error
        except (NotS3Error, ResponseParserError) as error:
            raise StoreError(f"{where}: {NOT_S3}") from error
        except InvalidRegionError as error:
            raise StoreError(
                f"{where}: the region {self._region!r} cannot be used: correct AWS_REGION, or the region of "
                "the block or of the source store"
            ) from error
        except BotoCoreError as error:
            raise StoreError(f"{where}: {why_not_sent(error) or one_line(error)}") from error
        except OSError as error:
            # s3fs turns some answers of the server into exceptions of Python, such as FileNotFoundError. The cause of
            # such an exception holds the answer.
            if isinstance(error.__cause__, ClientError):
                raise refusal(where, self._region, error.__cause__) from error
            if error.filename:  # Credentials are read from a file that a variable or another file of AWS names.
                raise StoreError(
                    f"{where}: {error.filename}: {error.strerror}: let this user read the file, or correct the "
                    "settings of AWS that name it"
                ) from error
            raise

    def read(self, path: str, most: int | None = None) -> bytes | None:
        """Return the object, or its first `most` bytes, by one GET. Return None if the server answers 404."""
        limits = {} if most is None else {"start": 0, "end": most}
        try:
            return self._call(path, lambda: cast(bytes, self._fs.cat_file(path, max_concurrency=1, **limits)))
        except ObjectMissingError:
            return None
        except EmptyRangeError:
            return b""

    def write(self, path: str, data: bytes) -> None:
        """Write the object by one PUT."""
        self._call(path, lambda: self._fs.pipe_file(path, data))

    def create(self, path: str, data: bytes) -> bool:
        """Write the object by one PUT with `If-None-Match: *`.

        If the server ignores this condition: write the object, wait, and read the object to see which writer won.
        """
        # A server that ignores the condition would overwrite an existing object. Check for the object first, until it
        # is known that the server obeys the condition.
        if not self._conditional and self._exists(path):
            return False
        if not self._put_if_absent(path, data):
            self._conditional = True
            return False
        if self._conditional is None:
            self._conditional = not self._put_if_absent(path, data)
        # Without conditional writes: if several writers write within `_SETTLE_S`, the last writer wins. Later writers
        # see the object. This is enough for a lease: if two runs work at once, both write equal shards.
        return self._conditional or self._survived(path, data)

    def _put_if_absent(self, path: str, data: bytes) -> bool:
        """Send a conditional PUT. Return False if the server answers that the object exists."""

        def put() -> bool:
            try:
                self._fs.pipe_file(path, data, mode="create")
            except FileExistsError:
                return False
            except OSError as error:
                status = status_of(error.__cause__) if isinstance(error.__cause__, ClientError) else 0
                if status == 412:  # Precondition Failed: the object exists.
                    return False
                if status != 501:  # Not Implemented: the server has no conditional writes.
                    raise
                self._conditional = False
                self._fs.pipe_file(path, data)
            return True

        return self._call(path, put)

    def _survived(self, path: str, data: bytes) -> bool:
        """Return True if no other writer replaced the object that this writer has just written."""
        time.sleep(_SETTLE_S)
        return self.read(path) == data

    def write_from_file(self, path: str, file: Path) -> None:
        """Write the object by one PUT, or in parts if the file is large. In both cases the object appears whole."""
        # Two parts are in memory at the same time, so each part has half the size.
        part = _SINGLE_PUT_BYTES // 2
        self._call(path, lambda: self._fs.put_file(str(file), path, chunksize=part, max_concurrency=2))

    def create_from_file(self, path: str, file: Path) -> bool:
        """Write the object by a conditional PUT. For a large file, check that no object exists, then send parts."""
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
        """Open the object as a file. Each read fetches only the bytes that it returns."""
        return cast(IO[bytes], S3File(self, path))

    def read_range(self, path: str, start: int, length: int) -> bytes:
        """Return `length` bytes that begin at `start`, by one GET.

        Raises:
            StoreError: if the server sends fewer bytes.
        """
        data = self._call(path, lambda: cast(bytes, self._fs.cat_file(path, start=start, end=start + length)))
        if len(data) != length:
            raise StoreError(f"s3://{path} on {self._server}: {len(data)} bytes arrived instead of {length}")
        return data

    def sizes(self, folder: str) -> dict[str, int]:
        """Return the sizes in bytes, by name, of the objects directly in a folder. The requests are listings."""
        return {path[len(folder) + 1 :]: info.size for path, info in self._list(folder, Delimiter="/")}

    def find(self, folder: str, beginning: str = "") -> Iterator[tuple[str, ObjectInfo]]:
        """Yield the path and the `ObjectInfo` of every object in a folder and its subfolders.

        Each request lists up to a thousand objects. With `beginning`, the server leaves out the objects whose path in
        the folder begins in another way.
        """
        return self._list(folder, beginning)

    def find_deletable(self, folder: str) -> Iterator[str]:
        """Yield the path of every object in a folder and its subfolders."""
        return (path for path, _ in self.find(folder))

    def _list(self, folder: str, beginning: str = "", **options: str) -> Iterator[tuple[str, ObjectInfo]]:
        bucket, prefix = _split(f"{folder}/{beginning}")
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
        """Send the request with this name in botocore, and return the answer."""
        return self._call(path, partial(cast(Callable[..., dict[str, Any]], self._fs.call_s3), name, **arguments))

    def _head(self, path: str) -> dict[str, Any]:
        try:
            return self._request(path, "head_object", **_bucket_and_key(path))
        except (ObjectMissingError, StoreUnavailableError):
            raise
        except StoreError:
            # The answer to a refused HEAD has no body that says why. That of a GET has one.
            self._call(path, lambda: self._fs.cat_file(path, start=0, end=1))
            raise

    def version_id(self, path: str) -> str | None:
        """Return the version id of the object, or None if the bucket keeps no versions."""
        version = self._head(path).get("VersionId")
        return None if version in (None, "", "null") else str(version)

    def delete(self, path: str) -> None:
        """Remove the object by one DELETE. S3 gives the same answer if the object does not exist."""
        self._request(path, "delete_object", **_bucket_and_key(path))

    def describe(self, path: str) -> ObjectInfo:
        """Return size and ETag of the object, by one HEAD."""
        info = self._head(path)
        return ObjectInfo(int(info["ContentLength"]), info["ETag"].strip('"'), info["LastModified"].timestamp())

    def scratch(self, folder: str) -> Path:
        """Return a local folder in the system's temporary folder. It is used only for the given folder of the server.

        The local name depends only on server and folder, so a later run finds the unfinished files of a killed run.
        """
        digest = hashlib.sha256(f"{self._server} {folder}".encode()).hexdigest()[:16]
        path = scratch_folder() / digest
        with os_errors(str(path), Access.WRITE):
            path.mkdir(mode=0o700, exist_ok=True)
        return path


class S3File(RangeFile):
    """An object that is read as a file without a buffer. Each read sends one request for exactly the bytes it returns.

    Args:
        storage: storage of the object.
        path: bucket and key of the object, `bucket/key`.

    Raises:
        ObjectMissingError: if there is no such object.
    """

    def __init__(self, storage: S3Storage, path: str) -> None:
        super().__init__(storage.describe(path))
        self._storage = storage
        self._path = path

    def _fetch(self, start: int, length: int) -> bytes:
        return self._storage.read_range(self._path, start, length)


def _split(path: str) -> tuple[str, str]:
    bucket, _, key = path.partition("/")
    return bucket, key


def _bucket_and_key(path: str) -> dict[str, str]:
    bucket, key = _split(path)
    return {"Bucket": bucket, "Key": key}
