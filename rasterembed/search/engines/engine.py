"""The protocols of all search engines, and the reasons why a vector index is not used.

Two kinds of engines exist. A `SearchEngine` (`scan`, `vss`) applies filters itself and returns rows. A `CodesEngine`
(`flat`, `ivf`) holds compressed vectors of one segment of a vector index, and only proposes row numbers. The caller
compares the proposed rows with the stored vectors.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Literal, Protocol, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

if TYPE_CHECKING:
    import pyarrow as pa

    from rasterembed.search.filters import TileFilters
    from rasterembed.search.row_selection import RowSelection

EngineName = Literal["scan", "flat", "ivf", "vss"]
"""`scan` compares the query with every vector in the Parquet files. `flat` compares it with a float16 copy of every
vector. `ivf` compares it with the 8-bit copies of the vectors in the nearest lists. `vss` uses the HNSW index of
DuckDB's extension `vss`."""

CodesName = Literal["flat", "ivf"]
"""The engines that hold compressed vectors."""

CANDIDATES = 200
"""Smallest number of candidates that a search asks an engine for. In measurements with a million clustered vectors, the
ten nearest vectors were among so many candidates of `ivf`. A build measures recall with as many."""

RECALL_GOAL = 0.99
"""Recall that new queries should reach. If a build cannot reach it, a search asks for more candidates."""

RECALL_AT = 10
"""Number of neighbours of each vector when a build measures recall."""

RECALL_SAMPLE = 200
"""Largest number of vectors when a build measures recall."""


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


@dataclass(frozen=True)
class Candidates:
    """Rows that a `CodesEngine` proposes for n queries."""

    rows: NDArray[np.int64]
    """Row numbers of the segment, shape (n, m), nearest first by the codes. -1 fills the end of a line with fewer
    rows."""
    missed: NDArray[np.float32]
    """Shape (n,). No row of the selection outside `rows` has a smaller cosine distance to the query. -inf: the engine
    does not know. +inf: `rows` has every row of the selection."""
    tied: NDArray[np.int64] | None = None
    """Shape (n,). Number of rows at the end of each line whose codes are equally far away. More rows like them may be
    outside `rows`. 0: no row outside `rows` was as near by its code as the last one. None: `missed` says enough."""


