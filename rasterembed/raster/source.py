"""The identity of a raster or of a scene: URIs, states, and the name that its dataset gets by default."""

from __future__ import annotations

import base64
import hashlib
import re
import unicodedata
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import PurePosixPath
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat

from rasterembed.errors import DataError, RasterChangedError, StoreError, StoreUnavailableError
from rasterembed.store.layout import check_dataset_id
from rasterembed.store.modification_time import time_of
from rasterembed.store.object_store import LOCAL_RASTERS_VARIABLE, ObjectStore, is_remote, locate

_SLUG_LETTERS, _BUCKET_LETTERS = 96, 48
"""Largest number of characters of the readable part of a default dataset id, and of the bucket in this part."""

_DIGEST_BYTES = 10
"""Bytes of the digest in a default dataset id. Ten bytes are 16 letters in base 32."""


class Source(BaseModel):
    """A raster in one state. Any later write to the raster changes `size`, `version` or both.

    A scene of several files is a source with a `scene`. Its other fields are then those of the STAC Item's file, or
    those of the first file if a person gave a mapping of channels to files.
    """

    model_config = ConfigDict(frozen=True)

    uri: str
    """Absolute path, s3://bucket/key, or an https:// address without a query."""
    size: int
    """Size of the file, in bytes."""
    version: str
    """ETag of an S3 object or of a file on a web server, or modification time of a file in nanoseconds since 1970."""
    modified: datetime
    """Time of the last modification, UTC. 1970-01-01 if a web server does not say it."""
    scene: SceneFiles | None = Field(default=None, exclude_if=lambda scene: scene is None)
    """The files of a scene. None if the source is one raster."""

    @property
    def remote(self) -> bool:
        """Whether a file with pixels lies on a server, so that each read waits for the network."""
        return any(is_remote(file.uri) for file in self.files)

    @property
    def files(self) -> tuple[Source, ...]:
        """The files with pixels: those of the scene, or the raster itself."""
        return (self,) if self.scene is None else tuple(asset.source for asset in self.scene.assets)

    @property
    def other_files(self) -> tuple[str, ...]:
        """URIs that, with `uri`, name a scene that is a mapping of channels to files. Empty for any other source."""
        by_mapping = self.scene is not None and self.scene.item_id is None
        return tuple(f"{a.name}={a.source.uri}" for a in self.scene.assets) if self.scene and by_mapping else ()


class BandFacts(BaseModel):
    """The statements of a STAC Item about one band of a file. None means: the Item does not say it."""

    model_config = ConfigDict(frozen=True)

    name: str | None = None
    """Common name of the band, such as `red`, else its name."""
    nodata: FiniteFloat | None = None
    """Value of pixels without data. NaN is left out, because a pixel that is NaN is invalid anyway."""
    scale: FiniteFloat | None = None
    """Physical value = `scale` * pixel + `offset`."""
    offset: FiniteFloat | None = None
    """See `scale`."""


class SceneAsset(BaseModel):
    """One file of a scene. Its bands are bands of the scene."""

    model_config = ConfigDict(frozen=True)

    name: str
    """Name of the channel that a person gave, or key of the asset in the STAC Item."""
    source: Source
    """Identity of the file."""
    bands: tuple[BandFacts, ...] = ()
    """The STAC Item's statements about the bands of the file, in the order of the file. Empty if it makes none."""


class SceneFiles(BaseModel):
    """The files of a scene, and the STAC Item's statements about the scene."""

    model_config = ConfigDict(frozen=True)

    assets: tuple[SceneAsset, ...]
    """The files. The bands of the scene are the bands of these files, in this order."""
    item_id: str | None = None
    """Id of the STAC Item. None if a person gave a mapping of channels to files."""
    acquired: datetime | None = None
    """Time of acquisition from the STAC Item, UTC, or None."""
    cloud_cover: float | None = None
    """Share of the scene that clouds cover, from the STAC Item, in percent, or None."""

    def statements(self) -> dict[str, Any]:
        """Return the STAC Item's statements about the scene that are also in the shards, as JSON values.

        The keys are `acquired` and `cloud_cover`. Statements that the Item does not make are left out.
        """
        return self.model_dump(mode="json", include={"acquired", "cloud_cover"}, exclude_none=True)


