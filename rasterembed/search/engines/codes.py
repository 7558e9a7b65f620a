"""Write and open the file with the codes of one segment: the compressed vectors that an engine searches."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rasterembed.search.engines.engine import CodesEngine, CodesInfo, CodesName
from rasterembed.search.index.stored_rows import StoredVectors


@dataclass(frozen=True)
class CodesParameters:
    """Parameters for the codes of a segment."""

    engine: CodesName
    """The engine that will read the codes."""
    lists: int | None = None
    """Number of inverted lists of `ivf`. None: it follows from the number of rows."""
    like: CodesEngine | None = None
    """Codes of the first segment. The new segment then uses the same lists, and nothing is trained."""


def write_codes(vectors: StoredVectors, path: Path, parameters: CodesParameters) -> CodesInfo:
    """Write the codes of the vectors of a segment. The memory does not grow with the number of vectors.

    Args:
        vectors: the vectors of the segment, at least one.
        path: the file to write. It must not exist.
        parameters: the parameters.

    Raises:
        DataError: if a vector has a number that is not finite.
        OSError: if the file cannot be written.
    """
    raise NotImplementedError


def open_codes(path: Path, info: CodesInfo, rows: int, dimensions: int) -> CodesEngine:
    """Open the codes of a segment. The file is mapped into memory, not read.

    Args:
        path: the file that `write_codes` wrote.
        info: the description that `write_codes` returned.
        rows: number of rows of the segment.
        dimensions: length of a vector.

    Raises:
        IndexUnusableError: if the file is not one that `write_codes` can have written for these values.
    """
    raise NotImplementedError
