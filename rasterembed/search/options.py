"""Whether a search index is built, and how: what a run is asked with, apart from DuckDB, which takes long to import."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

MIN_ROWS = 200_000
"""Rows from which an index is built by default; docs/search.md has the measurements that it follows from."""


class VectorIndexOptions(BaseModel):
    """Whether a search index is built, and how."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    index: Literal["auto", "always", "never"] = Field(
        default="auto", description="Build a search index; auto: for datasets of index_min_rows or more."
    )
    index_min_rows: int = Field(
        default=MIN_ROWS, ge=1, description="Rows from which auto builds an index; below it, search scans every vector."
    )
    index_m: int = Field(default=16, ge=2, le=128, description="Links of a vector in the index (HNSW's M).")
    index_ef_construction: int = Field(
        default=128, ge=8, le=4096, description="Candidates kept while the index is built; more take longer."
    )
    index_ef_search: int = Field(
        default=128, ge=8, le=4096, description="Candidates kept while searching; more find more and take longer."
    )