def register(store: ObjectStore, raster: str, *, what: str = "raster") -> Source:
    """Find a raster and return its identity.

    Args:
        store: gives the credentials for a raster on S3.
        raster: a path, s3://bucket/key, or an https:// address of a host that the source store lists.
        what: word for the raster in errors.

    Raises:
        UsageError: if `raster` is no path and no such address.
        StoreError: if the raster does not exist or may not be read.
        DataError: if the file is empty.
    """
    uri = locate(raster, what)
    info = store.describe(uri)
    if info.size == 0:
        raise DataError(f"{uri}: the file is empty")
    modified = time_of(info.modified)
    return Source(uri=uri, size=info.size, version=info.version, modified=modified)


def run_again() -> str:
    """Return the remedy for a raster that was changed while a run reads it."""
    return "run again to embed its new state"


def check_unchanged(
    store: ObjectStore,
    source: Source,
    *,
    mask_file: str | None = None,
    valid_mask: Source | None = None,
    remedy: Callable[[], str] = run_again,
) -> None:
    """Refuse a raster that was changed since it was registered, or that the store's datasets may not name.

    Call this function before reading a raster whose address comes from a stored plan.

    Args:
        store: gives the credentials for a raster on S3.
        source: the raster as it was registered.
        mask_file: state of the raster's mask file, from the raster's profile. None if it had no mask file.
        valid_mask: the mask that a person gave, as it was registered. None if nobody gave one.
        remedy: function that returns what a person can do about a changed raster.

    Raises:
        RasterChangedError: if the raster or a mask was changed since it was registered.
        DataError: if the store's datasets may not name the raster or the mask. See `ObjectStore.may_read`.
        StoreError: if the raster is missing or may not be read.
    """
    for file, what in ((source, "it"), (valid_mask, "the mask")):
        if file is None:
            continue
        if not store.may_read(file.uri):
            raise DataError(
                f"{file.uri}: a dataset in {store.root} names this local file, but an S3 store may name local files "
                f"only with your permission: if you trust the store, set {LOCAL_RASTERS_VARIABLE} to the file's folder"
            )
        info = store.describe(file.uri)
        if (info.size, info.version) != (file.size, file.version):
            raise RasterChangedError(f"{file.uri}: {what} was changed since this dataset was planned: {remedy()}")
    if mask_file is not None and mask_file_state(store, source.uri) != mask_file:
        raise RasterChangedError(f"{source.uri}.msk: the mask was changed since this dataset was planned: {remedy()}")


def mask_file_state(store: ObjectStore, uri: str) -> str | None:
    """Return size and version of the mask file beside a raster (its name and `.msk`), or None if it has none.

    If access to the mask file is denied, the result is None too. S3 also answers "access denied" if the object does not
    exist and the keys may not list the bucket.

    Raises:
        StoreUnavailableError: if the store does not answer.
    """
    try:
        info = store.describe(uri + ".msk")
    except StoreUnavailableError:
        raise
    except StoreError:
        return None
    return f"{info.size} {info.version}"


def default_dataset_id(uri: str, *others: str) -> str:
    """Return a dataset id for a raster: its bucket and key in readable form, and a digest of the whole URI.

    The digest has 80 bits. To find another URI with the digest of a given raster takes about 2**80 attempts.

    Args:
        uri: absolute path, or s3://bucket/key.
        *others: further texts that the digest covers, such as the URIs of a scene's files.

    Example:
        >>> default_dataset_id("s3://bucket/a/Köln 1.tif")
        'bucket-a-koln-1-rytqeiydo6zo6vnn'
    """
    return _id_with_digest(uri, others, lambda text: _slug(_latin(text)))


