"""Keys of all objects in a store. Only this module knows how a key is built."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal

from rasterembed.errors import UsageError

DATASETS_FOLDER = "datasets"
"""Folder that holds one folder for each dataset. The dataset's manifest is in the dataset's folder."""

COLLECTIONS_FOLDER = "collections"
"""Folder that holds one folder for each collection."""

INDEXES_FOLDER = "indexes"
"""Folder of the vector indexes of datasets."""

OUTPUT_FOLDERS = (DATASETS_FOLDER, COLLECTIONS_FOLDER, "tiles", "embeddings", "qa", INDEXES_FOLDER, "dead-letters")
"""All folders in a root that runs and services write to."""

QA_OVERVIEW = "qa-overview.html"
"""The page about the quality of all datasets. It is in the root, because a name in the folder `qa` could be the id of a
dataset."""

IndexFileKind = Literal["rows", "vectors", "codes", "scenes", "hnsw"]
"""Kind of a file of a vector index: one of the files of a segment, or the database of the engine `vss`."""

_INDEX_ENDINGS: dict[IndexFileKind, str] = {
    "rows": "arrow",
    "vectors": "bin",
    "codes": "faiss",
    "scenes": "arrow",
    "hnsw": "duckdb",
}
"""Endings of the names of the files of a vector index."""

MAX_SHARD_NUMBER = 99_999
"""Largest number of a shard. The name of a shard has five digits for its number."""

_LEASE_DIGITS = 18
"""Largest number of digits in the name of a lease file. A file whose name has more digits was not written by a run."""

MAX_ID_LETTERS = 128
"""Largest number of characters of a dataset id."""

MEMBER_MARK = "--"
"""Text between the id of a collection and the rest of the id of a dataset in the collection."""

_DATASET_ID = re.compile(rf"[a-z0-9][a-z0-9._-]{{0,{MAX_ID_LETTERS - 1}}}")
_COLLECTION_ID = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")


def folder_of(key: str) -> str:
    """Return the folder of an object.

    Example:
        >>> from rasterembed.store.layout import folder_of
        >>> folder_of("datasets/alps/manifest.json")
        'datasets/alps'
    """
    return key.rpartition("/")[0]


def name_of(key: str) -> str:
    """Return the name of an object in its folder.

    Example:
        >>> from rasterembed.store.layout import name_of
        >>> name_of("datasets/alps/manifest.json")
        'manifest.json'
    """
    return key.rpartition("/")[2]


def key_in(folder: str, name: str) -> str:
    """Return the key of the object `name` in a folder."""
    return f"{folder}/{name}"


def lease_number(name: str) -> int | None:
    """Return the number of a lease file, or None if `name` is not the name of a lease file.

    Example:
        >>> from rasterembed.store.layout import lease_number
        >>> lease_number("00000007.json")
        7
    """
    number = name.removesuffix(".json")
    return int(number) if number.isdecimal() and len(number) <= _LEASE_DIGITS else None


def is_pattern(name: str) -> bool:
    """Return whether a name is a pattern for names of datasets, such as `incoming-*`."""
    return any(character in name for character in "*?[")


def is_dataset_id(text: str) -> bool:
    """Return whether a text may be the id of a dataset."""
    return _DATASET_ID.fullmatch(text) is not None


def check_dataset_id(dataset_id: str) -> str:
    """Return `dataset_id` if it may be part of a key.

    Raises:
        UsageError: if `dataset_id` does not match `[a-z0-9][a-z0-9._-]{0,127}`.
    """
    if not is_dataset_id(dataset_id):
        raise UsageError(
            f"dataset id {dataset_id!r} is not allowed: use 1 to 128 of a-z 0-9 . _ - "
            "and begin with a letter or a digit"
        )
    return dataset_id


def check_collection_id(collection_id: str) -> str:
    """Return `collection_id` if it may be part of a key, and the beginning of the ids of datasets.

    Raises:
        UsageError: if `collection_id` does not match `[a-z0-9][a-z0-9._-]{0,62}`, ends with `-`, or contains `--`.
    """
    if (
        not _COLLECTION_ID.fullmatch(collection_id)
        or MEMBER_MARK in collection_id
        or collection_id.endswith(MEMBER_MARK[0])
    ):
        raise UsageError(
            f"collection id {collection_id!r} is not allowed: use 1 to 63 of a-z 0-9 . _ -, begin with a letter or a "
            f"digit, do not end with -, and do not use {MEMBER_MARK}"
        )
    return collection_id


def dataset_id_of_manifest(key: str) -> str | None:
    """Return the dataset id in the key of a manifest, or None if `key` is not the key of a manifest.

    Example:
        >>> from rasterembed.store.layout import dataset_id_of_manifest
        >>> dataset_id_of_manifest("datasets/alps/manifest.json")
        'alps'
    """
    dataset_id, _, name = key.removeprefix(f"{DATASETS_FOLDER}/").partition("/")
    return dataset_id if name == "manifest.json" else None


def dataset_id_of_plan(key: str) -> str | None:
    """Return the dataset id in the key of a plan, or None if `key` is not the key of a plan.

    Example:
        >>> from rasterembed.store.layout import dataset_id_of_plan
        >>> dataset_id_of_plan("datasets/alps/plan-0123456789ab.json")
        'alps'
    """
    dataset_id, _, name = key.removeprefix(f"{DATASETS_FOLDER}/").partition("/")
    return dataset_id if name.startswith("plan-") and name.endswith(".json") and "/" not in name else None


def dead_letter(digest: str) -> str:
    """Return the key of a dead letter. A dead letter is a notification that can never start a run.

    Args:
        digest: hash of the notification, in hexadecimal digits. Equal notifications have the same key.
    """
    return f"dead-letters/uploads/{digest[:32]}.json"


def new_index_file_name(kind: IndexFileKind, digest: str, build: str) -> str:
    """Return the name of a new file of a vector index.

    Args:
        kind: kind of the file.
        digest: digest of the vectors.
        build: eight hexadecimal digits that no other build has. All files of one segment have the same ones.

    Example:
        >>> from rasterembed.store.layout import new_index_file_name
        >>> new_index_file_name("rows", "0123456789abcdef", "89abcdef")
        'rows-0123456789ab-89abcdef.arrow'
    """
    return f"{kind}-{digest[:12]}-{build}.{_INDEX_ENDINGS[kind]}"


def index_file_kind(name: str) -> IndexFileKind | None:
    """Return the kind of a file of a vector index, or None if `new_index_file_name` does not return such a name."""
    for kind, ending in _INDEX_ENDINGS.items():
        if re.fullmatch(rf"{kind}-[0-9a-f]{{12}}-[0-9a-f]{{8}}\.{ending}", name):
            return kind
    return None


def dataset_id_of_object(key: str) -> str | None:
    """Return the dataset id in the key of an object in a `dataset_folder`. Return None for a key of a lease.

    Example:
        >>> from rasterembed.store.layout import dataset_id_of_object
        >>> dataset_id_of_object("datasets/alps/stac-item.json")
        'alps'
        >>> dataset_id_of_object("datasets/alps/lease/00000001.json") is None
        True
    """
    dataset_id, _, name = key.removeprefix(f"{DATASETS_FOLDER}/").partition("/")
    return dataset_id if name and not name.startswith("lease/") else None


class Layout(ABC):
    """Keys that a dataset and a collection both have: those of the lease, of the QA report and of the vector index."""

    kind: ClassVar[str]
    """Word for people: `dataset` or `collection`."""

    @property
    @abstractmethod
    def owner(self) -> str:
        """Kind and name for people, such as `dataset 'alps'`."""

    @property
    @abstractmethod
    def lease_folder(self) -> str:
        """Folder of the lease files. See `rasterembed.store.lease`."""

    @property
    @abstractmethod
    def qa_folder(self) -> str:
        """Folder of the QA report and its pictures."""

    @property
    @abstractmethod
    def vector_index_folder(self) -> str:
        """Folder of the vector index."""

    @property
    def qa_report(self) -> str:
        """The QA report as JSON."""
        return self.qa_file("report.json")

    @property
    def qa_report_markdown(self) -> str:
        """The QA report as Markdown."""
        return self.qa_file("report.md")

    @property
    def vector_index_info(self) -> str:
        """Description of the vector index. It holds the name of the index file."""
        return self.vector_index_file("index.json")

    def lease(self, number: int) -> str:
        """Return the key of a lease file."""
        return f"{self.lease_folder}/{number:08d}.json"

    def qa_file(self, name: str) -> str:
        """Return the key of a picture or another file in the folder of the QA report."""
        return key_in(self.qa_folder, name)

    def vector_index_file(self, name: str) -> str:
        """Return the key of a file in the folder of the vector index."""
        return key_in(self.vector_index_folder, name)


@dataclass(frozen=True)
class DatasetLayout(Layout):
    """Keys of the objects of one dataset. A key is relative to the store's root.

    Raises:
        UsageError: if the dataset id is not allowed. See `check_dataset_id`.

    Example:
        >>> from rasterembed.store.layout import DatasetLayout
        >>> DatasetLayout("alps").manifest
        'datasets/alps/manifest.json'
    """

    kind: ClassVar[str] = "dataset"

    dataset_id: str
    """Name of the dataset."""

    def __post_init__(self) -> None:
        check_dataset_id(self.dataset_id)

    @property
    def owner(self) -> str:
        """Kind and name, for people."""
        return f"dataset {self.dataset_id!r}"

    @property
    def dataset_folder(self) -> str:
        """Folder of the manifest, the STAC item and the plans."""
        return f"{DATASETS_FOLDER}/{self.dataset_id}"

    @property
    def folders(self) -> tuple[str, ...]:
        """All folders with objects of the dataset. The folder of the manifest comes first."""
        tile_index_folder = folder_of(self.tile_index)
        return (self.dataset_folder, tile_index_folder, self.shards_folder, self.qa_folder, self.vector_index_folder)

    @property
    def manifest(self) -> str:
        """The manifest, which describes the dataset and lists its shards. Every run writes the manifest last."""
        return f"{self.dataset_folder}/manifest.json"

    @property
    def stac_item(self) -> str:
        """The dataset's STAC item."""
        return f"{self.dataset_folder}/stac-item.json"

    @property
    def lease_folder(self) -> str:
        """Folder of the lease files. See `rasterembed.store.lease`."""
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
    def vector_index_folder(self) -> str:
        """Folder of the vector index."""
        return f"{INDEXES_FOLDER}/{self.dataset_id}"

    def plan(self, fingerprint: str) -> str:
        """Return the key of a plan. With the plan, any process can compute any shard of the dataset."""
        return f"{self.dataset_folder}/plan-{fingerprint[:12]}.json"

    def shard(self, fingerprint: str, number: int) -> str:
        """Return the key of a shard, which is a GeoParquet file."""
        return f"{self.shards_folder}/{self.shard_name(fingerprint, number)}"

    def shard_name(self, fingerprint: str, number: int) -> str:
        """Return the name of a shard in `shards_folder`."""
        return f"part-{fingerprint[:12]}-{number:05d}.parquet"

    def is_of_other_plan(self, key: str, fingerprint: str) -> bool:
        """Return True if an object is a plan with another fingerprint, or a shard of a plan with another fingerprint.

        Args:
            key: key of an object in `shards_folder` or `dataset_folder`.
            fingerprint: fingerprint of the current plan. The current plan and its shards give False.
        """
        name, short = name_of(key), fingerprint[:12]
        belongs = name.startswith(f"part-{short}-") or name == f"plan-{short}.json"
        return name.startswith(("part-", "plan-")) and not belongs


