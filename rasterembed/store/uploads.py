"""Uploads: objects of a bucket that wait to be embedded, and what one upload is called wherever it is met.

A notification, a repeated notification and a sweep that finds the object later all name the same upload alike, so that
whoever starts its run, and however often, there is one run.
"""

from __future__ import annotations

import re
import unicodedata
import uuid
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, field_validator

from rasterembed.store.layout import DATASETS_FOLDER, OUTPUT_FOLDERS, dataset_id_of_manifest
from rasterembed.store.object_store import ObjectStore

_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,254}")
_KEY_BYTES = 1024
"""S3's limit, of the key in UTF-8."""


class Upload(BaseModel):
    """One version of one object.

    Raises:
        ValidationError: if it is no object that a run could read: a bucket's name that no server allows, a key that is
            empty, longer than 1,024 bytes, or has control characters or the segments `.` and `..`.
    """

    model_config = ConfigDict(frozen=True)

    bucket: str
    key: str
    version: str = Field(min_length=1, max_length=1024)
    """Version id, or the ETag where the bucket is not versioned."""

    @field_validator("bucket")
    @classmethod
    def _check_bucket(cls, bucket: str) -> str:
        if not _BUCKET.fullmatch(bucket):
            raise ValueError("not the name of a bucket")
        return bucket

    @field_validator("key")
    @classmethod
    def _check_key(cls, key: str) -> str:
        if not key or len(key.encode("utf-8", "surrogatepass")) > _KEY_BYTES:
            raise ValueError(f"the key is empty or longer than {_KEY_BYTES} bytes")
        if any(unicodedata.category(character) in ("Cc", "Cs") for character in key):
            raise ValueError("the key has control characters")
        if any(segment in (".", "..") for segment in key.split("/")):
            raise ValueError("the key has a segment . or .., which URLs do not keep")
        return key

    @field_validator("version")
    @classmethod
    def _check_version(cls, version: str) -> str:
        if not version.isprintable():
            raise ValueError("the version has control characters")
        return version

    @property
    def uri(self) -> str:
        """s3://bucket/key."""
        return f"s3://{self.bucket}/{self.key}"

    @property
    def identity(self) -> str:
        """Idempotency key of the upload's run."""
        return f"s3:{self.bucket}/{self.key}:{self.version}"

    @property
    def event_id(self) -> uuid.UUID:
        """Id of the upload's event: the same for every notification of it."""
        return uuid.uuid5(uuid.NAMESPACE_URL, self.identity)

    def parameters(self, root: str | None, store: str | None) -> dict[str, Any]:
        """Parameters of the flow run that embeds it; what is None is left to the deployment."""
        chosen = {"raster": self.uri, "root": root, "store": store}
        return {name: value for name, value in chosen.items() if value is not None}


class UploadRules(BaseModel):
    """Which objects are uploads to embed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    buckets: tuple[str, ...] = Field(default=(), description="Buckets to follow. Empty: every one.")
    prefixes: tuple[str, ...] = Field(default=(), description="Beginnings of keys to follow. Empty: every key.")
    suffixes: tuple[str, ...] = Field(
        default=(".tif", ".tiff", ".jp2"), description="Endings of keys to follow, in any case."
    )
    ignore: tuple[str, ...] = Field(
        default=tuple(f"{folder}/" for folder in OUTPUT_FOLDERS),
        description="Beginnings of keys to leave alone, in every bucket.",
    )

    def follow(self, bucket: str, key: str, root: str | None) -> bool:
        """Whether the object is an upload; what a run wrote below `root` never is, or each would start the next."""
        return (
            (not self.buckets or bucket in self.buckets)
            and (not self.prefixes or key.startswith(self.prefixes))
            and key.lower().endswith(tuple(suffix.lower() for suffix in self.suffixes))
            and not key.startswith(self.ignore)
            and not _is_output(f"s3://{bucket}/{key}", root)
        )


def _is_output(uri: str, root: str | None) -> bool:
    return root is not None and uri.startswith(tuple(f"{root.rstrip('/')}/{folder}/" for folder in OUTPUT_FOLDERS))


def dataset_dates(store: ObjectStore) -> dict[str, float]:
    """The datasets of a store and when their manifests were written, in seconds since 1970; one listing."""
    found = {}
    for key, info in store.find(DATASETS_FOLDER):
        dataset_id = dataset_id_of_manifest(key)
        if dataset_id is not None:
            found[dataset_id] = info.modified
    return found
