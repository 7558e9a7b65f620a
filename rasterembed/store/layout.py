"""Keys of all objects below the root of a store. No other module builds these paths or takes them apart."""

from __future__ import annotations

import re
import uuid
from dataclasses import dataclass
from pathlib import PurePosixPath

from rasterembed.errors import UsageError

DATASETS_FOLDER = "datasets"
"""Folder that holds one folder per dataset, with its manifest."""

OUTPUT_FOLDERS = (DATASETS_FOLDER, "tiles", "embeddings", "qa", "indexes", "dead-letters")
"""All folders directly below a root that runs and services write to."""

VECTOR_INDEX_NAME = r"^hnsw-[0-9a-f]{12}-[0-9a-f]{8}\.duckdb$"
"""Regular expression for the file names that `new_vector_index_name` makes."""

_DATASET_ID = re.compile(r"[a-z0-9][a-z0-9._-]{0,127}")


def check_dataset_id(dataset_id: str) -> str:
    """Return `dataset_id` if it may be part of a path.

    Raises:
        UsageError: if it does not match `[a-z0-9][a-z0-9._-]{0,127}`.
    """
    if not _DATASET_ID.fullmatch(dataset_id):
        raise UsageError(
            f"dataset id {dataset_id!r} is not allowed: use 1 to 128 of a-z 0-9 . _ - "
            "and begin with a letter or a digit"
        )
    return dataset_id


def dataset_id_of_manifest(key: str) -> str | None:
    """Return the id of the dataset whose manifest is the object `key`, or None if `key` is not a manifest.

    Example:
        >>> from rasterembed.store.layout import dataset_id_of_manifest
        >>> dataset_id_of_manifest("datasets/alps/manifest.json")
        'alps'
    """
    dataset_id, _, name = key.removeprefix(f"{DATASETS_FOLDER}/").partition("/")
    return dataset_id if name == "manifest.json" else None


def dead_letter(digest: str) -> str:
    """Return the key of a notification that can never become a run.

    Args:
        digest: hash of the notification, in hexadecimal digits; equal notifications share one key.
    """
    return f"dead-letters/uploads/{digest[:32]}.json"


def new_vector_index_name(fingerprint: str) -> str:
    """Return a new, unique file name for a vector index of the dataset with this fingerprint."""
    return f"hnsw-{fingerprint[:12]}-{uuid.uuid4().hex[:8]}.duckdb"


@dataclass(frozen=True)
class DatasetLayout:
    """Keys of the objects of one dataset, relative to the store's root.

    Raises:
        UsageError: if the dataset id is not allowed; see `check_dataset_id`.

    Example:
        >>> from rasterembed.store.layout import DatasetLayout
        >>> DatasetLayout("alps").manifest
        'datasets/alps/manifest.json'
    """

    dataset_id: str
    """Name of the dataset."""

    def __post_init__(self) -> None:
        check_dataset_id(self.dataset_id)

    @property
    def dataset_folder(self) -> str:
        """Folder of the manifest, the STAC item and the plans."""
        return f"{DATASETS_FOLDER}/{self.dataset_id}"

    @property
    def manifest(self) -> str:
        """The manifest: what the dataset is, and which shards belong to it. Every run writes it last."""
        return f"{self.dataset_folder}/manifest.json"

    @property
    def stac_item(self) -> str:
        """The dataset's STAC item."""
        return f"{self.dataset_folder}/stac-item.json"

    @property
    def lease_folder(self) -> str:
        """Folder of the lease files; see `rasterembed.store.lease`."""
        return f"{self.dataset_folder}/lease"

    @property
    def tile_index(self) -> str:
        """The tile index: a GeoParquet file with one row for each planned tile."""
        return f"tiles/{self.dataset_id}/index.parquet"

    @property
    def shards_folder(self) -> str:
        """Folder of the shards."""
        return f"embeddings/{self.dataset_id}"

    @property
    def qa_folder(self) -> str:
        """Folder of the QA report and its pictures."""
        return f"qa/{self.dataset_id}"

    @property
    def qa_report(self) -> str:
        """The QA report as JSON."""
        return self.qa_file("report.json")

    @property
    def qa_report_markdown(self) -> str:
        """The QA report as Markdown."""
        return self.qa_file("report.md")

    @property
    def vector_index_folder(self) -> str:
        """Folder of the vector index."""
        return f"indexes/{self.dataset_id}"

    @property
    def vector_index_info(self) -> str:
        """Description of the vector index, which names the file of the index."""
        return self.vector_index_file("index.json")

    def lease(self, number: int) -> str:
        """Return the key of a lease file."""
        return f"{self.lease_folder}/{number:08d}.json"

    def plan(self, fingerprint: str) -> str:
        """Return the key of a plan, from which any process can compute any shard."""
        return f"{self.dataset_folder}/plan-{fingerprint[:12]}.json"

    def shard(self, fingerprint: str, number: int) -> str:
        """Return the key of a shard, which is a GeoParquet file."""
        return f"{self.shards_folder}/{self.shard_name(fingerprint, number)}"

    def shard_name(self, fingerprint: str, number: int) -> str:
        """Return the name of a shard in `shards_folder`."""
        return f"part-{fingerprint[:12]}-{number:05d}.parquet"

    def is_of_other_plan(self, key: str, fingerprint: str) -> bool:
        """Return whether an object of this dataset is a shard or a plan, and belongs to another plan.

        Args:
            key: key of an object in `shards_folder` or `dataset_folder`.
            fingerprint: fingerprint of the plan whose objects give False.
        """
        name, short = PurePosixPath(key).name, fingerprint[:12]
        belongs = name.startswith(f"part-{short}-") or name == f"plan-{short}.json"
        return name.startswith(("part-", "plan-")) and not belongs

    def qa_file(self, name: str) -> str:
        """Return the key of a picture, or another file, beside the QA report."""
        return f"{self.qa_folder}/{name}"

    def vector_index_file(self, name: str) -> str:
        """Return the key of a file in the folder of the vector index."""
        return f"{self.vector_index_folder}/{name}"
