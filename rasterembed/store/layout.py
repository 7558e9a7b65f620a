"""Where a dataset's objects stand below the root of a store: the one place that knows."""

from __future__ import annotations

import re
from dataclasses import dataclass

from rasterembed.errors import UsageError

FOLDERS = ("datasets", "tiles", "embeddings", "qa", "indexes")
"""Everything below a root that runs write to."""

_DATASET_ID = re.compile(r"[a-z0-9][a-z0-9._-]{0,127}")


def check_dataset_id(dataset_id: str) -> str:
    """Return `dataset_id` if it may become a path.

    Raises:
        UsageError: if it does not match `[a-z0-9][a-z0-9._-]{0,127}`.
    """
    if not _DATASET_ID.fullmatch(dataset_id):
        raise UsageError(
            f"dataset id {dataset_id!r} is not allowed: use 1 to 128 of a-z 0-9 . _ - "
            "and begin with a letter or a digit"
        )
    return dataset_id


@dataclass(frozen=True)
class DatasetLayout:
    """Keys of one dataset, relative to the store's root."""

    dataset_id: str
    """Name of the dataset, already checked by `check_dataset_id`."""

    def __post_init__(self) -> None:
        check_dataset_id(self.dataset_id)

    @property
    def manifest(self) -> str:
        """What the dataset is and which shards count; written last."""
        return f"datasets/{self.dataset_id}/manifest.json"

    @property
    def stac_item(self) -> str:
        """STAC item of the dataset."""
        return f"datasets/{self.dataset_id}/stac-item.json"

    @property
    def leases(self) -> str:
        """Folder of the lease files; see `rasterembed.store.lease`."""
        return f"datasets/{self.dataset_id}/lease"

    @property
    def index(self) -> str:
        """One row a planned tile."""
        return f"tiles/{self.dataset_id}/index.parquet"

    @property
    def shards(self) -> str:
        """Folder of the shards."""
        return f"embeddings/{self.dataset_id}"

    @property
    def qa(self) -> str:
        """Folder of the quality report."""
        return f"qa/{self.dataset_id}"

    @property
    def search_index(self) -> str:
        """Folder of the search index."""
        return f"indexes/{self.dataset_id}"

    def plan(self, fingerprint: str) -> str:
        """The whole plan of a run, so that any process can compute any shard of it."""
        return f"datasets/{self.dataset_id}/plan-{fingerprint[:12]}.json"

    def shard(self, fingerprint: str, number: int) -> str:
        """One shard's GeoParquet file."""
        return f"{self.shards}/part-{fingerprint[:12]}-{number:05d}.parquet"
