"""The protocol of all search engines, and the reasons why a vector index is not used."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from rasterembed.search.filters import TileFilters

EngineName = Literal["scan", "vss"]
"""`scan` compares the query with every vector. `vss` uses the HNSW index of DuckDB's extension `vss`."""


class SearchEngine(Protocol):
    """Finds the nearest vectors of one `VectorFiles`. Only one thread at a time may use an engine."""

    @property
    def name(self) -> EngineName:
        """Name of the engine in answers."""

    @property
    def settings(self) -> str:
        """Settings and measured recall, as text for people. Empty if the engine has no settings."""

    @property
    def recall(self) -> float | None:
        """Recall that was measured when the index was built, 0 to 1. None if the engine is exact."""

    def nearest(self, vector: NDArray[np.float32], k: int, filters: TileFilters) -> pa.Table | None:
        """Return the k nearest tiles that pass the filters.

        Args:
            vector: the query, shape (dimensions,). It need not be normalised.
            k: largest number of rows.
            filters: filters for the tiles.

        Returns:
            A table with the columns `VectorFiles.columns` and `distance` (cosine distance, 0 to 2). The rows are in the
            order of distance. Rows with the same distance are in the order of `VectorFiles.identity`. If fewer than k
            tiles pass the filters, the table has fewer rows. The result is None if the engine is not sure that it found
            the nearest tiles.

        Raises:
            IndexUnusableError: if the engine's index is broken. The engine must then not be used again.
            DataError: if a shard cannot be read.
        """

    def close(self) -> None:
        """Release the memory that this engine holds."""


class NoIndexReason(StrEnum):
    """Reason why a dataset or a collection was searched by the exact scan, and not with a vector index."""

    SCAN_REQUESTED = "scan_requested"
    """The caller chose the engine `scan`."""
    ABSENT = "absent"
    """There is no index."""
    STALE = "stale"
    """The index was built from other vectors than the dataset or the table has now."""
    INFO_UNREADABLE = "info_unreadable"
    """`index.json` has no valid content."""
    FILE_DAMAGED = "file_damaged"
    """The index's database is missing, or its size or sha256 is wrong."""
    FOREIGN_CONTENT = "foreign_content"
    """The index's database holds something that no build writes, such as a view. The database is not read."""
    NOT_USED = "not_used"
    """DuckDB opens the database, but does not use the index in it."""
    FAILED = "failed"
    """DuckDB or the store reported an error."""
    NO_EXTENSION = "no_extension"
    """The extension `vss` cannot be loaded."""
    UNDECIDED = "undecided"
    """The engine with the index is not sure that it found the nearest tiles that pass the filters."""

    def describe(self, detail: str = "") -> str:
        """Return the reason as text for people.

        Args:
            detail: text of the error for `FAILED`, DuckDB's version for `NO_EXTENSION`. Other reasons do not use it.

        Example:
            >>> NoIndexReason.STALE.describe()
            'the index is stale: it was built from other vectors'
        """
        match self:
            case NoIndexReason.SCAN_REQUESTED:
                return "as requested"
            case NoIndexReason.ABSENT:
                return "there is no index"
            case NoIndexReason.STALE:
                return "the index is stale: it was built from other vectors"
            case NoIndexReason.INFO_UNREADABLE:
                return "the index is broken: index.json cannot be read"
            case NoIndexReason.FILE_DAMAGED:
                return "the index is broken: its file is missing, cut off or damaged"
            case NoIndexReason.FOREIGN_CONTENT:
                return "the index is broken: its file holds more than an index, so it is not used"
            case NoIndexReason.NOT_USED:
                return "the index is broken: DuckDB does not use it"
            case NoIndexReason.FAILED:
                return f"the index is broken: {detail}"
            case NoIndexReason.NO_EXTENSION:
                return f"DuckDB {detail} has no vss extension here"
            case NoIndexReason.UNDECIDED:
                return "the index cannot tell which matching tiles are nearest"


class IndexUnusableError(Exception):
    """A vector index cannot be used. The search then uses the exact scan.

    Args:
        reason: the reason.
        detail: value of the parameter `detail` of `NoIndexReason.describe`.
    """

    def __init__(self, reason: NoIndexReason, detail: str = "") -> None:
        super().__init__(reason.describe(detail))
        self.reason = reason
        self.detail = detail
