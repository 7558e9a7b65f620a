"""Parameters of the vector index. This module imports no DuckDB, which takes long to import."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

MIN_ROWS = 200_000
"""Number of rows from which an index is built by default. docs/search.md has the measurements behind it."""


class VectorIndexOptions(BaseModel):
    """Whether a vector index is built, and with which parameters."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    index: Literal["auto", "always", "never"] = Field(
        default="auto", description="Build a vector index; auto: for datasets of index_min_rows or more."
    )
    index_min_rows: int = Field(
        default=MIN_ROWS, ge=1, description="Rows from which auto builds an index; below it, search scans every vector."
    )
    index_m: int = Field(default=16, ge=2, le=128, description="Links of a vector in the index (HNSW's M).")
    index_ef_construction: int = Field(
        default=128, ge=8, le=4096, description="Candidates considered while the index is built; more take longer."
    )
    index_ef_search: int = Field(
        default=128, ge=8, le=4096, description="Candidates considered in a search; more find more and take longer."
    )