def ascii_dataset_id(uri: str, *others: str) -> str:
    """Return the id that `default_dataset_id` once gave a raster, with a dash for each letter that is not in ASCII.

    The datasets of a collection still have such ids, because a scene must keep its id.

    Args:
        uri: absolute path, or s3://bucket/key.
        *others: see `default_dataset_id`.

    Example:
        >>> ascii_dataset_id("s3://bucket/a/Köln 1.tif")
        'bucket-a-k-ln-1-rytqeiydo6zo6vnn'
    """
    return _id_with_digest(uri, others, _slug)


def older_dataset_ids(uri: str, *others: str) -> tuple[str, ...]:
    """Return the default ids that earlier versions gave a raster, and that differ from `default_dataset_id`.

    Args:
        uri: absolute path, or s3://bucket/key.
        *others: see `default_dataset_id`. Version 0.1 had no such scenes.
    """
    older = (*(() if others else (default_dataset_id_of_0_1(uri),)), ascii_dataset_id(uri, *others))
    return tuple(one for one in older if one != default_dataset_id(uri, *others))


def _id_with_digest(uri: str, others: Sequence[str], slug: Callable[[str], str]) -> str:
    bucket, key = _bucket_and_name(uri)
    bucket_slug, key_slug = slug(bucket)[:_BUCKET_LETTERS], slug(key)
    head = f"{bucket_slug}-" if bucket_slug else ""
    readable = (head + key_slug[-(_SLUG_LETTERS - len(head)) :].lstrip("-._")).strip("-._")
    covered = "\n".join((uri, *others))
    digest = base64.b32encode(hashlib.sha256(covered.encode()).digest()[:_DIGEST_BYTES]).decode().lower()
    return check_dataset_id(f"{readable or 'raster'}-{digest}")


def default_dataset_id_of_0_1(uri: str) -> str:
    """Return the dataset id that version 0.1 gave a raster.

    Its digest has only 32 bits, so another URI with the same id can be found within minutes. Before a dataset of this
    name is used, compare its raster with `uri`.

    Args:
        uri: absolute path, or s3://bucket/key.

    Example:
        >>> default_dataset_id_of_0_1("s3://bucket/a/Input 1.tif")
        'a-input-1-abb5717c'
    """
    slug = _slug(_bucket_and_name(uri)[1])[-_SLUG_LETTERS:].lstrip("-._")
    digest = hashlib.sha256(uri.encode()).hexdigest()[:8]
    return check_dataset_id(f"{slug or 'raster'}-{digest}")


def _bucket_and_name(uri: str) -> tuple[str, str]:
    """Return the bucket and the key of a raster on S3, or "" and the name of a file. The suffix is removed.

    Of an https:// address, the host is the bucket, and the path is the key.
    """
    remote = is_remote(uri)
    path = PurePosixPath(uri.partition("://")[2] if remote else uri)
    name = "/".join(path.parts[1:]) if remote else path.name
    return (path.parts[0] if remote else "", name[: -len(path.suffix)] if path.suffix else name)


_LATIN = str.maketrans({"ß": "ss", "æ": "ae", "œ": "oe", "ø": "o", "đ": "d", "ð": "d", "ł": "l", "þ": "th"})
"""Small letters that Unicode does not divide into a letter of ASCII and an accent."""


def _latin(text: str) -> str:
    """Return a text in lower case without accents: `koln` for `Köln`. Letters of other scripts stay.

    A file system may hold `ö` as one character, or as `o` and an accent. Both give the same text.
    """
    divided = unicodedata.normalize("NFKD", text.lower().translate(_LATIN))
    return "".join(letter for letter in divided if not unicodedata.combining(letter))


def _slug(text: str) -> str:
    """Return a text in lower case. A dash replaces each run of characters that a dataset id may not have."""
    return re.sub(r"[^a-z0-9._]+", "-", text.lower()).strip("-._")
