"""Parameters of the vector index. This module does not import DuckDB, because that import takes long."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from rasterembed.options_model import OptionsModel

MIN_ROWS = 200_000
"""Smallest number of rows for which an index is built by default. docs/search.md shows the measurements."""


class VectorIndexOptions(OptionsModel):
    """Options that decide whether a vector index is built, and the parameters of the index."""

    index: Literal["auto", "always", "never"] = Field(
        default="auto", description="Build a vector index; auto: if the dataset has at least index_min_rows rows."
    )
    index_min_rows: int = Field(
        default=MIN_ROWS, ge=1, description="Smallest number of rows for which auto builds an index."
    )
    index_m: int = Field(default=16, ge=2, le=128, description="Number of links of a vector in the index (HNSW's M).")
    index_ef_construction: int = Field(
        default=128,
        ge=8,
        le=4096,
        description="Number of candidates while the index is built. With more candidates, the build takes longer.",
    )
    index_ef_search: int = Field(
        default=128,
        ge=8,
        le=4096,
        description="Number of candidates in a search. More candidates find better tiles, but take longer.",
    )


class TableIndexOptions(VectorIndexOptions):
    """Options for the vector index of a collection's table.

    An index is old as soon as a scene changes, and is then built again as a whole. It is therefore built only on
    request.
    """

    index: Literal["auto", "always", "never"] = Field(
        default="never",
        description="Build a vector index of the table; auto: if it has at least index_min_rows rows. With never, an "
        "existing index stays. It is old, and not used, after a scene has changed.",
    )
