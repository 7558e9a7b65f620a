"""The file of the engine `ivf`: the format that FAISS gives to an `IndexIVFScalarQuantizer`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rasterembed.search.engines.codes_file import check_header, faiss_errors
from rasterembed.search.engines.engine import IndexUnusableError, NoIndexReason

_MOST_HEADER_BYTES = 2**30
"""Largest size of the centroids and of the sizes of the lists in a file, in bytes."""

_8BIT = 0
"""Number of the code type `QT_8bit` in FAISS' files."""


@dataclass(frozen=True)
class Training:
    """The result of k-means, and the ranges of the codes."""

    centroids: NDArray[np.float32]
    """Shape (lists, dimensions)."""
    ranges: NDArray[np.float32]
    """Shape (2, dimensions): the lowest number of each dimension, and the difference to the highest number. A code
    holds the difference between a vector and its centroid."""


def most_lists(dimensions: int) -> int:
    """Return the largest number of lists. NumPy describes the header of a file, and cannot describe 2 GiB or more."""
    return _MOST_HEADER_BYTES // (4 * dimensions + 8)


def open_faiss_index(file: NDArray[np.uint8]) -> Any:
    """Return the FAISS index in the bytes of a file. The index does not copy the bytes: keep them while it is used.

    Raises:
        IndexUnusableError: if FAISS cannot read the file.
    """
    import faiss

    with faiss_errors():
        reader = faiss.ZeroCopyIOReader(faiss.swig_ptr(file), len(file))
        return faiss.read_index(reader, faiss.IO_FLAG_MMAP_IFC)


def header_dtype(lists: int, dimensions: int) -> np.dtype[np.void]:
    """Return the header of FAISS' file format for an `IndexIVFScalarQuantizer`. The lists follow, one after the other.

    Each list has the codes of its rows, and then their row numbers as 64-bit integers.
    """
    index = [("dimensions", "<i4"), ("rows", "<i8"), ("unused", "<i8", (2,)), ("trained", "<u1"), ("metric", "<i4")]
    return np.dtype(
        [
            ("kind", "S4"),
            ("index", index),
            ("lists", "<u8"),
            ("probes", "<u8"),
            ("quantizer_kind", "S4"),
            ("quantizer", index),
            ("centroid_numbers", "<u8"),
            ("centroids", "<f4", (lists, dimensions)),
            ("direct_map", "<u1"),
            ("direct_map_rows", "<u8"),
            ("code_type", "<i4"),
            ("range_rule", "<i4"),
            ("range_argument", "<f4"),
            ("code_dimensions", "<u8"),
            ("code_bytes", "<u8"),
            ("range_numbers", "<u8"),
            ("ranges", "<f4", (2, dimensions)),
            ("code_bytes_again", "<u8"),
            ("by_residual", "<u1"),
            ("lists_kind", "S4"),
            ("lists_again", "<u8"),
            ("code_bytes_of_lists", "<u8"),
            ("form", "S4"),
            ("size_numbers", "<u8"),
            ("sizes", "<u8", (lists,)),
        ]
    )


def make_header(rows: int, training: Training, sizes: NDArray[np.integer]) -> NDArray[np.void]:
    """Return the header of a file, a structured array of shape (1,).

    Args:
        rows: number of rows.
        training: the centroids and ranges.
        sizes: number of rows of each list, shape (lists,).
    """
    lists, dimensions = training.centroids.shape
    header = np.zeros(1, header_dtype(lists, dimensions))
    for name, count in (("index", rows), ("quantizer", lists)):
        part = header[name]
        part["dimensions"], part["rows"], part["unused"], part["trained"] = dimensions, count, 2**20, 1
    header["kind"], header["quantizer_kind"], header["lists_kind"], header["form"] = b"IwSq", b"IxFI", b"ilar", b"full"
    header["lists"] = header["lists_again"] = header["size_numbers"] = lists
    header["probes"], header["code_type"], header["by_residual"] = 1, _8BIT, 1
    header["centroid_numbers"], header["range_numbers"] = lists * dimensions, 2 * dimensions
    for name in ("code_dimensions", "code_bytes", "code_bytes_again", "code_bytes_of_lists"):
        header[name] = dimensions
    header["centroids"], header["ranges"], header["sizes"] = training.centroids, training.ranges, sizes
    return header


