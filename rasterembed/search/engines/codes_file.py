"""Check and map a file with codes.

The file has FAISS' own format, so FAISS can read it. It may come from a bucket, where other people can write. A wrong
size or offset in a file can end the process that reads it with a native library. Each engine therefore describes the
header as a NumPy dtype. The whole header must be the one that a build writes for the same number of rows, dimensions
and lists, and the length of the file must follow from them.

This protects against damaged and foreign files. It does not protect against wrong codes of the right size: anybody
who can write a whole index into the store can make it find the wrong tiles. The digests in `index.json` show that the
files belong together.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from rasterembed.errors import one_line
from rasterembed.search.engines.engine import IndexUnusableError, NoIndexReason

if TYPE_CHECKING:
    from rasterembed.search.index.stored_rows import StoredVectors


class NotFiniteError(ValueError):
    """A vector has a number that is not finite, so it has no distance to a query.

    Args:
        row: row number of the vector.
    """

    def __init__(self, row: int) -> None:
        super().__init__(f"the vector of row {row} has a number that is not finite")


def finite_blocks(vectors: StoredVectors, size: int) -> Iterator[NDArray[np.float32]]:
    """Yield the unit vectors of a segment in blocks of `size` rows, and refuse vectors that are not finite.

    Raises:
        NotFiniteError: if a vector has a number that is not finite.
    """
    first = 0
    # Scaling an infinite vector to length 1 gives NaN, with a warning that the error makes superfluous.
    with np.errstate(invalid="ignore"):
        for block in vectors.blocks(size):
            if not np.isfinite(block).all():
                raise NotFiniteError(first + int(np.flatnonzero(~np.isfinite(block).all(axis=1))[0]))
            first += len(block)
            yield block


@contextmanager
def faiss_errors() -> Iterator[None]:
    """Turn an error of FAISS into the error of an index that cannot be used.

    Raises:
        IndexUnusableError: if FAISS reports an error.
    """
    try:
        yield
    except RuntimeError as error:
        raise IndexUnusableError(NoIndexReason.FAILED, one_line(error)) from error


def check_queries(queries: NDArray[np.float32], dimensions: int) -> None:
    """Refuse queries of another length than the vectors. FAISS gets only a pointer, and would read beyond their end.

    Raises:
        ValueError: if `queries` has not the shape (n, dimensions).
    """
    if queries.ndim != 2 or queries.shape[1] != dimensions:
        raise ValueError(f"queries of shape {queries.shape} for vectors of {dimensions} numbers")


def map_file(path: Path, size: int) -> NDArray[np.uint8]:
    """Map a file into memory, read-only.

    Args:
        path: the file.
        size: length that the file must have, in bytes.

    Returns:
        The bytes of the file, shape (size,). The file stays mapped as long as the array exists.

    Raises:
        IndexUnusableError: if the file is missing or has another length.
    """
    try:
        with path.open("rb") as file:
            # The length is that of the opened file, so that the file cannot be replaced after the check.
            if file.seek(0, 2) != size:
                raise IndexUnusableError(NoIndexReason.FILE_DAMAGED)
            return np.frombuffer(mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ), np.uint8)
    except FileNotFoundError as error:
        raise IndexUnusableError(NoIndexReason.FILE_DAMAGED) from error
    except OSError as error:
        raise IndexUnusableError(NoIndexReason.FAILED, str(error)) from error


def check_header(found: NDArray[np.uint8], expected: np.ndarray) -> None:
    """Compare the header of a file with the header that a build writes.

    Args:
        found: first bytes of the file, as many as the header has.
        expected: the header, a structured array of shape (1,).

    Raises:
        IndexUnusableError: if a byte differs.
    """
    if found.tobytes() != expected.tobytes():
        raise IndexUnusableError(NoIndexReason.FOREIGN_CONTENT)
