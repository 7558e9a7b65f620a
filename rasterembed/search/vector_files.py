"""The Parquet files with vectors that a search engine reads: the shards of a dataset, or the table of a collection."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa
from pydantic import ValidationError

from rasterembed.dataset.dataset import Dataset
from rasterembed.dataset.geoparquet import BBOX_TYPE
from rasterembed.errors import DataError, one_line, validation_reason
from rasterembed.store.layout import Layout
from rasterembed.store.object_store import ObjectStore

if TYPE_CHECKING:
    from rasterembed.collection.collection import Collection
    from rasterembed.collection.table import TableDescription


@dataclass(frozen=True)
class VectorFiles:
    """Files with vectors that are searched together, and the place of their vector index."""

    store: ObjectStore
    name: str
    """Kind and name of the owner for people, such as `dataset 'scene'`."""
    owner_id: str
    """Id of the dataset or the collection."""
    layout: Layout
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
    collection: Collection | None = None
    """The collection of the table, whose catalogue knows the scenes. None for a dataset."""

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
            collection=collection,
        )

    @property
    def identity(self) -> tuple[str, ...]:
        """Columns that name a tile. Tiles of equal distance are in the order of these columns."""
        return ("tile_id", "dataset_id") if self.of_collection else ("tile_id",)

    @property
    def columns(self) -> str:
        """Columns that every engine returns, as SQL."""
        return ", ".join(f'"{name}"' for name in self.column_names)

    @property
    def column_names(self) -> list[str]:
        """Names of the columns that every engine returns."""
        return ["dataset_id", *_COLUMNS] if self.of_collection else list(_COLUMNS)

    @property
    def index_schema(self) -> pa.Schema:
        """Columns of the rows file of a vector index: those of the answer, and those that filters need.

        `bbox` and `geometry` are null for tiles without a place on Earth. `datetime` and `lattice` may be null.
        """
        fields = [
            pa.field("tile_id", pa.string(), nullable=False),
            *(
                pa.field(name, pa.int32(), nullable=False)
                for name in ("row", "col", "col_off", "row_off", "width", "height")
            ),
            pa.field("valid_fraction", pa.float32(), nullable=False),
            pa.field("geometry", pa.binary()),
            pa.field("bbox", BBOX_TYPE),
        ]
        if self.of_collection:
            of_scene = [pa.field("datetime", pa.timestamp("ms", tz="UTC")), pa.field("lattice", pa.string())]
            fields = [pa.field("dataset_id", pa.string(), nullable=False), *fields, *of_scene]
        return pa.schema(fields)

    @property
    def advice(self) -> str:
        """Command for a person if a file is damaged, as the end of an error's text."""
        command = "collection rebuild" if self.of_collection else "datasets verify"
        return f"run `rasterembed {command} {self.owner_id}`"

    def impossible_row(self, error: Exception) -> DataError:
        """Return the error for a row of a file whose values cannot be those of a tile.

        Args:
            error: the error that a value caused.
        """
        reason = validation_reason(error) if isinstance(error, ValidationError) else one_line(error)
        rows = "table" if self.of_collection else "shards"
        return DataError(f"{self.name}: a row of its {rows} has an impossible value ({reason}): {self.advice}")


_COLUMNS = ("tile_id", "row", "col", "col_off", "row_off", "width", "height", "valid_fraction", "geometry")
"""Columns of an answer that the rows of a dataset and of a collection have."""
