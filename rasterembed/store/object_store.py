"""The object store: a folder or a bucket of an S3 server. Both have the same keys and the same guarantees.

An object appears whole or not at all. If several writers `create` the same object, exactly one succeeds.
The store's endpoint and credentials are also used to read rasters on S3, even if the store itself is a folder. Empty
settings are taken from the usual AWS environment variables and files.
"""

from __future__ import annotations

import io
import os
import re
import time
from collections.abc import Iterator
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import IO, TYPE_CHECKING, Self, cast
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from rasterembed.errors import Access, DataError, UsageError, os_errors, path_text, validation_reason, why_not_utf8
from rasterembed.options_model import OneLineErrors
from rasterembed.store.folder import FolderStorage
from rasterembed.store.https_url import canonical_url, is_https, shown_url
from rasterembed.store.local_path import absolute_path
from rasterembed.store.server_settings import ServerSettings, SourceStore, open_https
from rasterembed.store.storage import ObjectInfo, Storage

if TYPE_CHECKING:
    from rasterembed.collection.summaries import CollectionSummary
    from rasterembed.dataset.listing import DatasetSummary
    from rasterembed.store.https import HttpsClient
    from rasterembed.store.https_file import RemoteFile
    from rasterembed.store.s3 import S3Storage

DEFAULT_ROOT = "rasterembed-store"
"""Folder in the working directory. Commands and flows use it if no root is given."""

_LIKE_AN_ADDRESS = re.compile(r"(s3a?|gs|az|abfss?|https?|file):", re.IGNORECASE)
"""Beginning of a mistyped address, such as s3:/bucket. A folder of this name would hide the mistake."""

LOCAL_RASTERS_VARIABLE = "RASTEREMBED_LOCAL_RASTERS"
"""Environment variable with more entries for `StoreSettings.local_rasters`, separated as in PATH."""


class _Root(BaseModel):
    """The place of a store. It is a class of its own, so that forms show the root before the server."""

    root: str = Field(description="A folder, or s3://bucket/prefix.")

    _path_of_root = field_validator("root", mode="before")(path_text)

    @field_validator("root")
    @classmethod
    def _check_root(cls, root: str) -> str:
        problem = why_not_utf8(root)
        if problem is not None:
            raise ValueError(f"the root {problem}")
        if root.startswith("s3://"):
            bucket = urlsplit(root).netloc
            if not bucket or "@" in bucket:
                raise ValueError("the root names no bucket: use s3://bucket/prefix, and give the keys in their fields")
            if root != root.strip() or {"", ".", ".."} & set(root.removeprefix("s3://").rstrip("/").split("/")):
                raise ValueError(
                    "the root has blanks at its ends, `//`, `.` or `..`, and S3 takes them as part of a name: use "
                    "s3://bucket/prefix without them. If a store has this root, move its objects to another prefix"
                )
        elif "://" in root or _LIKE_AN_ADDRESS.match(root):
            raise ValueError("the root is neither a folder nor s3://bucket/prefix")
        elif not root:
            raise ValueError("the root is empty: give a folder or s3://bucket/prefix")
        return root


class StoreSettings(ServerSettings, _Root):
    """The root, the server and the credentials of a store. `ObjectStore` and the Prefect block share these fields."""

    local_rasters: tuple[str, ...] = Field(
        default=(),
        description="Local folders or files with rasters that datasets in an S3 store may name. "
        "Any other local raster is read only by a run that was given its path.",
    )


