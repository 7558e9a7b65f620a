"""The vector index of a collection's table, after a run has written the table."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rasterembed.collection.collection import Collection
from rasterembed.collection.table import TableDescription
from rasterembed.search.index_options import TableIndexOptions
from rasterembed.store.layout import name_of

if TYPE_CHECKING:
    from rasterembed.search.index.building import BuildResult


def build_table_index(collection: Collection, table: TableDescription, options: TableIndexOptions) -> BuildResult:
    """Build the vector index of the table or let it grow, if the options ask for one."""
    from rasterembed.search.index.building import build_vector_index  # DuckDB takes long to import.
    from rasterembed.search.vector_files import VectorFiles

    return build_vector_index(VectorFiles.of_table(collection, table), options)


def update_table_index(collection: Collection, table: TableDescription) -> None:
    """Bring the vector index of the table up to date, if there is one."""
    from rasterembed.search.index.building import update_vector_index  # DuckDB takes long to import.
    from rasterembed.search.vector_files import VectorFiles

    if name_of(collection.layout.vector_index_info) in collection.store.sizes(collection.layout.vector_index_folder):
        update_vector_index(VectorFiles.of_table(collection, table))
