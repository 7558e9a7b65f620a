"""Check that a dataset's shards and tile index exist, and that they are the files that the manifest describes."""

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
from rasterembed.store.layout import DatasetLayout
from rasterembed.store.object_store import ObjectStore

_THREADS = 8
"""Number of footers read at the same time. On S3 each takes several round trips."""

_CHUNK_BYTES = 8 * 2**20
"""Bytes read at a time to compute a checksum."""

_EXAMPLES = 10
"""Largest number of files named where a count is not zero."""


class ShardProblem(StrEnum):
    """What is wrong with a shard that the manifest lists."""

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
        """Whether the shard counts as missing. Otherwise it counts as mismatched."""
        return self in (ShardProblem.MISSING, ShardProblem.DAMAGED)

    @property
    def excludes_rows(self) -> bool:
        """Whether the shard's rows cannot be read or are not part of the dataset."""
        return self.is_missing or self in (ShardProblem.OTHER_DATASET, ShardProblem.OTHER_FINGERPRINT)


@dataclass(frozen=True)
class ShardFinding:
    """A problem of one shard."""

    shard: str
    """File name of the shard."""
    problem: ShardProblem
    found: object = None
    """The value in the shard that differs from the manifest, if the problem is such a value."""
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
                text = f"it has {self.found} rows, but the manifest says {self.expected}"
            case ShardProblem.OTHER_SKIPPED:
                text = f"it has {self.found} skipped tiles, but the manifest says {self.expected}"
            case ShardProblem.OTHER_BYTES:
                text = f"it has {self.found} bytes, but the manifest says {self.expected}"
            case ShardProblem.LISTED_TWICE:
                text = "the manifest lists it more than once"
        return f"{self.shard}: {text}"


@dataclass(frozen=True)
class ShardChecks:
    """Result of comparing the shards in the store with the manifest."""

    findings: tuple[ShardFinding, ...]
    """All problems, in the manifest's order; shards that are listed twice come last."""
    unlisted: tuple[str, ...]
    """Names of Parquet files beside the shards that the manifest does not list."""
    keys: tuple[str, ...]
    """Keys of the shards whose rows are part of the dataset, in the manifest's order."""

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
    """Read the footer of every shard that the manifest lists, and compare it with the manifest.

    Args:
        store: where the dataset is.
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
        findings += [ShardFinding(_file_name(path), ShardProblem.LISTED_TWICE)] * (times - 1)
    listed = {_file_name(path) for path in times_listed}
    in_store = store.sizes(DatasetLayout(manifest.dataset_id).shards_folder)
    return ShardChecks(
        findings=tuple(findings),
        unlisted=tuple(sorted(name for name in in_store if name.endswith(".parquet") and name not in listed)),
        keys=tuple(keys),
    )


def _file_name(path: str) -> str:
    return path.rpartition("/")[2]


def _check_shard(store: ObjectStore, manifest: Manifest, shard: Shard) -> ShardFinding | None:
    """Return the first problem of a shard, or None if it is as the manifest says."""
    name = _file_name(shard.path)
    try:
        with store.open(shard.path) as file:
            size = file.seek(0, 2)
            footer = read_receipt(file)
    except ObjectMissingError:
        return ShardFinding(name, ShardProblem.MISSING)
    if footer is None:
        return ShardFinding(name, ShardProblem.DAMAGED)
    receipt, rows, skipped = footer.content, footer.rows, footer.skipped_count
    for problem, found, expected in (
        (ShardProblem.OTHER_DATASET, receipt.get("dataset_id"), manifest.dataset_id),
        (ShardProblem.OTHER_FINGERPRINT, receipt.get("fingerprint"), manifest.fingerprint),
        (ShardProblem.OTHER_ROWS, rows, shard.rows),
        (ShardProblem.OTHER_SKIPPED, skipped, shard.skipped),
        (ShardProblem.OTHER_BYTES, size, shard.bytes),
    ):
        if found != expected:
            return ShardFinding(name, problem, found, expected)
    return None


class IndexProblem(StrEnum):
    """What is wrong with the tile index. The value is the text for people."""

    MISSING = "the store does not have this file"
    CHANGED = "its sha256 is not the one in the manifest"


@dataclass(frozen=True)
class IndexCheck:
    """Result of comparing the tile index in the store with the manifest."""

    problem: IndexProblem | None
    """None if it is the file that the manifest was written with."""
    readable: bool
    """Whether the planned tiles can be read from it. A changed index may still be readable."""

    def measurement(self) -> Measurement:
        """Return the metric `index_mismatched`."""
        examples = () if self.problem is None else (self.problem.value,)
        return Measurement("index_mismatched", int(self.problem is not None), examples=examples)


def check_index(store: ObjectStore, manifest: Manifest) -> IndexCheck:
    """Compare the tile index in the store with its checksum in the manifest.

    Args:
        store: where the dataset is.
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