class ObjectStore(StoreSettings, OneLineErrors):
    """A folder, or a bucket and prefix of an S3 server. A key is the path of an object relative to the root.

    Every method that takes a key or a folder raises `StoreError` if the store refuses, and `StoreUnavailableError` if
    the server does not answer.

    Example:
        >>> import tempfile
        >>> from rasterembed.store.object_store import ObjectStore
        >>> store = ObjectStore(root=tempfile.mkdtemp())  # or root="s3://bucket/prefix"
        >>> store.create("notes/first.txt", b"hello")
        True
        >>> store.create("notes/first.txt", b"too late")
        False
        >>> store.read("notes/first.txt")
        b'hello'
        >>> store.sizes("notes")
        {'first.txt': 5}
    """

    model_config = ConfigDict(frozen=True, extra="forbid", ignored_types=(cached_property,))

    source_store: SourceStore | None = None
    """How rasters are read. None: rasters on S3 from the server of this store, and none over https."""

    @field_validator("root")
    @classmethod
    def _absolute(cls, root: str) -> str:
        if root.startswith("s3://"):
            return root.rstrip("/")
        path = str(absolute_path(root))
        problem = why_not_utf8(path)
        if problem is not None:
            raise ValueError(f"the root {problem}")
        return path

    @property
    def is_s3(self) -> bool:
        """Whether the root is on an S3 server."""
        return self.root.startswith("s3://")

    @property
    def folder_is_missing(self) -> bool:
        """Whether the root is a folder that does not exist. A mistyped root is the usual reason."""
        return not self.is_s3 and not Path(self.root).is_dir()

    @property
    def why_empty(self) -> str:
        """Words for an error about an empty store, such as `, because the folder does not exist`, or nothing."""
        if self.is_s3:
            return ", and S3 does not tell an empty prefix from one that does not exist"
        return ", because the folder does not exist" if self.folder_is_missing else ""

    def check_folder(self) -> None:
        """Refuse a root that is a folder that does not exist. Call this before you list the content of a store.

        Raises:
            UsageError: if the folder does not exist.
        """
        if self.folder_is_missing:
            raise UsageError(f"there is no folder {self.root}: check the root, or embed a raster first")

    @property
    def endpoint(self) -> str | None:
        """URL of the S3 server from `endpoint_url` or the environment, or None for AWS.

        Raises:
            UsageError: if the environment's URL is not the URL of a server.
        """
        variable = "AWS_ENDPOINT_URL_S3" if os.environ.get("AWS_ENDPOINT_URL_S3") else "AWS_ENDPOINT_URL"
        try:
            return self.endpoint_url or self._check_endpoint(os.environ.get(variable))
        except ValueError as error:
            raise UsageError(f"{variable}: {error}") from error

    def may_read(self, uri: str) -> bool:
        """Return True if a dataset in this store may name this raster.

        A dataset holds the address of its raster. A person who may write to a bucket can change this address to any
        local file. A dataset on S3 may therefore name a local raster only if `local_rasters` or the environment
        variable `LOCAL_RASTERS_VARIABLE` lists the raster or a folder that contains it. Symbolic links are resolved
        before the paths are compared.

        Args:
            uri: an absolute path, s3://bucket/key, or an https:// address.
        """
        if not self.is_s3 or is_remote(uri):
            return True
        variable = os.environ.get(LOCAL_RASTERS_VARIABLE, "").split(os.pathsep)
        path = os.path.realpath(uri)
        return any(
            Path(path).is_relative_to(os.path.realpath(os.path.expanduser(allowed)))
            for allowed in (*self.local_rasters, *variable)
            if allowed
        )

    def allowing(self, *uris: str) -> Self:
        """Return this store with permission for its datasets to name these rasters too.

        Args:
            *uris: absolute paths, or s3://bucket/key. Pass only addresses that a person gave, never one from a dataset.
        """
        new = tuple(uri for uri in uris if not self.may_read(uri))
        return self.model_copy(update={"local_rasters": (*self.local_rasters, *new)}) if new else self

    @property
    def unsigned(self) -> bool:
        """Whether requests are sent without a signature, which public buckets accept.

        AWS_NO_SIGN_REQUEST turns this on if the store has no access key. It applies to GDAL's requests too.
        """
        wanted = os.environ.get("AWS_NO_SIGN_REQUEST", "").upper() in ("YES", "TRUE", "ON", "1")
        return wanted and self.access_key is None

    @property
    def requester_pays(self) -> bool:
        """Whether requests accept the costs. Only a `SourceStore` can do this."""
        return False

    @property
    def source(self) -> ObjectStore | SourceStore:
        """The server and the credentials that rasters on S3 are read with."""
        return self if self.source_store is None else self.source_store

    @property
    def https(self) -> HttpsClient:
        """The client that reads files over https. Without a source store, it may read from no host."""
        return open_https((), private=False) if self.source_store is None else self.source_store.https

    @cached_property
    def s3(self) -> S3Storage:
        """The storage on the store's S3 server. A store that is a folder has one too, for rasters on S3."""
        region = self.region or os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
        return self.open_s3(endpoint_url=self.endpoint, region=region, unsigned=self.unsigned)

    @cached_property
    def _storage(self) -> Storage:
        return self.s3 if self.is_s3 else FolderStorage()

    def _path(self, key: str) -> str:
        return f"{self.root.removeprefix('s3://')}/{key}"

    def uri(self, key: str) -> str:
        """Return the full address of an object: an absolute path, or s3://bucket/prefix/key."""
        return f"{self.root}/{key}"

    def read(self, key: str, most: int | None = None) -> bytes | None:
        """Return the whole object, or None if it does not exist.

        Args:
            key: key of the object.
            most: largest number of bytes to read. The rest of a longer object is left out.
        """
        return self._storage.read(self._path(key), most)

    def write(self, key: str, data: bytes) -> None:
        """Write a whole object in one atomic step. An existing object is replaced."""
        self._storage.write(self._path(key), data)

    def create(self, key: str, data: bytes) -> bool:
        """Write a whole object unless it exists.

        Returns:
            True if this call wrote the object. If several writers create the same object, exactly one gets True.
        """
        return self._storage.create(self._path(key), data)

    def write_from_file(self, key: str, file: Path) -> None:
        """Write a local file as a whole object in one atomic step. Then remove the local file."""
        try:
            self._storage.write_from_file(self._path(key), file)
        finally:
            file.unlink(missing_ok=True)

    def create_from_file(self, key: str, file: Path) -> bool:
        """Write a local file as a whole object unless the object exists. Then remove the local file.

        Returns:
            True if this call wrote the object. If several writers create the same object, exactly one gets True.
        """
        try:
            return self._storage.create_from_file(self._path(key), file)
        finally:
            file.unlink(missing_ok=True)

    def open(self, key: str) -> IO[bytes]:
        """Open an object as a seekable binary file. On S3, each read fetches only the bytes that it returns.

        Raises:
            ObjectMissingError: if the object does not exist.
        """
        return self._storage.open(self._path(key))

    def describe_object(self, key: str) -> ObjectInfo:
        """Return size and version of an object of this store. The object itself is not read.

        Raises:
            ObjectMissingError: if the object does not exist.
        """
        return self._storage.describe(self._path(key))

    def sizes(self, folder: str) -> dict[str, int]:
        """Return the sizes in bytes, by name, of the objects directly in a folder. A missing folder has no objects."""
        return self._storage.sizes(self._path(folder))

    def find(self, folder: str, beginning: str = "") -> Iterator[tuple[str, ObjectInfo]]:
        """Yield the key and the `ObjectInfo` of every object in a folder and its subfolders.

        Args:
            folder: the folder.
            beginning: letters with which the name of each file and of each subfolder directly in the folder must begin.
        """
        for path, info in self._storage.find(self._path(folder), beginning):
            yield path.removeprefix(self._path("")), info

    def find_deletable(self, folder: str) -> Iterator[str]:
        """Yield the key of everything in a folder and its subfolders that `delete` can remove.

        In a folder store, these are also links, named pipes and devices, which are no objects. No link is followed: if
        the folder itself is a link, only the folder is yielded.
        """
        return (path.removeprefix(self._path("")) for path in self._storage.find_deletable(self._path(folder)))

    def find_uploads(self, uri: str) -> Iterator[tuple[str, str, ObjectInfo]]:
        """Yield bucket, key and `ObjectInfo` of every object below s3://bucket/prefix.

        The request uses the credentials for rasters. See `source`.

        Raises:
            UsageError: if `uri` is not s3://bucket/prefix.
            StoreError: if the bucket does not exist or may not be listed.
        """
        if not uri.startswith("s3://") or not urlsplit(uri).netloc:
            raise UsageError(f"{uri!r} is not s3://bucket/prefix")
        for path, info in self.source.s3.find(uri.removeprefix("s3://").rstrip("/")):
            bucket, _, key = path.partition("/")
            yield bucket, key, info

    def version_id(self, uri: str) -> str | None:
        """Return the version id of an object on S3, or None if the bucket keeps no versions.

        Args:
            uri: s3://bucket/key, in any bucket that this store's credentials reach.

        Raises:
            StoreError: if the object does not exist or may not be read.
        """
        return self.s3.version_id(uri.removeprefix("s3://"))

    def datasets(self) -> list[DatasetSummary]:
        """Return a summary of each dataset in this store, in the order of their ids.

        See `rasterembed.dataset.listing.list_datasets`.

        Raises:
            StoreError: if the store refuses or does not answer.
        """
        # Import it here, because the package `store` must not depend on the packages above it.
        from rasterembed.dataset.listing import list_datasets

        return list_datasets(self)

    def collections(self) -> list[CollectionSummary]:
        """Return a summary of each collection in this store, in the order of their ids.

        See `rasterembed.collection.summaries.summarise_collections`.

        Raises:
            StoreError: if the store refuses or does not answer.
        """
        # Import it here, because the package `store` must not depend on the packages above it.
        from rasterembed.collection.summaries import summarise_collections

        return summarise_collections(self)

    def delete(self, key: str) -> None:
        """Remove an object. Do nothing if the object does not exist."""
        self._storage.delete(self._path(key))

    def scratch(self, folder: str) -> Path:
        """Return a local folder for files that will become objects in `folder`.

        If the store is a folder, the local folder is on the store's file system, so a file can be moved to its path.
        """
        return self._storage.scratch(self._path(folder))

    def clear_scratch(self, folder: str, older_than_s: float = 0.0) -> None:
        """Remove the unfinished files of killed processes from the scratch folder of `folder` on this machine.

        Args:
            folder: folder of the store.
            older_than_s: smallest age, in seconds since the last write, of the files that are removed.
        """
        # `scratch` would make the folder, and a folder that does not exist has nothing to remove.
        if not self.is_s3 and not Path(self.uri(folder)).is_dir():
            return
        path = self.scratch(folder)
        with os_errors(str(path), Access.WRITE):
            for file in path.glob("*.part"):
                # A living process may have moved its finished file out of this folder in the meantime.
                with suppress(FileNotFoundError):
                    if file.lstat().st_mtime <= time.time() - older_than_s:
                        file.unlink()

    def describe(self, uri: str) -> ObjectInfo:
        """Return size and version of any file or object that the credentials for rasters reach. See `source`.

        Args:
            uri: an absolute path, s3://bucket/key, or an https:// address.

        Raises:
            ObjectMissingError: if the file or object does not exist.
            StoreError: if the file or object may not be read.
            StoreUnavailableError: if the server does not answer.
        """
        if is_https(uri):
            return self.https.describe(uri)
        if uri.startswith("s3://"):
            return self.source.s3.describe(uri.removeprefix("s3://"))
        return FolderStorage().describe(uri)

    def open_uri(self, uri: str) -> IO[bytes]:
        """Open any file or object that the credentials for rasters reach, as a seekable binary file. See `source`.

        Args:
            uri: an absolute path, s3://bucket/key, or an https:// address. A file on a server is fetched in pieces of
                64 KiB.

        Raises:
            ObjectMissingError: if the file or object does not exist.
            StoreError: if the file or object may not be read.
        """
        if is_https(uri):
            from rasterembed.store.https_file import HttpsFile

            return io.BufferedReader(HttpsFile(self.open_remote(uri)), 2**16)
        if uri.startswith("s3://"):
            raw = cast(io.RawIOBase, self.source.s3.open(uri.removeprefix("s3://")))
            return io.BufferedReader(raw, 2**16)
        return FolderStorage().open(uri)

    def read_uri(self, uri: str, most: int, remedy: str) -> bytes:
        """Return the content of a file that `open_uri` opens.

        Args:
            uri: see `open_uri`.
            most: largest size of the file in bytes, in whole MiB. A stranger may have written the file.
            remedy: what to do if the file is larger.

        Raises:
            DataError: if the file is larger.
            ObjectMissingError: see `open_uri`.
            StoreError: see `open_uri`.
        """
        with self.open_uri(uri) as file:
            content = file.read(most + 1)
        if len(content) > most:
            raise DataError(f"{uri}: it has more than {most // 2**20} MiB: {remedy}")
        return content

    def open_remote(self, uri: str) -> RemoteFile:
        """Open a file on a web server, and read its beginning.

        Args:
            uri: an https:// address.

        Raises:
            ObjectMissingError: if the file does not exist.
            StoreError: if the file or its host may not be read.
        """
        # Import the packages for https only if they are used.
        from rasterembed.store.https_file import RemoteFile

        return RemoteFile(self.https, uri)