def check_ivf_header(found: NDArray[np.uint8], rows: int, lists: int, dimensions: int) -> NDArray[np.void]:
    """Check the header of a file, and return it as a structured array of shape (1,).

    Centroids and ranges must be finite. The sizes of the lists must add up to the number of rows, so that every list is
    inside the file. `check_row_numbers` reads and checks the row numbers in the lists. Without this check, a wrong row
    number does no harm: FAISS looks it up in the bits of a selection, after a comparison with the number of bits, and
    the engine refuses it in a result.

    Raises:
        IndexUnusableError: if a value is impossible, or if a byte differs from the header of a build.
    """
    header = found.view(header_dtype(lists, dimensions))
    training = Training(header["centroids"][0], header["ranges"][0])
    sizes = header["sizes"][0]
    finite = np.isfinite(training.centroids).all() and np.isfinite(training.ranges).all()
    if not finite or sizes.max() > rows or sizes.sum() != rows:
        raise IndexUnusableError(NoIndexReason.FOREIGN_CONTENT)
    check_header(found, make_header(rows, training, sizes))
    return header


def check_row_numbers(lists: NDArray[np.uint8], sizes: NDArray[np.integer], dimensions: int) -> None:
    """Check that the lists of a file have every row of the segment exactly once.

    Args:
        lists: the bytes of the lists.
        sizes: number of rows of each list. They must add up to the number of rows.
        dimensions: length of a code in bytes.

    Raises:
        IndexUnusableError: if a row number is impossible, or occurs twice.
    """
    present = np.zeros(int(sizes.sum()), bool)
    for _, rows in _codes_and_rows(lists, sizes, dimensions):
        present[rows] = True
    if not present.all():
        raise IndexUnusableError(NoIndexReason.FOREIGN_CONTENT)


def copy_rows(lists: NDArray[np.uint8], header: NDArray[np.void], mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Return the bytes of a file with only some rows. The rows keep their lists, and their row numbers.

    Args:
        lists: the bytes of the lists in a file.
        header: the header of this file.
        mask: for each row, whether it is in the new file, shape (rows,).

    Raises:
        IndexUnusableError: if a row number is impossible, or occurs twice.
    """
    training = Training(header["centroids"][0], header["ranges"][0])
    dimensions, sizes = training.centroids.shape[1], header["sizes"][0]
    kept = int(np.count_nonzero(mask))
    file = np.empty(header.itemsize + kept * (dimensions + 8), np.uint8)
    kept_sizes, at = np.zeros_like(sizes), header.itemsize
    for number, (codes, rows) in enumerate(_codes_and_rows(lists, sizes, dimensions)):
        inside = np.flatnonzero(mask[rows])
        size = len(inside)
        if at + size * (dimensions + 8) > len(file):
            raise IndexUnusableError(NoIndexReason.FOREIGN_CONTENT)
        # With "raise", NumPy would copy the codes twice.
        codes.take(inside, axis=0, out=file[at : at + size * dimensions].reshape(size, dimensions), mode="clip")
        at += size * dimensions
        file[at : at + size * 8].view("<i8")[:] = rows[inside]
        at += size * 8
        kept_sizes[number] = size
    if at != len(file):
        raise IndexUnusableError(NoIndexReason.FOREIGN_CONTENT)
    file[: header.itemsize] = make_header(kept, training, kept_sizes).view(np.uint8)
    return file


def _codes_and_rows(
    lists: NDArray[np.uint8], sizes: NDArray[np.integer], dimensions: int
) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.int64]]]:
    """Yield the codes and the row numbers of each list, of shapes (n, dimensions) and (n,).

    See `check_row_numbers` for the arguments.

    Raises:
        IndexUnusableError: if a row number is impossible.
    """
    all_rows, at = int(sizes.sum()), 0
    for size in sizes.tolist():
        codes = lists[at : at + size * dimensions].reshape(size, dimensions)
        rows = lists[at + size * dimensions : at + size * (dimensions + 8)].view("<i8")
        if size and not 0 <= rows.min() <= rows.max() < all_rows:
            raise IndexUnusableError(NoIndexReason.FOREIGN_CONTENT)
        yield codes, rows
        at += size * (dimensions + 8)
