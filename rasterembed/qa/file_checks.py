"""Compare a dataset's shards and tile index with the manifest. Find missing, damaged and different files."""

from __future__ import annotations

import hashlib
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import StrEnum

from rasterembed.dataset.manifest import Manifest
from rasterembed.dataset.shards import Shard, read_receipt
from rasterembed.errors import ObjectMissingError, StoreError, StoreUnavailableError
from rasterembed.qa.metrics import Measurement
from rasterembed.store.layout import DatasetLayout, name_of
from rasterembed.store.object_store import ObjectStore

_THREADS = 8
"""Number of footers that are read at the same time. On S3, reading a footer takes several requests."""

_CHUNK_BYTES = 8 * 2**20
"""Number of bytes in one read for a checksum."""

_EXAMPLES = 10
"""Largest number of example files in a measurement."""


class ShardProblem(StrEnum):
    """A problem of a shard in the manifest's list."""

    MISSING = "missing"
    """The store does not have the file."""
    DAMAGED = "damaged"
    """The file is not a complete Parquet file with a receipt in its footer."""
    OTHER_DATASET = "other_dataset"
    """The receipt names another dataset."""
    OTHER_FINGERPRINT = "other_fingerprint"
    """The receipt has another fingerprint, so the shard was made from another plan."""
    OTHER_ROWS = "other_rows"
    """The number of rows differs from the manifest."""
    OTHER_SKIPPED = "other_skipped"
    """The number of skipped tiles differs from the manifest."""
    OTHER_BYTES = "other_bytes"
    """The file size differs from the manifest."""
    LISTED_TWICE = "listed_twice"
    """The manifest lists the shard more than once."""

    @property
    def is_missing(self) -> bool:
        """Whether a shard with this problem counts as missing. Otherwise it counts as mismatched."""
        return self in (ShardProblem.MISSING, ShardProblem.DAMAGED)

    @property
    def excludes_rows(self) -> bool:
        """Whether the rows of a shard with this problem are left out of all queries."""
        return self.is_missing or self in (ShardProblem.OTHER_DATASET, ShardProblem.OTHER_FINGERPRINT)


@dataclass(frozen=True)
class ShardFinding:
    """A problem of one shard."""

    shard: str
    """File name of the shard."""
    problem: ShardProblem
    found: object = None
    """The shard's value, if the problem is a value that differs from the manifest."""
    expected: object = None
    """The value in the manifest."""

    def sentence(self) -> str:
        """Return the finding as text for people."""
        match self.problem:
            case ShardProblem.MISSING:
                text = "the store does not have this file"
            case ShardProblem.DAMAGED:
                text = "it is not a complete Parquet file with a receipt"
            case ShardProblem.OTHER_DATASET:
                text = f"its dataset_id is {self.found}, but the manifest's is {self.expected}"
            case ShardProblem.OTHER_FINGERPRINT:
                text = f"its fingerprint is {self.found}, but the manifest's is {self.expected}"
            case ShardProblem.OTHER_ROWS:
                text = f"its number of rows is {self.found}, but the manifest says {self.expected}"
            case ShardProblem.OTHER_SKIPPED:
                text = f"its number of skipped tiles is {self.found}, but the manifest says {self.expected}"
            case ShardProblem.OTHER_BYTES:
                text = f"it has {self.found} bytes, but the manifest says {self.expected}"
            case ShardProblem.LISTED_TWICE:
                text = "the manifest lists it more than once"
        return f"{self.shard}: {text}"


@dataclass(frozen=True)
class ShardChecks:
    """Result of comparing the shards in the store with the manifest."""

    findings: tuple[ShardFinding, ...]
    """All problems in the manifest's order. Shards that are listed twice come last."""
    unlisted: tuple[str, ...]
    """Names of Parquet files in the shards' folder that the manifest does not list."""
    keys: tuple[str, ...]
    """Keys of the shards with readable rows of this dataset, in the manifest's order."""

    def measurements(self) -> tuple[Measurement, ...]:
        """Return the metrics `shards_missing`, `shards_mismatched` and `shards_unlisted`."""
        missing = [finding.sentence() for finding in self.findings if finding.problem.is_missing]
        mismatched = [finding.sentence() for finding in self.findings if not finding.problem.is_missing]
        return (
            Measurement("shards_missing", len(missing), examples=tuple(missing[:_EXAMPLES])),
            Measurement("shards_mismatched", len(mismatched), examples=tuple(mismatched[:_EXAMPLES])),
            Measurement("shards_unlisted", len(self.unlisted), examples=self.unlisted[:_EXAMPLES]),
        )