def is_remote(uri: str) -> bool:
    """Return whether a file lies on a server, so that each read waits for the network.

    Args:
        uri: an absolute path, s3://bucket/key, or an https:// address.
    """
    return uri.startswith("s3://") or is_https(uri)


def check_not_empty(root: str | None) -> None:
    """Refuse an empty root. A shell passes an empty text for a variable that is not set.

    Raises:
        UsageError: if `root` is the empty text.
    """
    if root == "":
        raise UsageError("`root` is empty: give a folder or s3://bucket/prefix, or leave it out for the default")


def open_store(root: str | None = None) -> ObjectStore:
    """Return the store for a root that a person typed.

    Args:
        root: folder or s3://bucket/prefix. The default is `DEFAULT_ROOT`. The usual AWS variables name the S3 server.

    Raises:
        UsageError: if the root is empty, or is neither a folder nor s3://bucket/prefix.
    """
    check_not_empty(root)
    try:
        store = ObjectStore.model_validate({"root": DEFAULT_ROOT if root is None else root})
    except ValidationError as error:
        raise UsageError(f"object store {root!r}: {validation_reason(error)}") from error
    if not store.is_s3:
        for path in (Path(store.root), *Path(store.root).parents):
            if path.is_file():
                raise UsageError(f"object store {root!r}: {path} is a file: give a folder or s3://bucket/prefix")
    return store


