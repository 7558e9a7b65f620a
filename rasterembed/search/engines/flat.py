"""Engine `flat`: the query is compared with a float16 copy of every vector.

The copies take half the space of float32 vectors, and a query reads all of them. FAISS compares them. The answer is
exact, because the error of a copy has a bound: see `score_error`.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rasterembed.search.engines.codes_file import check_header, check_queries, faiss_errors, finite_blocks, map_file
from rasterembed.search.engines.engine import Candidates, CodesInfo, EngineName
from rasterembed.search.engines.workers import run_all
from rasterembed.search.rerank import rounding_bound

if TYPE_CHECKING:
    from rasterembed.search.index.stored_rows import StoredVectors
    from rasterembed.search.row_selection import RowSelection

_HEADER = np.dtype(
    [
        ("kind", "S4"),
        ("dimensions", "<i4"),
        ("rows", "<i8"),
        ("unused", "<i8", (2,)),
        ("trained", "<u1"),
        ("metric", "<i4"),
        ("code_type", "<i4"),
        ("range_rule", "<i4"),
        ("range_argument", "<f4"),
        ("code_dimensions", "<u8"),
        ("code_bytes", "<u8"),
        ("ranges", "<u8"),
        ("bytes", "<u8"),
    ]
)
"""Header of FAISS' file format for an `IndexScalarQuantizer`. The codes follow, one row after the other."""

_FLOAT16 = 4
"""Number of the code type `QT_fp16` in FAISS' files."""

_PIECE_BYTES = 8 * 2**20
"""Size of the codes that one thread compares at a time."""

_ROWS_AT_ONCE = 16_384
"""Number of vectors that are written together."""

_QUERIES_AT_ONCE = 256
"""Largest number of queries that are answered together. More queries would need more memory for their candidates."""


def score_error(dimensions: int) -> float:
    """Return the largest difference between a score of the engine and the cosine of the stored vector and the query.

    The score is the scalar product of the query and the float16 copy c of the unit vector u, summed up in float32.

    - float16 has 11 significant bits and rounds to the nearest number (IEEE 754-2019, binary16). A rounded number
      differs by at most 2**-11 of its size, and below 2**-14, where the numbers are equally spaced, by at most 2**-25.
      So |c - u| <= 2**-11 |u| + 2**-25 sqrt(dimensions). By the inequality of Cauchy and Schwarz, the scalar product
      with a query of length 1 changes by at most as much.
    - The sum in float32 adds `rounding_bound`, whatever the order of the sum is. Scaling u and the query to length 1 in
      float32 adds `rounding_bound` once more.
    - The lengths of c, u and the query are at most 1 + 2**-11 and a little more. A factor of 1 + 2**-10 covers this.

    For 384 dimensions the result is 0.00054.

    Args:
        dimensions: length of the vectors.
    """
    code_error = 2.0**-11 + 2.0**-25 * dimensions**0.5
    return float((code_error + 2.0 * rounding_bound(dimensions)) * (1.0 + 2.0**-10))


