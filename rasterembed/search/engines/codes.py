"""Write and open the file with the codes of one segment: the compressed vectors that an engine searches."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rasterembed.errors import DataError
from rasterembed.search.engines.codes_file import NotFiniteError
from rasterembed.search.engines.engine import CodesEngine, CodesInfo, CodesName
from rasterembed.search.engines.flat import FlatEngine, write_flat
from rasterembed.search.engines.ivf import IvfEngine
from rasterembed.search.engines.ivf_building import write_ivf

if TYPE_CHECKING:
    from rasterembed.search.index.stored_rows import StoredVectors


@dataclass(frozen=True)
class CodesParameters:
    """Parameters for the codes of a segment."""

    engine: CodesName
    """The engine that will read the codes."""
    owner: str
    """Kind and name of the owner of the vectors for error texts, such as `dataset 'scene'`."""
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
    try:
        if parameters.engine == "flat":
            return write_flat(vectors, path)
        training = parameters.like.training if isinstance(parameters.like, IvfEngine) else None
        return write_ivf(vectors, path, parameters.lists, training)
    except NotFiniteError as error:
        raise DataError(f"{parameters.owner}: {error}: it cannot be searched; embed the raster again") from error


def open_codes(path: Path, info: CodesInfo, rows: int, dimensions: int, *, validate: bool = True) -> CodesEngine:
    """Open the codes of a segment. The file is mapped into memory, not read.

    Args:
        path: the file that `write_codes` wrote.
        info: the description that `write_codes` returned.
        rows: number of rows of the segment.
        dimensions: length of a vector.
        validate: whether all row numbers in the file are checked too. The header is always checked.

    Raises:
        IndexUnusableError: if the file is not one that `write_codes` can have written for these values.
    """
    if info.engine == "flat":
        return FlatEngine(path, info, rows, dimensions)
    return IvfEngine(path, info, rows, dimensions, validate=validate)
