"""The Parquet files with vectors that a search engine reads: the shards of a dataset, or the table of a collection."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from rasterembed.dataset.dataset import Dataset
from rasterembed.store.object_store import ObjectStore

if TYPE_CHECKING:
    from rasterembed.collection.collection import Collection
    from rasterembed.collection.table import TableDescription


class VectorIndexLayout(Protocol):
    """Keys of the files of a vector index."""

    @property
    def vector_index_folder(self) -> str:
        """Folder of the vector index."""

    @property
    def vector_index_info(self) -> str:
        """Description of the vector index."""

    def vector_index_file(self, name: str) -> str:
        """Return the key of a file in the folder of the vector index."""


@dataclass(frozen=True)
class VectorFiles:
    """Files with vectors that are searched together, and the place of their vector index."""

    store: ObjectStore
    name: str
    """Kind and name of the owner for people, such as `dataset 'scene'`."""
    owner_id: str
    """Id of the dataset or the collection."""
    layout: VectorIndexLayout
    """Keys of the files of the vector index."""
    digest: str
    """Digest of the vectors: the fingerprint of the dataset, or the signature of the table."""
    rows: int
    """Number of vectors."""
    dimensions: int
    """Length of a vector."""
    keys: tuple[str, ...]
    """Keys of the files that have rows."""
    of_collection: bool
    """Whether the files belong to the table of a collection. They then have the column `dataset_id`."""

    @classmethod
    def of_dataset(cls, dataset: Dataset) -> VectorFiles:
        """Return the shards of a dataset."""
        manifest = dataset.manifest
        return cls(
            store=dataset.store,
            name=dataset.layout.owner,
            owner_id=dataset.id,
            layout=dataset.layout,
            digest=manifest.fingerprint,
            rows=manifest.rows,
            dimensions=manifest.dimensions,
            keys=tuple(shard.path for shard in manifest.shards if shard.rows),
            of_collection=False,
        )

    @classmethod
    def of_table(cls, collection: Collection, table: TableDescription) -> VectorFiles:
        """Return the files of a collection's table."""
        return cls(
            store=collection.store,
            name=collection.layout.owner,
            owner_id=collection.id,
            layout=collection.layout,
            digest=table.signature,
            rows=table.rows,
            dimensions=collection.configuration.model.dimensions,
            keys=tuple(part.path for part in table.parts),
            of_collection=True,
        )

    @property
    def identity(self) -> tuple[str, ...]:
        """Columns that name a tile. Tiles of equal distance are in the order of these columns."""
        return ("tile_id", "dataset_id") if self.of_collection else ("tile_id",)

    @property
    def columns(self) -> str:
        """Columns that every engine returns, as SQL."""
        return f"dataset_id, {_COLUMNS}" if self.of_collection else _COLUMNS


_COLUMNS = 'tile_id, "row", col, col_off, row_off, width, height, valid_fraction, geometry'
