"""Verify a dataset: read every file that its manifest lists, and compare the content with the manifest."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import StrEnum

from rasterembed.dataset.manifest import Manifest, configuration_differences
from rasterembed.dataset.plan import Plan, fingerprint_of
from rasterembed.errors import DataError, ObjectMissingError, StoreError, StoreUnavailableError, os_errors
from rasterembed.escape import cut
from rasterembed.number_text import counted
from rasterembed.store.layout import DatasetLayout
from rasterembed.store.object_store import ObjectStore
from rasterembed.store.stored_model import MAX_BYTES

_CHUNK_BYTES = 8 * 2**20
"""Number of bytes in one read."""

_SHOWN = 3
"""Largest number of differences between manifest and plan that are shown."""

_SHOWN_LETTERS = 80
"""Largest number of characters of a value that are shown."""

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

    def with_remedy(self, again: str) -> Damage:
        """Return the damage with another remedy.

        Args:
            again: how to write the file again.
        """
        return replace(self, remedy=again if self.kind is DamageKind.MISSING else delete_and(again))

    def sentence(self, store: ObjectStore) -> str:
        """Return the damage in one line, with the address of the file."""
        return f"{store.uri(self.key)}: {self.found}: {self.remedy}"


def delete_and(again: str) -> str:
    """Return the remedy for a file that exists and is damaged."""
    return f"delete this file, then {again}"


def verify_dataset(store: ObjectStore, manifest: Manifest) -> Iterator[Damage | None]:
    """Read all files of a dataset, and yield the result for each file: its damage, or None.

    These files are read: every shard, the tile index, the plan and the STAC Item. Shards and tile index are compared
    with the sizes and SHA-256 digests in the manifest. The manifest itself is compared with the plan. The vector index
    is not read: see `rasterembed.search.index.verifying.verify_index`.

    A file that the store refuses to read is reported as damaged, and the other files are read.

    Args:
        store: store of the dataset.
        manifest: the dataset's manifest.

    Raises:
        StoreUnavailableError: if the store does not answer.
    """
    for shard in manifest.shards:
        yield compare_file(store, shard.path, shard.sha256, shard.bytes)
    yield compare_file(store, manifest.index, manifest.index_sha256)
    yield _check_plan(store, manifest)
    yield _check_manifest(store, manifest)
    yield _check_stac_item(store, manifest)


def compare_file(
    store: ObjectStore, key: str, sha256: str, size: int | None = None, *, described_by: str = "the manifest"
) -> Damage | None:
    """Read a file, and compare it with its digest, and with its size if the size is given.

    Args:
        store: store of the file.
        key: key of the file.
        sha256: SHA-256 digest that the file must have, in hexadecimal digits.
        size: size in bytes that the file must have.
        described_by: the file that has the digest, for people.

    Returns:
        The damage, with the advice for a file of a dataset, or None if the file is right.

    Raises:
        StoreUnavailableError: if the store does not answer.
    """
    digest, length = hashlib.sha256(), 0
    try:
        with os_errors(store.uri(key)), store.open(key) as file:
            while chunk := file.read(_CHUNK_BYTES):
                digest.update(chunk)
                length += len(chunk)
    except StoreUnavailableError:
        raise
    except StoreError as error:
        return _not_read(store, key, error)
    remedy = f"delete this file, then {_AGAIN}: only missing files are written"
    if size is not None and length != size:
        return Damage(key, DamageKind.OTHER_SIZE, f"it has {length} bytes, {described_by} says {size}", remedy)
    if digest.hexdigest() != sha256:
        found = f"its sha256 is {digest.hexdigest()[:12]}…, {described_by} says {sha256[:12]}…"
        return Damage(key, DamageKind.OTHER_CONTENT, found, remedy)
    return None


def _not_read(store: ObjectStore, key: str, error: StoreError) -> Damage:
    """Return the damage of a file that is missing, or that the store refuses to read, such as a folder."""
    if isinstance(error, ObjectMissingError):
        return Damage(key, DamageKind.MISSING, "the file is missing", f"{_AGAIN}: only missing files are written")
    found = str(error).removeprefix(f"{store.uri(key)}: ")
    remedy = f"make it readable, or remove it and {_AGAIN}: only missing files are written"
    return Damage(key, DamageKind.UNREADABLE, found, remedy)


def _check_plan(store: ObjectStore, manifest: Manifest) -> Damage | None:
    key = DatasetLayout(manifest.dataset_id).plan(manifest.fingerprint)
    try:
        Plan.read(store, manifest.dataset_id, manifest.fingerprint)
    except StoreUnavailableError:
        raise
    except StoreError as error:
        return _not_read(store, key, error)
    except DataError as error:
        reason = str(error).removeprefix(f"{store.uri(key)}: ").rpartition(": ")[0]
        kind = DamageKind.MISSING if store.read(key, 1) is None else DamageKind.UNREADABLE
        return Damage(key, kind, reason, f"{_AGAIN} to write the plan again")
    return None


def _check_manifest(store: ObjectStore, manifest: Manifest) -> Damage | None:
    """Compare the manifest with the plan. If the plan cannot be read, compare only the manifest's own fingerprint."""
    key = DatasetLayout(manifest.dataset_id).manifest
    try:
        plan = Plan.read(store, manifest.dataset_id, manifest.fingerprint)
    except StoreUnavailableError:
        raise
    except DataError:
        right = fingerprint_of(manifest.configuration) == manifest.fingerprint
        texts = [] if right else ["its fingerprint is not the digest of its configuration"]
    else:
        pairs = [(f"configuration.{name}", *values) for name, *values in configuration_differences(manifest, plan)]
        pairs += [
            (name, str(own), str(other))
            for name, own, other in (
                ("model", manifest.model, plan.model.name),
                ("crs", manifest.crs, plan.profile.crs_wkt),
                ("dimensions", manifest.dimensions, plan.model.dimensions),
                ("tiles", manifest.tiles, plan.sharding.tile_count),
            )
            if own != other
        ]
        texts = [f"{name} is {_short(own)}, and the plan says {_short(other)}" for name, own, other in pairs]
    if not texts:
        return None
    more = f" (and {counted(len(texts) - _SHOWN, 'more difference')})" if len(texts) > _SHOWN else ""
    remedy = f"delete this file, then {_AGAIN}: only missing files are written"
    return Damage(key, DamageKind.OTHER_CONTENT, "; ".join(texts[:_SHOWN]) + more, remedy)


