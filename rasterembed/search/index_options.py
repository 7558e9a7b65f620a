"""Parameters of the vector index. This module does not import DuckDB or FAISS, because these imports take long."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from rasterembed.options_model import OptionsModel

MIN_ROWS = 50_000
"""Smallest number of rows for which an index is built by default. The exact scan of fewer rows takes less than 0.2 s of
processor time for each answer. docs/search.md shows the measurements."""

FLAT_MAX_ROWS = 1_000_000
"""Largest number of rows for which `auto` takes the engine `flat`, which is exact. An answer takes 55 ns of processor
time for each row, so that up to this size it takes less than 0.1 s on a single core. People do not notice a shorter
wait (Nielsen, Usability Engineering, 1993, chapter 5). docs/search.md shows the measurements."""

BuiltEngine = Literal["flat", "ivf", "vss"]
"""Search engines that need a vector index."""


class VectorIndexOptions(OptionsModel):
    """Options that decide whether a vector index is built, and the parameters of the index."""

    index: Literal["auto", "always", "never"] = Field(
        default="auto",
        description="Build a vector index; auto: if there are at least `index_min_rows` rows. An existing index stays "
        "with auto, and is removed with never.",
    )
    index_min_rows: int = Field(
        default=MIN_ROWS, ge=1, description="Smallest number of rows for which auto builds an index."
    )
    index_engine: Literal["auto", "flat", "ivf", "vss"] = Field(
        default="auto",
        description="Search engine of the index: flat is exact, ivf is faster for many rows, vss is DuckDB's HNSW. "
        f"auto: flat up to {FLAT_MAX_ROWS:,} rows, ivf above.",
    )
    index_lists: int | None = Field(
        default=None,
        ge=1,
        le=1_000_000,
        description="Number of lists of an ivf index. By default, the number of rows decides.",
    )
    index_m: int = Field(default=16, ge=2, le=128, description="Number of links of a vector in a vss index (HNSW's M).")
    index_ef_construction: int = Field(
        default=128,
        ge=8,
        le=4096,
        description="Number of candidates while a vss index is built. With more candidates, the build takes longer.",
    )
    index_ef_search: int = Field(
        default=128,
        ge=8,
        le=4096,
        description="Number of candidates in a search of a vss index. More candidates find better tiles, but take "
        "longer.",
    )


class TableIndexOptions(VectorIndexOptions):
    """Options for the vector index of a collection's table. The index grows when scenes are added."""

    index: Literal["auto", "always", "never"] = Field(
        default="auto",
        description="Build a vector index of the table; auto: if it has at least `index_min_rows` rows. An existing "
        "index stays with auto, and is removed with never.",
    )