def float16_codes(vectors: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Return float16 copies of n unit vectors as bytes, shape (n, 2 * dimensions)."""
    return np.ascontiguousarray(vectors, "<f2").view(np.uint8)


def write_flat(vectors: StoredVectors, path: Path) -> CodesInfo:
    """Write the float16 copies of the vectors of a segment. See `rasterembed.search.engines.codes.write_codes`."""
    with path.open("xb") as file:
        file.write(_header(vectors.rows, vectors.dimensions).tobytes())
        for block in finite_blocks(vectors, _ROWS_AT_ONCE):
            file.write(float16_codes(block).tobytes())
    return CodesInfo(engine="flat")


class Float16Codes:
    """Compares queries with float16 copies of unit vectors. Several threads may use one object.

    Args:
        codes: the bytes of the copies, shape (rows, 2 * dimensions).
    """

    def __init__(self, codes: NDArray[np.uint8]) -> None:
        self._codes = codes
        # A piece begins at a multiple of 8 rows, because a selection has the bits of 8 rows in a byte.
        self._piece = max(8, _PIECE_BYTES // codes.shape[1] // 8 * 8)

    def candidates(self, queries: NDArray[np.float32], count: int, selection: RowSelection | None) -> Candidates:
        """Return the rows with the highest scores. See `CodesEngine.candidates`.

        Raises:
            IndexUnusableError: if FAISS reports an error.
        """
        check_queries(queries, self._codes.shape[1] // 2)
        selected = len(self._codes) if selection is None else selection.count
        count = min(count, selected)
        if count == 0:
            return Candidates(np.empty((len(queries), 0), np.int64), np.full(len(queries), np.inf, np.float32))
        found = [
            self._best(queries[start : start + _QUERIES_AT_ONCE], count, selection)
            for start in range(0, len(queries), _QUERIES_AT_ONCE)
        ]
        rows = np.concatenate([rows for rows, _ in found])
        if count == selected:
            return Candidates(rows, np.full(len(queries), np.inf, np.float32))
        # A row that is not among the candidates has at most the score of the last candidate.
        last = np.concatenate([scores[:, -1] for _, scores in found]).astype(np.float64)
        nearest = (1.0 - last - score_error(self._codes.shape[1] // 2)).astype(np.float32)
        return Candidates(rows, np.nextafter(nearest, np.float32(-np.inf)))

    def _best(
        self, queries: NDArray[np.float32], count: int, selection: RowSelection | None
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Return the rows with the `count` highest scores and their scores, both of shape (n, count)."""
        tasks = [
            partial(_scan, self._codes[start : start + self._piece], queries, count, bits, start)
            for start in range(0, len(self._codes), self._piece)
            for bits in [None if selection is None else selection.bitmap[start // 8 : (start + self._piece) // 8]]
            if bits is None or bits.any()
        ]
        parts = run_all(tasks)
        rows = np.concatenate([rows for rows, _ in parts], axis=1)
        scores = np.concatenate([scores for _, scores in parts], axis=1)
        order = np.lexsort((rows, -scores))[:, :count]
        return np.take_along_axis(rows, order, 1), np.take_along_axis(scores, order, 1)


class FlatEngine:
    """Compares queries with the float16 copies of all vectors of a segment. Several threads may use one engine.

    Args:
        path: file of `write_flat`.
        info: description of the codes.
        rows: number of rows of the segment.
        dimensions: length of a vector.

    Raises:
        IndexUnusableError: if the file does not fit these values.
    """

    name: EngineName = "flat"

    def __init__(self, path: Path, info: CodesInfo, rows: int, dimensions: int) -> None:
        self.info = info
        self._rows = rows
        mapped = map_file(path, _HEADER.itemsize + 2 * rows * dimensions)
        check_header(mapped[: _HEADER.itemsize], _header(rows, dimensions))
        self._codes = Float16Codes(mapped[_HEADER.itemsize :].reshape(rows, 2 * dimensions))

    @property
    def direct_rows(self) -> int:
        """See `CodesEngine.direct_rows`.

        FAISS needs about 8 ns for each row of the segment, selected or not, to look it up in the selection. The
        comparison of a stored vector of 384 numbers takes about 2 µs.
        """
        return max(1000, self._rows // 250)

    def candidates(
        self, queries: NDArray[np.float32], count: int, selection: RowSelection | None, widening: int = 1
    ) -> Candidates:
        """Return the rows with the highest scores. See `CodesEngine.candidates`. `widening` has no effect.

        Raises:
            IndexUnusableError: if FAISS reports an error.
        """
        return self._codes.candidates(queries, count, selection)

    def copy_selected(self, selection: RowSelection, most_bytes: int) -> None:
        """See `CodesEngine.copy_selected`. A query without filters reads all codes, so a filter makes it no slower."""
        return

    def close(self) -> None:
        """Release the mapped file. A query that still runs in another thread keeps the file mapped until it ends."""
        del self._codes


def _header(rows: int, dimensions: int) -> np.ndarray:
    """Return the header of a file, a structured array of shape (1,)."""
    header = np.zeros(1, _HEADER)
    header["kind"], header["dimensions"], header["rows"] = b"IxSQ", dimensions, rows
    header["unused"], header["trained"] = 2**20, 1
    header["code_type"], header["code_dimensions"], header["code_bytes"] = _FLOAT16, dimensions, 2 * dimensions
    header["bytes"] = 2 * rows * dimensions
    return header


def _scan(
    codes: NDArray[np.uint8], queries: NDArray[np.float32], count: int, bits: NDArray[np.uint8] | None, first: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return the rows of a piece with the highest scores, and the scores, in any order.

    Args:
        codes: codes of m rows, shape (m, bytes of a code).
        queries: shape (n, dimensions).
        count: number of rows for each query.
        bits: the selected rows of the piece, one bit for a row. None: all rows.
        first: row number of the first row of the piece.

    Returns:
        Row numbers and scores, both of shape (n, min(count, m)). Where fewer rows are selected, the row number is -1
        and the score is -inf.
    """
    import faiss

    quantizer = faiss.ScalarQuantizer(queries.shape[1], faiss.ScalarQuantizer.QT_fp16)
    selector = None if bits is None else faiss.IDSelectorBitmap(len(bits), faiss.swig_ptr(bits))
    # With the third argument, FAISS returns positions in the piece.
    scanner = quantizer.select_InvertedListScanner(faiss.METRIC_INNER_PRODUCT, None, True, selector)
    try:
        scanner.set_list(0, 0.0)
        with faiss_errors():
            return _scan_with(scanner, codes, queries, min(count, len(codes)), first)
    finally:
        # FAISS leaves it to the caller to release a scanner. The Python object does not do it.
        faiss.InvertedListScanner.__swig_destroy__(scanner)


def _scan_with(
    scanner: Any, codes: NDArray[np.uint8], queries: NDArray[np.float32], count: int, first: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Let a scanner of FAISS compare queries with codes. See `_scan`."""
    import faiss

    rows = np.full((len(queries), count), -1, np.int64)
    scores = np.full((len(queries), count), -np.inf, np.float32)
    pointer = faiss.swig_ptr(codes)
    for number, query in enumerate(np.ascontiguousarray(queries, np.float32)):
        scanner.set_query(faiss.swig_ptr(query))
        heap = faiss.swig_ptr(scores[number]), faiss.swig_ptr(rows[number])
        scanner.scan_codes(len(codes), pointer, None, *heap, count)
    rows[rows >= 0] += first
    return rows, scores