class CodesInfo(BaseModel):
    """Description of the compressed vectors of one segment. It is stored in `index.json`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    engine: CodesName
    """The engine that reads the codes."""
    lists: int = Field(default=0, ge=0, le=2**20)
    """Number of inverted lists. 0 for `flat`."""
    probes: int = Field(default=0, ge=0, le=2**20)
    """Number of lists that a query without filters reads. 0 for `flat`."""
    imbalance: float = Field(default=1.0, ge=1.0, allow_inf_nan=False)
    """Imbalance of the lists: mean cost of a probe divided by its cost if all lists had the same size. 1 is best."""
    recall: float | None = Field(default=None, ge=0.0, le=1.0)
    """Share of the exact nearest neighbours that `probes` lists find, 0 to 1. None for `flat`, which is exact."""
    recall_at: int = Field(default=RECALL_AT, ge=1)
    """Number of neighbours of each vector in the measurement of recall."""
    recall_sample: int = Field(default=0, ge=0)
    """Number of vectors in the measurement of recall."""

    @model_validator(mode="after")
    def _check_lists(self) -> Self:
        """Refuse numbers that no build writes, because FAISS ends in an error without lists or probes."""
        if not (1 <= self.probes <= self.lists if self.engine == "ivf" else self.probes == self.lists == 0):
            raise ValueError(f"the engine {self.engine} cannot have {self.lists} lists and {self.probes} probes")
        return self


class CodesEngine(Protocol):
    """Proposes rows of one segment of a vector index. Several threads may use an engine at the same time."""

    @property
    def name(self) -> EngineName:
        """Name of the engine in answers."""

    @property
    def info(self) -> CodesInfo:
        """Description of the codes."""

    @property
    def direct_rows(self) -> int:
        """Number of selected rows up to which a caller should not ask this engine.

        For so few rows, it is faster to compare the query with the stored vectors.
        """

    def candidates(
        self, queries: NDArray[np.float32], count: int, selection: RowSelection | None, widening: int = 1
    ) -> Candidates:
        """Return the rows that are nearest to each query by their codes.

        Args:
            queries: n vectors of length 1, shape (n, dimensions).
            count: number of rows for each query, at least 1.
            selection: the rows that may be returned. None: all rows.
            widening: `ivf` reads this many times as many lists as usual. `flat` always reads all codes.

        Returns:
            At most `count` rows for each query.

        Raises:
            IndexUnusableError: if the codes cannot be searched. The engine must then not be used again.
        """

    def copy_selected(self, selection: RowSelection, most_bytes: int) -> SelectedCodes | None:
        """Return a copy of the codes of some rows.

        Args:
            selection: the rows, at least one.
            most_bytes: memory limit in bytes.

        Returns:
            The copy. None if it would take more memory, or if queries of it would not be much faster.

        Raises:
            IndexUnusableError: if the codes cannot be read. The engine must then not be used again.
        """

    def close(self) -> None:
        """Release the mapped file. No thread may use the engine any more."""


class SelectedCodes(Protocol):
    """Compressed vectors of some rows of a segment, in memory. Several threads may use one object."""

    @property
    def nbytes(self) -> int:
        """Largest number of bytes that the codes and the selection take in memory."""

    def candidates(self, queries: NDArray[np.float32], count: int, widening: int = 1) -> Candidates:
        """Return the selected rows that are nearest to each query. See `CodesEngine.candidates`."""


class NoIndexReason(StrEnum):
    """Reason why a dataset or a collection was searched by the exact scan, and not with a vector index."""

    SCAN_REQUESTED = "scan_requested"
    """The caller chose the engine `scan`."""
    ABSENT = "absent"
    """There is no index."""
    STALE = "stale"
    """The index was built from other vectors than the dataset or the table has now."""
    OTHER_ENGINE = "other_engine"
    """The caller chose an engine, and the index was built for another one."""
    INFO_UNREADABLE = "info_unreadable"
    """`index.json` has no valid content."""
    FILE_DAMAGED = "file_damaged"
    """A file of the index is missing, or its size or sha256 is wrong."""
    FOREIGN_CONTENT = "foreign_content"
    """A file of the index holds something that no build writes, such as a view. The file is not used."""
    NOT_OWN = "not_own"
    """This user has not built the database of the engine `vss` on this machine, so the database is not opened."""
    NOT_USED = "not_used"
    """DuckDB opens the database, but does not use the index in it."""
    FAILED = "failed"
    """DuckDB, FAISS or the store reported an error."""
    NO_EXTENSION = "no_extension"
    """The extension `vss` cannot be loaded."""
    UNDECIDED = "undecided"
    """The engine with the index is not sure that it found the nearest tiles that pass the filters."""

    def describe(self, detail: str = "") -> str:
        """Return the reason as text for people.

        Args:
            detail: text of the error for `FAILED`, the index's engine for `OTHER_ENGINE`, DuckDB's version for
                `NO_EXTENSION`. Other reasons do not use it.

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
            case NoIndexReason.OTHER_ENGINE:
                return f"the index is for the engine {detail}"
            case NoIndexReason.INFO_UNREADABLE:
                return "the index is broken: index.json cannot be read"
            case NoIndexReason.FILE_DAMAGED:
                return "the index is broken: a file of it is missing, cut off or damaged"
            case NoIndexReason.FOREIGN_CONTENT:
                return "the index is broken: a file of it holds something that no build writes"
            case NoIndexReason.NOT_OWN:
                return "the index is a database that you did not build on this machine, so it is not opened"
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
