"""The object store: a folder or an S3/MinIO bucket, with the same layout and the same promises.

Objects appear whole or not at all, and `create` lets exactly one of several writers win. Raster windows are read by
GDAL, which gets this store's own endpoint and keys for the reading thread alone (`gdal_env`).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

import rasterio
from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator
from rasterio.session import AWSSession

from rasterembed.backends import Backend, FolderBackend, ObjectInfo, S3Backend
from rasterembed.errors import UsageError


class ObjectStore(BaseModel):
    """A folder, or a bucket and prefix of an S3 server, with what is needed to reach it."""

    model_config = ConfigDict(frozen=True, ignored_types=(cached_property,))

    root: str = Field(description="A folder, or s3://bucket/prefix.")
    endpoint_url: str | None = Field(
        default=None,
        description="URL of the S3 server, as http://minio:9000; http:// turns TLS off. Empty: AWS.",
    )
    access_key: SecretStr | None = Field(default=None, description="Access key id. Empty: the AWS credentials chain.")
    secret_key: SecretStr | None = Field(default=None, description="Secret access key.")
    region: str = Field(default="us-east-1", description="Region of the bucket.")
    path_style: bool = Field(
        default=True,
        description="Address buckets by path (host/bucket), as MinIO does, not by host name.",
    )

    @field_validator("root")
    @classmethod
    def _check_root(cls, root: str) -> str:
        if root.startswith("s3://"):
            if not urlsplit(root).netloc:
                raise ValueError(f"{root!r} names no bucket: use s3://bucket/prefix")
            return root.rstrip("/")
        if "://" in root:
            raise ValueError(f"{root!r} is neither a folder nor s3://bucket/prefix")
        if not root:
            raise ValueError("the root is empty: give a folder or s3://bucket/prefix")
        return str(Path(root).expanduser().absolute())

    @field_validator("endpoint_url")
    @classmethod
    def _check_endpoint(cls, url: str | None) -> str | None:
        if not url:
            return None
        if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).netloc:
            raise ValueError(f"endpoint {url!r} is not a URL: use http://host:port or https://host")
        return url.rstrip("/")

    @classmethod
    def from_uri(cls, root: str) -> ObjectStore:
        """A store by its root alone; for S3, endpoint, keys and region come from the usual AWS variables."""
        if not root.startswith("s3://"):
            return cls(root=root)
        key, secret = os.environ.get("AWS_ACCESS_KEY_ID"), os.environ.get("AWS_SECRET_ACCESS_KEY")
        endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
        return cls(
            root=root,
            endpoint_url=endpoint,
            access_key=SecretStr(key) if key else None,
            secret_key=SecretStr(secret) if secret else None,
            region=os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1",
            path_style=endpoint is not None,
        )

    @property
    def is_s3(self) -> bool:
        """Whether the root is a bucket."""
        return self.root.startswith("s3://")

    @cached_property
    def _s3(self) -> S3Backend:
        return S3Backend(
            endpoint_url=self.endpoint_url,
            access_key=self.access_key.get_secret_value() if self.access_key else None,
            secret_key=self.secret_key.get_secret_value() if self.secret_key else None,
            region=self.region,
            path_style=self.path_style,
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

    def delete(self, key: str) -> None:
        """Remove an object; one that is not there is no error."""
        self._objects.delete(self._path(key))

    def scratch(self, folder: str) -> Path:
        """A local folder for files on their way to `folder`; for a folder store, on its file system."""
        return self._objects.scratch(self._path(folder))

    def clear_scratch(self, folder: str) -> None:
        """Remove what a killed process left of its files on their way to `folder`."""
        if not self.is_s3:
            for left in self.scratch(folder).glob("*.part"):
                left.unlink(missing_ok=True)

    def describe(self, uri: str) -> ObjectInfo:
        """Size and version of any object this store's credentials can see: a path, or s3://bucket/key.

        Raises:
            UsageError: if `uri` is neither.
            StoreError: if there is no such object, or it may not be read.
            StoreUnavailableError: if the server does not answer.
        """
        if uri.startswith("s3://"):
            return self._s3.describe(uri.removeprefix("s3://"))
        return FolderBackend().describe(uri)

    @contextmanager
    def gdal_env(self, uri: str, *, cache_bytes: int, sidecars: bool = False) -> Iterator[str]:
        """GDAL configured, in this thread alone, to read `uri`; yields the path that GDAL knows it by.

        Args:
            uri: an absolute path or s3://bucket/key.
            cache_bytes: block cache of the whole process, in bytes.
            sidecars: let GDAL look for .msk, .ovr and .aux.xml beside the file; a request each on S3.
        """
        options: dict[str, Any] = {
            "GDAL_CACHEMAX": cache_bytes,  # an int is bytes here; only the variable's "64" is MB
            "GDAL_DISABLE_READDIR_ON_OPEN": "TRUE" if sidecars else "EMPTY_DIR",
            "GDAL_PAM_ENABLED": "NO",
            "CPL_DEBUG": False,
        }
        if not uri.startswith("s3://"):
            with rasterio.Env(session=None, **options):
                yield uri
            return
        endpoint = urlsplit(self.endpoint_url or "")
        session = AWSSession(
            aws_access_key_id=self.access_key.get_secret_value() if self.access_key else None,
            aws_secret_access_key=self.secret_key.get_secret_value() if self.secret_key else None,
            region_name=self.region,
            endpoint_url=endpoint.netloc or None,
        )
        options |= {
            "AWS_HTTPS": "NO" if endpoint.scheme == "http" else "YES",
            "AWS_VIRTUAL_HOSTING": "FALSE" if self.path_style else "TRUE",
            "CPL_VSIL_CURL_NON_CACHED": "/vsis3/",  # an object may be replaced while a worker lives
            "GDAL_HTTP_MERGE_CONSECUTIVE_RANGES": "YES",
            "GDAL_INGESTED_BYTES_AT_OPEN": 65536,  # header and block index of most files in one request
            "GDAL_HTTP_MAX_RETRY": 3,
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
    if raster.startswith("s3://"):
        parts = urlsplit(raster)
        if not parts.netloc or not parts.path.strip("/"):
            raise UsageError(f"raster {raster!r} names no object: use s3://bucket/key")
        return raster
    if "://" in raster or raster.startswith("/vsi"):
        raise UsageError(f"raster {raster!r} is neither a file nor s3://bucket/key")
    return str(Path(raster).expanduser().absolute())