def check_shards(store: ObjectStore, manifest: Manifest) -> ShardChecks:
    """Read the footer of every shard in the manifest's list, and compare the footer with the manifest.

    Args:
        store: store of the dataset.
        manifest: the dataset's manifest.

    Raises:
        StoreError: if the store does not answer or refuses.
    """
    with ThreadPoolExecutor(_THREADS, thread_name_prefix="footer") as pool:
        results = list(pool.map(lambda shard: _check_shard(store, manifest, shard), manifest.shards))
    findings = [finding for finding in results if finding is not None]
    keys = [
        shard.path
        for shard, finding in zip(manifest.shards, results, strict=True)
        if finding is None or not finding.problem.excludes_rows
    ]
    times_listed = Counter(shard.path for shard in manifest.shards)
    for path, times in times_listed.items():
        findings += [ShardFinding(name_of(path), ShardProblem.LISTED_TWICE)] * (times - 1)
    listed = {name_of(path) for path in times_listed}
    in_store = store.sizes(DatasetLayout(manifest.dataset_id).shards_folder)
    return ShardChecks(
        findings=tuple(findings),
        unlisted=tuple(sorted(name for name in in_store if name.endswith(".parquet") and name not in listed)),
        keys=tuple(keys),
    )


def _check_shard(store: ObjectStore, manifest: Manifest, shard: Shard) -> ShardFinding | None:
    """Return the first problem of a shard, or None if the shard has no problem."""
    name = name_of(shard.path)
    try:
        with store.open(shard.path) as file:
            size = file.seek(0, 2)
            footer = read_receipt(file)
    except ObjectMissingError:
        return ShardFinding(name, ShardProblem.MISSING)
    if footer is None:
        return ShardFinding(name, ShardProblem.DAMAGED)
    receipt, rows, skipped = footer.receipt, footer.rows, footer.skipped_count
    for problem, found, expected in (
        (ShardProblem.OTHER_DATASET, receipt.dataset_id, manifest.dataset_id),
        (ShardProblem.OTHER_FINGERPRINT, receipt.fingerprint, manifest.fingerprint),
        (ShardProblem.OTHER_ROWS, rows, shard.rows),
        (ShardProblem.OTHER_SKIPPED, skipped, shard.skipped),
        (ShardProblem.OTHER_BYTES, size, shard.bytes),
    ):
        if found != expected:
            return ShardFinding(name, problem, found, expected)
    return None


class IndexProblem(StrEnum):
    """A problem of the tile index. The value is the text for people."""

    MISSING = "the store does not have this file"
    CHANGED = "its sha256 is not the one in the manifest"


@dataclass(frozen=True)
class IndexCheck:
    """Result of comparing the tile index in the store with the manifest."""

    problem: IndexProblem | None
    """The problem. None if the checksum of the tile index is the one in the manifest."""
    readable: bool
    """Whether the planned tiles can be read from the tile index. This may be possible even if the index changed."""

    def measurement(self) -> Measurement:
        """Return the metric `index_mismatched`."""
        examples = () if self.problem is None else (self.problem.value,)
        return Measurement("index_mismatched", int(self.problem is not None), examples=examples)


def check_index(store: ObjectStore, manifest: Manifest) -> IndexCheck:
    """Compare the tile index in the store with its checksum in the manifest.

    Args:
        store: store of the dataset.
        manifest: the dataset's manifest.

    Raises:
        StoreError: if the store does not answer or refuses.
    """
    digest = hashlib.sha256()
    try:
        with store.open(manifest.index) as file:
            while chunk := file.read(_CHUNK_BYTES):
                digest.update(chunk)
    except ObjectMissingError:
        return IndexCheck(IndexProblem.MISSING, readable=False)
    if digest.hexdigest() == manifest.index_sha256:
        return IndexCheck(None, readable=True)
    return IndexCheck(IndexProblem.CHANGED, readable=_has_receipt(store, manifest.index))


def _has_receipt(store: ObjectStore, key: str) -> bool:
    try:
        with store.open(key) as file:
            return read_receipt(file) is not None
    except StoreUnavailableError:
        raise
    except StoreError:
        return False