def _short(text: str | None) -> str:
    """Return the beginning of a value. A CRS, or a planted value, can be very long."""
    return "missing" if text is None else cut(text, _SHOWN_LETTERS)


def _check_stac_item(store: ObjectStore, manifest: Manifest) -> Damage | None:
    """Check that the STAC Item is JSON and names the dataset. The manifest has no digest to compare it with."""
    key, remedy = manifest.stac_item, f"delete this file, then {_AGAIN}: only missing files are written"
    try:
        data = store.read(key, MAX_BYTES + 1)
        if data is None:
            return Damage(key, DamageKind.MISSING, "the file is missing", _AGAIN)
        if len(data) > MAX_BYTES:
            found = f"it has more than {MAX_BYTES // 2**20} MiB, too much for a STAC Item"
            return Damage(key, DamageKind.UNREADABLE, found, remedy)
        item = json.loads(data)
    except StoreUnavailableError:
        raise
    except StoreError as error:
        return _not_read(store, key, error)
    except (ValueError, RecursionError):
        return Damage(key, DamageKind.UNREADABLE, "it is not JSON", remedy)
    if not isinstance(item, dict) or item.get("id") != manifest.dataset_id:
        return Damage(key, DamageKind.UNREADABLE, "it is not the STAC Item of this dataset", remedy)
    return None
