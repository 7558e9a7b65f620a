"""The object store: a folder or an S3/MinIO bucket, with the same layout and the same promises.

Objects appear whole or not at all, and `create` lets exactly one of several writers win. The store's endpoint and keys
read rasters on S3 too, whether or not its own root is there; what is left empty comes from the usual AWS variables and
files. GDAL gets them for the reading thread alone (`gdal_env`), never through the environment of the process.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Self
from urllib.parse import urlsplit

import rasterio
from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator
from rasterio.session import AWSSession

from rasterembed.errors import UsageError, os_errors
from rasterembed.store.folder import FolderBackend
from rasterembed.store.storage import Backend, ObjectInfo

if TYPE_CHECKING:
    from rasterembed.store.s3 import S3Backend


MAX_READ_BYTES = 64 * 2**20
"""Of a raster, in one go: from S3 what GDAL asks for together and keeps, which must hold the longest read."""


class ObjectStore(BaseModel):
    """A folder, or a bucket and prefix of an S3 server, with what is needed to reach it."""

    # an input that is refused may hold a key
    model_config = ConfigDict(frozen=True, ignored_types=(cached_property,), hide_input_in_errors=True)

    root: str = Field(description="A folder, or s3://bucket/prefix.")
    endpoint_url: str | None = Field(
        default=None,
        description="URL of the S3 server, as http://minio:9000; http:// turns TLS off. "
        "Empty: AWS_ENDPOINT_URL, or else AWS.",
    )
    access_key: SecretStr | None = Field(default=None, description="Access key id. Empty: the AWS credentials chain.")
    secret_key: SecretStr | None = Field(default=None, description="Secret access key.")
    region: str | None = Field(default=None, description="Region of the bucket. Empty: AWS_REGION, or else us-east-1.")
    path_style: bool = Field(
        default=True,
        description="Address buckets by path (host/bucket), as MinIO does, not by host name.",
    )

    @field_validator("root")
    @classmethod
    def _check_root(cls, root: str) -> str:
        if root.startswith("s3://"):
            bucket = urlsplit(root).netloc
            if not bucket or "@" in bucket:
                raise ValueError("the root names no bucket: use s3://bucket/prefix, and keys in fields of their own")
            return root.rstrip("/")
        if "://" in root:
            raise ValueError("the root is neither a folder nor s3://bucket/prefix")
        if not root:
            raise ValueError("the root is empty: give a folder or s3://bucket/prefix")
        return str(Path(os.path.expanduser(root)).absolute())

    @field_validator("endpoint_url")
    @classmethod
    def _check_endpoint(cls, url: str | None) -> str | None:
        if not url:
            return None
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.netloc or "@" in parts.netloc or parts.path.strip("/"):
            raise ValueError("the endpoint is not the URL of a server: use http://host:port or https://host")
        return url.rstrip("/")

    @model_validator(mode="after")
    def _check_keys(self) -> Self:
        if (self.access_key is None) != (self.secret_key is None):
            raise ValueError("one of access_key and secret_key is missing: give both, or neither")
        return self

    @property
    def is_s3(self) -> bool:
        """Whether the root is a bucket."""
        return self.root.startswith("s3://")

    @property
    def _endpoint(self) -> str | None:
        named = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
        try:
            return self.endpoint_url or self._check_endpoint(named)
        except ValueError as error:
            raise UsageError(f"AWS_ENDPOINT_URL: {error}") from error

    @property
    def _unsigned(self) -> bool:
        """Whether a public bucket is asked for, by the variable that GDAL knows too."""
        asked = os.environ.get("AWS_NO_SIGN_REQUEST", "").upper() in ("YES", "TRUE", "ON", "1")
        return asked and self.access_key is None

    @cached_property
    def _s3(self) -> S3Backend:
        from rasterembed.store.s3 import S3Backend  # folders do without a quarter of all that is imported

        return S3Backend(
            endpoint_url=self._endpoint,
            access_key=self.access_key.get_secret_value() if self.access_key else None,
            secret_key=self.secret_key.get_secret_value() if self.secret_key else None,
            region=self.region or os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1",
            path_style=self.path_style,
            unsigned=self._unsigned,
        )

    @cached_property
    def _objects(self) -> Backend:
        return self._s3 if self.is_s3 else FolderBackend()

    def _path(self, key: str) -> str:
        return f"{self.root.removeprefix('s3://')}/{key}"

    def uri(self, key: str) -> str:
        """Full address of an object: an absolute path, or s3://bucket/prefix/key."""
        return f"{self.root}/{key}"

    def read(self, key: str) -> bytes | None:
        """The whole object, or None where there is none."""
        return self._objects.read(self._path(key))

    def write(self, key: str, data: bytes) -> None:
        """Write a whole object, replacing one that is there, in one atomic step."""
        self._objects.write(self._path(key), data)

    def create(self, key: str, data: bytes) -> bool:
        """Write a whole object only if there is none; of several writers exactly one gets True."""
        return self._objects.create(self._path(key), data)

    def create_from_file(self, key: str, file: Path) -> bool:
        """As `create`, with the content of a local file, which is gone afterwards."""
        try:
            return self._objects.create_from_file(self._path(key), file)
        finally:
            file.unlink(missing_ok=True)

    def write_from_file(self, key: str, file: Path) -> None:
        """As `write`, with the content of a local file, which is gone afterwards."""
        try:
            self._objects.write_from_file(self._path(key), file)
        finally:
            file.unlink(missing_ok=True)

    def open(self, key: str) -> IO[bytes]:
        """The object as a seekable file that fetches only the ranges asked for."""
        return self._objects.open(self._path(key))

    def sizes(self, folder: str) -> dict[str, int]:
        """Names and sizes in bytes of the objects directly in a folder."""
        return self._objects.sizes(self._path(folder))

    def find(self, folder: str) -> Iterator[tuple[str, ObjectInfo]]:
        """Keys and identities of all objects below a folder of the store."""
        for path, info in self._objects.find(self._path(folder)):
            yield path.removeprefix(self._path("")), info

    def find_uploads(self, uri: str) -> Iterator[tuple[str, str, ObjectInfo]]:
        """Buckets, keys and identities of all objects below s3://bucket/prefix, with this store's credentials.

        Raises:
            UsageError: if `uri` is something else.
            StoreError: if there is no such bucket, or it may not be listed.
        """
        if not uri.startswith("s3://") or not urlsplit(uri).netloc:
            raise UsageError(f"{uri!r} is not s3://bucket/prefix")
        for path, info in self._s3.find(uri.removeprefix("s3://").rstrip("/")):
            bucket, _, key = path.partition("/")
            yield bucket, key, info

    def version_id(self, uri: str) -> str | None:
        """Version id of an object on S3, or None where its bucket is not versioned.

        Raises:
            StoreError: if there is no such object, or it may not be read.
        """
        return self._s3.version_id(uri.removeprefix("s3://"))

    def delete(self, key: str) -> None:
        """Remove an object; one that is not there is no error."""
        self._objects.delete(self._path(key))

    def scratch(self, folder: str) -> Path:
        """A local folder for files on their way to `folder`; for a folder store, on its file system."""
        return self._objects.scratch(self._path(folder))

    def clear_scratch(self, folder: str, older_than_s: float = 0.0) -> None:
        """Remove what a killed process left on this machine of its files on their way to `folder`."""
        path = self.scratch(folder)
        with os_errors(str(path)):
            for left in path.glob("*.part"):
                with suppress(FileNotFoundError):  # its owner lives, and is done with it
                    if left.stat().st_mtime <= time.time() - older_than_s:
                        left.unlink()

    def describe(self, uri: str) -> ObjectInfo:
        """Size and version of any object this store's credentials can see: a path, or s3://bucket/key.

        Raises:
            ObjectMissingError: if there is none.
            StoreError: if it may not be read.
            StoreUnavailableError: if the server does not answer.
        """
        if uri.startswith("s3://"):
            return self._s3.describe(uri.removeprefix("s3://"))
        return FolderBackend().describe(uri)

    @contextmanager
    def gdal_env(self, uri: str, *, cache_bytes: int) -> Iterator[str]:
        """GDAL configured, in this thread alone, to read `uri`; yields the path that GDAL knows it by.

        Args:
            uri: an absolute path or s3://bucket/key.
            cache_bytes: block cache of the whole process, in bytes.
        """
        options: dict[str, Any] = {
            "GDAL_CACHEMAX": cache_bytes,  # an int is bytes here; only the variable's "64" is MB
            "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",  # no other file beside it is opened, nor asked for
            "GDAL_PAM_ENABLED": "NO",
            # that short cut gives a truncated PNG's missing rows as whatever was in memory, and no error
            "GDAL_PNG_WHOLE_IMAGE_OPTIM": "NO",
            "CPL_DEBUG": False,
        }
        if not uri.startswith("s3://"):
            with rasterio.Env(session=None, **options):
                yield uri
            return
        endpoint = urlsplit(self._endpoint or "https://")
        session = AWSSession(self._s3.session, aws_unsigned=self._unsigned, endpoint_url=endpoint.netloc or None)
        options |= {
            "AWS_HTTPS": "NO" if endpoint.scheme == "http" else "YES",
            "AWS_VIRTUAL_HOSTING": "FALSE" if self.path_style else "TRUE",
            "CPL_VSIL_CURL_NON_CACHED": "/vsis3/",  # an object may be replaced while a worker lives
            "GDAL_HTTP_MERGE_CONSECUTIVE_RANGES": "YES",
            "GDAL_MAX_RAW_BLOCK_CACHE_SIZE": str(MAX_READ_BYTES),  # blocks asked for together
            "CPL_VSIL_CURL_CACHE_SIZE": str(MAX_READ_BYTES + 2**20),  # a longer read is split, and its parts overlap
            "GDAL_INGESTED_BYTES_AT_OPEN": 65536,  # header and block index of most files in one request
            "GDAL_HTTP_MAX_RETRY": 1,  # for a single request that fails; the reader opens anew after that
            "GDAL_HTTP_RETRY_DELAY": 0.5,
            "GDAL_HTTP_CONNECTTIMEOUT": 10,
            "GDAL_HTTP_TIMEOUT": 120,
        }
        with rasterio.Env(session=session, **options):
            yield f"/vsis3/{uri.removeprefix('s3://')}"


def locate(raster: str) -> str:
    """A raster's canonical URI: an absolute path, or s3://bucket/key as given.

    Raises:
        UsageError: if `raster` is a connection string or a URL of another kind, which GDAL would follow.
    """
    if not raster or min(raster) < " ":
        raise UsageError(f"raster {raster!r} is no path: give a file or s3://bucket/key")
    if raster.startswith("s3://"):
        bucket, _, key = raster.removeprefix("s3://").partition("/")
        if not bucket or not key or key.endswith("/"):
            raise UsageError(f"raster {raster!r} names no object: use s3://bucket/key")
        return raster
    if "://" in raster or raster.startswith("/vsi"):
        raise UsageError(f"raster {raster!r} is neither a file nor s3://bucket/key")
    return str(Path(os.path.expanduser(raster)).absolute())
