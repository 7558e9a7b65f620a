"""Uploads: which objects in a bucket are rasters to embed, and the identity of each upload's run.

The webhook receives a notification of an upload, sometimes twice. The sweep finds the same upload later in a listing.
Webhook and sweep compute the same identity for the upload, so exactly one run embeds it.
"""

from __future__ import annotations

import re
import unicodedata
import uuid
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator

from rasterembed.store.layout import DATASETS_FOLDER, OUTPUT_FOLDERS, dataset_id_of_manifest
from rasterembed.store.object_store import ObjectStore

_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,254}")
KEY_BYTES = 1024
"""S3's limit for the length of a key, in bytes of UTF-8."""
_VERSION_BYTES = 1024
"""S3's limit for the length of a version id, in bytes. It also keeps an idempotency key below the 2,704 bytes that
PostgreSQL can index."""


RASTER_SUFFIXES = (".tif", ".tiff", ".jp2")
"""Endings of the names of rasters that are found in a listing."""


def check_bucket(bucket: str) -> str:
    """Return the name of a bucket if S3 servers allow it.

    Raises:
        ValueError: if they do not.
    """
    if not _BUCKET.fullmatch(bucket):
        raise ValueError("not the name of a bucket")
    return bucket


BucketName = Annotated[str, AfterValidator(check_bucket)]
"""Name of a bucket. See `check_bucket`."""


def check_no_controls(text: str, what: str) -> None:
    """Refuse a key, or the beginning of keys, that has control characters or lone surrogates.

    Args:
        text: the key or its beginning.
        what: word for the text in the error.

    Raises:
        ValueError: if the text has such a character.
    """
    if any(unicodedata.category(character) in ("Cc", "Cs") for character in text):
        raise ValueError(f"the {what} has control characters")


def run_parameters(**chosen: str | None) -> dict[str, Any]:
    """Return the parameters of a flow run that embeds uploads.

    An upload never gets a source store, even if the deployment has one: a stranger can choose the upload's address,
    and must not choose an object on a server that only the source store's keys reach.

    Args:
        **chosen: parameters by name. With None, the deployment's value is used.
    """
    return {name: value for name, value in chosen.items() if value is not None} | {"source_store": None}


class Upload(BaseModel):
    """One version of one object on an S3 server.

    Raises:
        ValidationError: if no run could read the object, because the bucket's name is not allowed, or because the key
            is empty, is longer than 1,024 bytes, or has a control character or a segment `.` or `..`.

    Example:
        >>> from rasterembed.store.uploads import Upload
        >>> upload = Upload(bucket="rasters", key="alps/scene.tif", version="1")
        >>> upload.uri
        's3://rasters/alps/scene.tif'
        >>> upload.identity
        's3:rasters/alps/scene.tif:1'
    """

    model_config = ConfigDict(frozen=True)

    bucket: BucketName
    key: str
    version: str = Field(min_length=1)
    """Version id of the object, or its ETag if the bucket keeps no versions."""

    @field_validator("key")
    @classmethod
    def _check_key(cls, key: str) -> str:
        if not key or len(key.encode("utf-8", "surrogatepass")) > KEY_BYTES:
            raise ValueError(f"the key is empty or longer than {KEY_BYTES} bytes")
        check_no_controls(key, "key")
        if any(segment in (".", "..") for segment in key.split("/")):
            raise ValueError("the key has a segment . or .., which URLs do not keep")
        return key

    @field_validator("version")
    @classmethod
    def _check_version(cls, version: str) -> str:
        if not version.isprintable():
            raise ValueError("the version has control characters")
        if len(version.encode()) > _VERSION_BYTES:
            raise ValueError(f"the version is longer than {_VERSION_BYTES} bytes")
        return version

    @property
    def uri(self) -> str:
        """Address of the object, s3://bucket/key."""
        return f"s3://{self.bucket}/{self.key}"

    @property
    def identity(self) -> str:
        """Idempotency key of the upload's run. Prefect starts only one run for a key."""
        return f"s3:{self.bucket}/{self.key}:{self.version}"

    @property
    def event_id(self) -> uuid.UUID:
        """Id of the Prefect event for this upload. Every notification of the upload gives the same id."""
        return uuid.uuid5(uuid.NAMESPACE_URL, self.identity)

    def parameters(self, root: str | None, store: str | None) -> dict[str, Any]:
        """Return the parameters of the flow run that embeds this upload. See `run_parameters`.

        Args:
            root: root of the store for the dataset, or None to use the deployment's root.
            store: name of a store block, or None to use the deployment's store block.
        """
        return run_parameters(raster=self.uri, root=root, store=store)


class UploadRules(BaseModel):
    """Rules that decide which objects are uploads to embed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    buckets: tuple[str, ...] = Field(default=(), description="Buckets to follow. Empty: all buckets.")
    prefixes: tuple[str, ...] = Field(default=(), description="Beginnings of keys to follow. Empty: all keys.")
    suffixes: tuple[str, ...] = Field(default=RASTER_SUFFIXES, description="Endings of keys to follow, in any case.")
    ignore: tuple[str, ...] = Field(
        default=tuple(f"{folder}/" for folder in OUTPUT_FOLDERS),
        description="Beginnings of keys to leave alone, in every bucket.",
    )

    def follow(self, bucket: str, key: str, root: str | None) -> bool:
        """Return whether an object is an upload to embed.

        Args:
            bucket: bucket of the object.
            key: key of the object.
            root: root of the store that runs write to, or None if the root is not known. The objects that runs wrote
                into this store are never uploads, because each of these objects would start another run.
        """
        return (
            (not self.buckets or bucket in self.buckets)
            and (not self.prefixes or key.startswith(self.prefixes))
            and key.lower().endswith(tuple(suffix.lower() for suffix in self.suffixes))
            and not key.startswith(self.ignore)
            and not is_output(f"s3://{bucket}/{key}", root)
        )


def is_output(uri: str, root: str | None) -> bool:
    """Return whether an object or a file is one that runs wrote into a store.

    Args:
        uri: absolute path, or s3://bucket/key.
        root: root of the store. With None, the answer is False.
    """
    return root is not None and uri.startswith(tuple(f"{root.rstrip('/')}/{folder}/" for folder in OUTPUT_FOLDERS))


def dataset_dates(store: ObjectStore) -> dict[str, float]:
    """Return the time of the last write of each dataset's manifest.

    Args:
        store: the store. One listing finds all manifests.

    Returns:
        Seconds since 1970, by dataset id.
    """
    dates = {}
    for key, info in store.find(DATASETS_FOLDER):
        dataset_id = dataset_id_of_manifest(key)
        if dataset_id is not None:
            dates[dataset_id] = info.modified
    return dates