@dataclass(frozen=True)
class CollectionLayout(Layout):
    """Keys of the objects of one collection. A key is relative to the store's root.

    The scenes of a collection are datasets. Their objects have the keys of `DatasetLayout`.

    Raises:
        UsageError: if the collection id is not allowed. See `check_collection_id`.

    Example:
        >>> from rasterembed.store.layout import CollectionLayout
        >>> CollectionLayout("survey-2026").catalogue
        'collections/survey-2026/items.parquet'
    """

    kind: ClassVar[str] = "collection"

    collection_id: str
    """Name of the collection."""

    def __post_init__(self) -> None:
        check_collection_id(self.collection_id)

    @property
    def owner(self) -> str:
        """Kind and name, for people."""
        return f"collection {self.collection_id!r}"

    @property
    def member_prefix(self) -> str:
        """Beginning of the ids of the datasets in the collection."""
        return f"{self.collection_id}{MEMBER_MARK}"

    @property
    def collection_folder(self) -> str:
        """Folder of the collection's objects."""
        return f"{COLLECTIONS_FOLDER}/{self.collection_id}"

    @property
    def written_folders(self) -> tuple[str, ...]:
        """Folders in which a killed run may leave unfinished files of the collection itself."""
        return (self.collection_folder, self.table_folder, self.qa_folder)

    @property
    def stac_collection(self) -> str:
        """The STAC Collection. It holds the configuration of the collection."""
        return f"{self.collection_folder}/collection.json"

    @property
    def stac_model(self) -> str:
        """The STAC Item that describes the model of the collection."""
        return f"{self.collection_folder}/model.json"

    @property
    def catalogue(self) -> str:
        """The catalogue: a stac-geoparquet file with one row for each scene."""
        return f"{self.collection_folder}/items.parquet"

    @property
    def qa_folder(self) -> str:
        """Folder of the QA report of the collection and its pictures."""
        return f"{self.collection_folder}/qa"

    @property
    def scene_means(self) -> str:
        """The mean vector of each scene, as a Parquet file. It is derived from the shards."""
        return self.qa_file("means.parquet")

    @property
    def work_folder(self) -> str:
        """Folder of the batches that a run deals to its workers. It is empty when no run is at work."""
        return f"{self.collection_folder}/work"

    def batch(self, lease: int, first: int, stop: int) -> str:
        """Return the key of a batch of scenes.

        Args:
            lease: number of the run's lease. No two runs have the same one.
            first: number of the first scene of the batch, from 0.
            stop: number after the last scene.
        """
        return f"{self.work_folder}/{lease:08d}-{first:06d}-{stop:06d}.json"

    def batch_rows(self, lease: int, first: int, stop: int) -> str:
        """Return the key of the rows of a batch, which a worker writes at the end. See `batch` for the arguments."""
        return f"{self.work_folder}/{lease:08d}-{first:06d}-{stop:06d}.parquet"

    @property
    def table_folder(self) -> str:
        """Folder of the table, which holds the vectors of all scenes."""
        return f"{self.collection_folder}/table"

    @property
    def table(self) -> str:
        """The description of the table, which lists its files."""
        return self.table_file("table.json")

    def table_part(self, first: int, level: int, scenes: str) -> str:
        """Return the key of a file of the table. In alphabetical order, the files are in the order of the curve.

        Args:
            first: smallest key of the file's cell. See `rasterembed.collection.cells`.
            level: level of the cell.
            scenes: digest of the scenes in the file, in hexadecimal digits.
        """
        return self.table_file(f"part-{first:014x}-{level:02d}-{scenes[:12]}.parquet")

    def is_table_part(self, name: str) -> bool:
        """Return whether a name in `table_folder` is that of a file with vectors."""
        return name.startswith("part-") and name.endswith(".parquet")

    def table_file(self, name: str) -> str:
        """Return the key of a file in `table_folder`."""
        return key_in(self.table_folder, name)

    @property
    def vector_index_folder(self) -> str:
        """Folder of the vector index of the table."""
        return f"{self.collection_folder}/index"

    @property
    def lease_folder(self) -> str:
        """Folder of the lease files. See `rasterembed.store.lease`."""
        return f"{self.collection_folder}/lease"
