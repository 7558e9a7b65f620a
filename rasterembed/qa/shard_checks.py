"""Whether the shards that a manifest lists are there, and are what it says."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from rasterembed.dataset.manifest import Manifest
from rasterembed.dataset.shards import Shard, read_receipt
from rasterembed.errors import ObjectMissingError
from rasterembed.store.layout import DatasetLayout
from rasterembed.store.object_store import ObjectStore

_THREADS = 8
"""Footers read at once; on S3 each takes some round trips."""

_CHUNK_BYTES = 8 * 2**20


@dataclass(frozen=True)
class ShardCheck:
    """What the footers say."""

    missing: tuple[str, ...]
    """What is not there or not whole, a sentence each."""
    mismatched: tuple[str, ...]
    """What is not as the manifest says, a sentence each."""
    unlisted: tuple[str, ...]
    """Names of Parquet files beside the shards that the manifest does not list."""
    keys: tuple[str, ...]
    """Shards of this dataset and fingerprint, in the manifest's order: what the rest is computed on."""


def check_shards(store: ObjectStore, manifest: Manifest) -> ShardCheck:
    """Read the footer of every shard that the manifest lists, and compare.

    Raises:
        StoreError: if the store does not answer or refuses.
    """
    with ThreadPoolExecutor(_THREADS, thread_name_prefix="footer") as pool:
        found = list(pool.map(lambda shard: _problem(store, manifest, shard), manifest.shards))
    missing: list[str] = []
    mismatched: list[str] = []
    keys: list[str] = []
    for shard, (problem, is_ours) in zip(manifest.shards, found, strict=True):
        if is_ours:
            keys.append(shard.path)
        if problem:
            (mismatched if problem.startswith("its") else missing).append(f"{_name(shard.path)}: {problem}")
    mismatched += [f"{_name(path)}: the manifest lists it more than once" for path in _repeated(manifest)]
    listed = {_name(shard.path) for shard in manifest.shards}
    beside = store.sizes(DatasetLayout(manifest.dataset_id).shards_folder)
    return ShardCheck(
        missing=tuple(missing),
        mismatched=tuple(mismatched),
        unlisted=tuple(sorted(name for name in beside if name.endswith(".parquet") and name not in listed)),
        keys=tuple(keys),
    )


def _name(path: str) -> str:
    return path.rpartition("/")[2]


def _repeated(manifest: Manifest) -> Iterator[str]:
    seen: set[str] = set()
    for shard in manifest.shards:
        if shard.path in seen:
            yield shard.path
        seen.add(shard.path)


def _problem(store: ObjectStore, manifest: Manifest, shard: Shard) -> tuple[str | None, bool]:
    """What is wrong with a shard, and whether its rows belong to the dataset all the same."""
    try:
        with store.open(shard.path) as file:
            size = file.seek(0, 2)
            found = read_receipt(file)
    except ObjectMissingError:
        return "it is not there", False
    if found is None:
        return "it is no whole Parquet file with a receipt", False
    receipt, rows = found
    for key, ours in (("dataset_id", manifest.dataset_id), ("fingerprint", manifest.fingerprint)):
        if receipt.get(key) != ours:
            return f"its {key} is {receipt.get(key)}, the manifest's is {ours}", False
    skipped = sum(map(len, receipt["skipped"].values()))
    for what, value, listed in (
        ("rows", rows, shard.rows),
        ("skipped tiles", skipped, shard.skipped),
        ("bytes", size, shard.bytes),
    ):
        if value != listed:
            return f"its {what} are {value}, the manifest says {listed}", True
    return None, True


def check_index(store: ObjectStore, manifest: Manifest) -> str | None:
    """What is wrong with the tile index; None if it is the very file that the manifest was written with.

    Raises:
        StoreError: if the store does not answer or refuses.
    """
    digest = hashlib.sha256()
    try:
        with store.open(manifest.index) as file:
            while chunk := file.read(_CHUNK_BYTES):
                digest.update(chunk)
    except ObjectMissingError:
        return "it is not there"
    if digest.hexdigest() != manifest.index_sha256:
        return "its sha256 is not the manifest's"
    return None