def locate(raster: str, what: str = "raster") -> str:
    """Return the canonical URI of a raster: an absolute path, s3://bucket/key unchanged, or an https:// address.

    Whether the host of an https:// address may be read is not checked here. See `ObjectStore.https`.

    Args:
        raster: a path, s3://bucket/key, or an https:// address.
        what: word for the raster in errors, such as "image".

    Raises:
        UsageError: if `raster` is not UTF-8, or is a GDAL connection string or another kind of URL. GDAL would open
            both.
    """
    problem = why_not_utf8(raster)
    if problem is not None:
        raise UsageError(f"{what} {problem}")
    if not raster or min(raster) < " ":
        raise UsageError(f"{what} {raster!r} is no path: give a file or s3://bucket/key")
    if is_https(raster):
        url = canonical_url(raster, what)
        if url.endswith("/") or url.count("/") < 3:
            raise UsageError(f"{what} {url!r} names no file: use https://host/path")
        return url
    if raster.startswith("s3://"):
        bucket, _, key = raster.removeprefix("s3://").partition("/")
        if not bucket or not key or key.endswith("/"):
            raise UsageError(f"{what} {raster!r} names no object: use s3://bucket/key")
        return raster
    if "://" in raster or raster.startswith("/vsi"):
        shown = shown_url(raster) if "://" in raster else raster
        raise UsageError(f"{what} {shown!r} is neither a file nor s3://bucket/key nor an https:// address")
    path = str(absolute_path(raster))
    problem = why_not_utf8(path)  # The working directory may be the cause.
    if problem is not None:
        raise UsageError(f"{what} {problem}")
    return path
