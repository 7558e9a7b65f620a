"""Verify a dataset: read every file that its manifest lists, and compare the content with the manifest."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from rasterembed.dataset.manifest import Manifest
from rasterembed.dataset.plan import Plan
from rasterembed.errors import DataError, ObjectMissingError, StoreUnavailableError
from rasterembed.store.layout import DatasetLayout
from rasterembed.store.object_store import ObjectStore

_CHUNK_BYTES = 8 * 2**20
"""Number of bytes in one read."""

_AGAIN = "embed the raster again with the same options"


class DamageKind(StrEnum):
    """How a file differs from the manifest."""

    MISSING = "missing"
    OTHER_SIZE = "other_size"
    OTHER_CONTENT = "other_content"
    """The size is right, but the digest is wrong."""
    UNREADABLE = "unreadable"
    """The content is no valid file of its kind."""


@dataclass(frozen=True)
class Damage:
    """A file of a dataset that is missing or damaged."""

    key: str
    """Key of the file."""
    kind: DamageKind
    found: str
    """What was found, for people."""
    remedy: str
    """What to do, for people."""

    def sentence(self, store: ObjectStore) -> str:
        """Return the damage in one line, with the address of the file."""
        return f"{store.uri(self.key)}: {self.found}: {self.remedy}"


def verify_dataset(store: ObjectStore, manifest: Manifest) -> Iterator[Damage | None]:
    """Read all files of a dataset, and yield the result for each file: its damage, or None.

    These files are read: every shard, the tile index, the plan and the STAC Item. Shards and tile index are compared
    with the sizes and SHA-256 digests in the manifest. The vector index is not read: a search compares its digest each
    time it opens the index.

    Args:
        store: store of the dataset.
        manifest: the dataset's manifest.

    Raises:
        StoreError: if the store refuses or does not answer.
    """
    for shard in manifest.shards:
        yield _compare(store, shard.path, shard.sha256, shard.bytes)
    yield _compare(store, manifest.index, manifest.index_sha256)
    yield _check_plan(store, manifest)
    yield _check_stac_item(store, manifest)


def _compare(store: ObjectStore, key: str, sha256: str, size: int | None = None) -> Damage | None:
    """Compare a file with its digest, and with its size in bytes if the size is given."""
    digest, length = hashlib.sha256(), 0
    try:
        with store.open(key) as file:
            while chunk := file.read(_CHUNK_BYTES):
                digest.update(chunk)
                length += len(chunk)
    except ObjectMissingError:
        return Damage(key, DamageKind.MISSING, "the file is missing", f"{_AGAIN}: only missing files are written")
    remedy = f"delete this file, then {_AGAIN}: only missing files are written"
    if size is not None and length != size:
        return Damage(key, DamageKind.OTHER_SIZE, f"it has {length} bytes, the manifest says {size}", remedy)
    if digest.hexdigest() != sha256:
        found = f"its sha256 is {digest.hexdigest()[:12]}…, the manifest says {sha256[:12]}…"
        return Damage(key, DamageKind.OTHER_CONTENT, found, remedy)
    return None


def _check_plan(store: ObjectStore, manifest: Manifest) -> Damage | None:
    key = DatasetLayout(manifest.dataset_id).plan(manifest.fingerprint)
    try:
        Plan.read(store, manifest.dataset_id, manifest.fingerprint)
    except StoreUnavailableError:
        raise
    except DataError as error:
        reason = str(error).removeprefix(f"{store.uri(key)}: ").rpartition(": ")[0]
        kind = DamageKind.MISSING if store.read(key, 1) is None else DamageKind.UNREADABLE
        return Damage(key, kind, reason, f"{_AGAIN} to write the plan again")
    return None


def _check_stac_item(store: ObjectStore, manifest: Manifest) -> Damage | None:
    """Check that the STAC Item is JSON and names the dataset. The manifest has no digest to compare it with."""
    remedy = f"delete this file, then {_AGAIN}: only missing files are written"
    try:
        with store.open(manifest.stac_item) as file:
            item = json.loads(file.read())
    except ObjectMissingError:
        return Damage(manifest.stac_item, DamageKind.MISSING, "the file is missing", _AGAIN)
    except (ValueError, RecursionError):
        return Damage(manifest.stac_item, DamageKind.UNREADABLE, "it is not JSON", remedy)
    if not isinstance(item, dict) or item.get("id") != manifest.dataset_id:
        return Damage(manifest.stac_item, DamageKind.UNREADABLE, "it is not the STAC Item of this dataset", remedy)
    return None
