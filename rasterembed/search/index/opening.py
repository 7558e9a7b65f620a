"""Open the segments of a vector index. Every file is checked before its content is used."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rasterembed.search.engines.engine import CodesEngine
from rasterembed.search.index.description import Segment, VectorIndex
from rasterembed.search.index.stored_rows import StoredRows
from rasterembed.search.vector_files import VectorFiles

if TYPE_CHECKING:
    from rasterembed.search.row_selection import RowSelection


@dataclass(frozen=True)
class OpenSegment:
    """A segment whose files are mapped. Several threads may use it."""

    description: Segment
    """The segment in `index.json`."""
    rows: StoredRows
    """The rows and their vectors."""
    codes: CodesEngine
    """The engine with the codes of the vectors."""
    live: RowSelection | None
    """The rows that can be in an answer. None: all rows, because no scene was dropped."""


@dataclass(frozen=True)
class OpenIndex:
    """A vector index whose files are mapped. Several threads may use it."""

    description: VectorIndex
    """The content of `index.json`."""
    segments: tuple[OpenSegment, ...]
    """The segments, in the order in which they were built."""

    def close(self) -> None:
        """Release the codes. No thread may use the index any more."""
        for segment in self.segments:
            segment.codes.close()


def open_segments(files: VectorFiles) -> OpenIndex:
    """Open the vector index of some files. The index must have the vectors that the files have now.

    Args:
        files: the files whose vectors are in the index.

    Raises:
        IndexUnusableError: if there is no index, if it holds other vectors, if it is the database of the engine `vss`,
            or if a file is missing, damaged or foreign.
        StoreError: if the store refuses or does not answer, or if the cache folder cannot be written.
    """
    raise NotImplementedError
