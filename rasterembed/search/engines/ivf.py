"""Engine `ivf`: the query is compared with the 8-bit copies of the vectors in the nearest inverted lists.

k-means divides the vectors into lists: each vector is in the list whose centroid is nearest. A query reads only the
lists of the centroids nearest to it, its probes. FAISS trains, encodes and compares. The answer is approximate, because
a near vector can be in a list that is not read. The number of probes is therefore measured at each build.

k-means gives other centroids on another processor, because rounding differs. The neighbours that are found can then
differ. The distances of an answer do not: the caller computes them from the stored vectors. On one machine, the same
vectors always give the same file.

A new segment of the same index uses the centroids of the first segment. The codes have the same size whatever their
list is, so only the balance of the lists can become worse: see `CodesInfo.imbalance`.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rasterembed.search.engines.codes_file import check_header, finite_blocks, map_file
from rasterembed.search.engines.engine import Candidates, CodesInfo, EngineName, IndexUnusableError, NoIndexReason
from rasterembed.search.engines.workers import cores, run_all

if TYPE_CHECKING:
    from rasterembed.search.index.stored_rows import StoredVectors
    from rasterembed.search.row_selection import RowSelection

RECALL_GOAL = 0.99
"""Recall that the number of probes must reach."""

RECALL_AT = 10
"""Number of neighbours of each vector in the measurement of recall."""

RECALL_SAMPLE = 200
"""Largest number of vectors in the measurement of recall."""

_CANDIDATES = 50
"""Number of candidates for each vector in the measurement of recall."""

_FEWEST_PROBES = 8
"""Smallest number of probes. Queries from other images are less like the centroids than the measured vectors are."""

_SAME_SCORE = 1e-6
"""Largest difference between two float32 scores that are treated as equal."""

_TRAINED_PER_LIST = 40
"""Number of vectors for each list in the training. FAISS asks for 39 or more."""

_SEED = 1234
"""Start of the random numbers that choose the vectors for training and measurement."""

_PRODUCT_NUMBERS = 2**24
"""Largest number of scores that are computed together when vectors are assigned to lists."""

_BLOCK_NUMBERS = 2**25
"""Largest number of float32 numbers in a block of vectors that are encoded together."""

_MOST_HEADER_BYTES = 2**30
"""Largest size of the centroids and of the sizes of the lists in a file, in bytes."""

_QUERIES_AT_ONCE = 1024
"""Largest number of queries in one call of FAISS."""

_8BIT = 0
"""Number of the code type `QT_8bit` in FAISS' files."""


def default_lists(rows: int) -> int:
    """Return the number of lists for a number of rows: the power of two that is nearest to 1.5 sqrt(rows).

    FAISS recommends 4 to 16 sqrt(rows) below a million rows (Guidelines to choose an index,
    https://github.com/facebookresearch/faiss/wiki/Guidelines-to-choose-an-index). The time of a build grows with the
    number of lists, because each vector is compared with each centroid. Fewer lists than recommended make the build
    fast. A query then reads more rows, but takes less than a millisecond at a million rows.

    Example:
        >>> default_lists(1_000_000), default_lists(10_000_000)
        (2048, 4096)
    """
    return min(rows, 1 << round(math.log2(1.5 * math.sqrt(rows))))


def most_lists(dimensions: int) -> int:
    """Return the largest number of lists. NumPy describes the header of a file, and cannot describe 2 GiB or more."""
    return _MOST_HEADER_BYTES // (4 * dimensions + 8)


@dataclass(frozen=True)
class Training:
    """The result of k-means, and the ranges of the codes."""

    centroids: NDArray[np.float32]
    """Shape (lists, dimensions)."""
    ranges: NDArray[np.float32]
    """Shape (2, dimensions): the lowest number of each dimension, and the difference to the highest number. A code
    holds the difference between a vector and its centroid."""


def write_ivf(vectors: StoredVectors, path: Path, lists: int | None, training: Training | None) -> CodesInfo:
    """Write the lists of a segment. See `rasterembed.search.engines.codes.write_codes`.

    All vectors are read twice: once to find the list of each, and once to write the codes. 4 bytes are kept in memory
    for each vector, 160 bytes for each number of dimensions and list, and blocks of about 0.5 GB.

    Args:
        vectors: the vectors of the segment.
        path: the file to write.
        lists: number of lists. None: `default_lists`. The number of vectors is the upper limit.
        training: training of the first segment. None: a new training.

    Returns:
        The description with the measured number of probes.

    Raises:
        NotFiniteError: if a vector has a number that is not finite.
        OSError: if the file cannot be written.
    """
    with _all_cores():
        if training is None:
            wanted = lists or default_lists(vectors.rows)
            training = _train(vectors, min(wanted, vectors.rows, most_lists(vectors.dimensions)))
        sample = _sample_rows(vectors.rows, RECALL_SAMPLE)
        list_numbers, exact = _assign(vectors, training.centroids, vectors.unit(sample))
        sizes = np.bincount(list_numbers, minlength=len(training.centroids))
        _write_lists(vectors, path, training, list_numbers, sizes)
    info = CodesInfo(
        engine="ivf",
        lists=len(sizes),
        probes=1,
        imbalance=float(len(sizes) * np.square(sizes / vectors.rows).sum()),
        recall_at=RECALL_AT,
        recall_sample=len(sample),
    )
    engine = IvfEngine(path, info, vectors.rows, vectors.dimensions)
    try:
        probes, recall = _choose_probes(engine, vectors, sample, exact)
    finally:
        engine.close()
    return info.model_copy(update={"probes": probes, "recall": recall})


class IvfEngine:
    """Compares queries with the 8-bit copies of the vectors in the nearest lists. Several threads may use one engine.

    Args:
        path: file of `write_ivf`.
        info: description of the codes.
        rows: number of rows of the segment.
        dimensions: length of a vector.
        validate: whether all row numbers in the file are checked.

    Raises:
        IndexUnusableError: if the file does not fit these values.
    """

    name: EngineName = "ivf"

    def __init__(self, path: Path, info: CodesInfo, rows: int, dimensions: int, *, validate: bool = True) -> None:
        self.info = info
        self._rows = rows
        if info.lists > most_lists(dimensions):
            raise IndexUnusableError(NoIndexReason.FOREIGN_CONTENT)
        head = _header_dtype(info.lists, dimensions)
        self._mapped = map_file(path, head.itemsize + rows * (dimensions + 8))
        found = self._mapped[: head.itemsize]
        self._header = _check(found, rows, info.lists, dimensions)
        if validate:
            _check_rows(self._mapped[head.itemsize :], self._header["sizes"][0], dimensions)
        self._index = _read(self._mapped)

    @property
    def direct_rows(self) -> int:
        """See `CodesEngine.direct_rows`.

        For few selected rows, nearly all lists are read. FAISS then needs about 4 ns for each row of the segment, to
        look it up in the selection. The comparison of a stored vector of 384 numbers takes about 2 µs.
        """
        return max(1000, self._rows // 500)

    @property
    def training(self) -> Training:
        """The centroids and ranges, for a new segment of the same index."""
        return Training(self._header["centroids"][0].copy(), self._header["ranges"][0].copy())

    def candidates(
        self, queries: NDArray[np.float32], count: int, selection: RowSelection | None, widening: int = 1
    ) -> Candidates:
        """Return the rows with the highest scores in the nearest lists. See `CodesEngine.candidates`.

        With a selection, the number of probes grows as the share of selected rows shrinks. A query thus compares about
        as many rows as a query without a selection.

        Raises:
            IndexUnusableError: if the file has a row number that the segment does not have.
        """
        selected = self._rows if selection is None else selection.count
        count = min(count, selected)
        if count == 0:
            return Candidates(np.empty((len(queries), 0), np.int64), np.full(len(queries), np.inf, np.float32))
        probes = min(self.info.lists, math.ceil(self.info.probes * widening * self._rows / selected))
        rows = self.probe(queries, count, selection, probes)
        all_found = np.count_nonzero(rows >= 0, axis=1) == selected
        return Candidates(rows, np.where(all_found, np.inf, -np.inf).astype(np.float32))

    def probe(
        self, queries: NDArray[np.float32], count: int, selection: RowSelection | None, probes: int
    ) -> NDArray[np.int64]:
        """Return the rows with the highest scores in a number of lists, shape (n, count), -1 where fewer were found."""
        # The threads of the pool share the queries. A single query is answered in the calling thread.
        size = min(_QUERIES_AT_ONCE, math.ceil(len(queries) / max(2, cores())))
        tasks = [
            partial(self._search, queries[start : start + size], count, selection, probes)
            for start in range(0, len(queries), size)
        ]
        rows = np.concatenate(run_all(tasks))
        if rows.min(initial=-1) < -1 or rows.max(initial=-1) >= self._rows:
            raise IndexUnusableError(NoIndexReason.FOREIGN_CONTENT)
        return rows

    def close(self) -> None:
        """Release the mapped file. A query that still runs in another thread keeps the file mapped until it ends."""
        del self._index, self._mapped, self._header

    def _search(
        self, queries: NDArray[np.float32], count: int, selection: RowSelection | None, probes: int
    ) -> NDArray[np.int64]:
        import faiss

        parameters = faiss.SearchParametersIVF(nprobe=probes)
        if selection is not None:
            bits = selection.bitmap
            parameters = faiss.SearchParametersIVF(
                nprobe=probes, sel=faiss.IDSelectorBitmap(len(bits), faiss.swig_ptr(bits))
            )
        # The index reads the mapped file, which must not be released before the search ends.
        index, mapped = self._index, self._mapped
        rows: NDArray[np.int64] = index.search(queries, count, params=parameters)[1]
        del mapped
        return rows


@contextmanager
def _all_cores() -> Iterator[None]:
    """Let FAISS use all usable cores in the calling thread, or fewer if `OMP_NUM_THREADS` says so.

    The setting counts for this thread alone.
    """
    import faiss

    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(min(before, cores()))
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)


def _sample_rows(rows: int, count: int) -> NDArray[np.int64]:
    """Return the numbers of some rows, ascending. The same arguments always give the same rows."""
    if count >= rows:
        return np.arange(rows)
    return np.sort(np.random.default_rng(_SEED).choice(rows, count, replace=False))


def _train(vectors: StoredVectors, lists: int) -> Training:
    """Find centroids by k-means, and the ranges of the codes."""
    import faiss

    dimensions = vectors.dimensions
    sample = vectors.unit(_sample_rows(vectors.rows, lists * _TRAINED_PER_LIST))
    # Vectors that are not finite are refused later, with the number of their row.
    sample = sample[np.isfinite(sample).all(axis=1)]
    if len(sample) < lists:
        sample = np.zeros((lists, dimensions), np.float32)
    index = _new_index(lists, dimensions)
    # FAISS would write a warning to standard error if a small segment has fewer vectors for each list than it asks for.
    index.cp.min_points_per_centroid = 1
    index.cp.seed = _SEED
    index.train(sample)
    centroids = faiss.rev_swig_ptr(faiss.downcast_index(index.quantizer).get_xb(), lists * dimensions)
    return Training(
        np.array(centroids, np.float32).reshape(lists, dimensions),
        faiss.vector_to_array(index.sq.trained).reshape(2, dimensions),
    )


def _assign(
    vectors: StoredVectors, centroids: NDArray[np.float32], queries: NDArray[np.float32]
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Find the list of each vector, and the highest scores of some queries.

    Returns:
        The number of the nearest centroid, shape (rows,), and the RECALL_AT + 1 highest scores of each query in any
        order, shape (queries, RECALL_AT + 1) or less if there are fewer rows.
    """
    lists, kept = len(centroids), RECALL_AT + 1
    right = np.concatenate([centroids, queries]).T
    numbers = np.empty(vectors.rows, np.int32)
    best = np.empty((len(queries), 0), np.float32)
    first = 0
    for block in finite_blocks(vectors, max(1, _PRODUCT_NUMBERS // right.shape[1])):
        scores = block @ right
        numbers[first : first + len(block)] = scores[:, :lists].argmax(axis=1)
        best = np.concatenate([best, scores[:, lists:].T], axis=1)
        if best.shape[1] > kept:
            best = np.partition(best, -kept, axis=1)[:, -kept:]
        first += len(block)
    return numbers, best


def _write_lists(
    vectors: StoredVectors, path: Path, training: Training, list_numbers: NDArray[np.int32], sizes: NDArray[np.int64]
) -> None:
    """Write the file: the header, and for each list the codes and then the row numbers."""
    import faiss

    dimensions = vectors.dimensions
    header = _header(vectors.rows, training, sizes)
    empty = np.frombuffer(_header(0, training, np.zeros_like(sizes)).tobytes(), np.uint8)
    index = _read(empty)
    starts = header.nbytes + (np.cumsum(sizes) - sizes) * (dimensions + 8)
    done = np.zeros_like(sizes)
    with path.open("xb") as file:
        file.write(header.tobytes())
        file.truncate(header.nbytes + vectors.rows * (dimensions + 8))
        file.flush()
        first = 0
        for block in finite_blocks(vectors, max(1, _BLOCK_NUMBERS // dimensions)):
            numbers = list_numbers[first : first + len(block)].astype(np.int64)
            codes = np.zeros((len(block), dimensions), np.uint8)
            index.encode_vectors(len(block), faiss.swig_ptr(block), faiss.swig_ptr(numbers), faiss.swig_ptr(codes))
            order = np.argsort(numbers, kind="stable")
            codes, rows = codes[order], (first + order).astype("<i8")
            present, begins = np.unique(numbers[order], return_index=True)
            ends = [*begins[1:], len(block)]
            for number, begin, end in zip(present.tolist(), begins.tolist(), ends, strict=True):
                at = starts[number] + done[number] * dimensions
                _write_at(file.fileno(), codes[begin:end], int(at))
                at = starts[number] + sizes[number] * dimensions + done[number] * 8
                _write_at(file.fileno(), rows[begin:end], int(at))
                done[number] += end - begin
            first += len(block)


def _write_at(file: int, data: NDArray[Any], at: int) -> None:
    """Write the bytes of an array to a place in a file."""
    left = memoryview(data.data).cast("B")
    while left:
        count = os.pwrite(file, left, at)
        left, at = left[count:], at + count


def _choose_probes(
    engine: IvfEngine, vectors: StoredVectors, sample: NDArray[np.int64], exact: NDArray[np.float32]
) -> tuple[int, float]:
    """Return the smallest number of probes whose recall reaches `RECALL_GOAL`, and its recall.

    Args:
        engine: the engine to measure.
        vectors: the vectors of the engine's segment.
        sample: row numbers of the queries.
        exact: the highest scores of each query. See `_assign`.
    """
    most = engine.info.lists
    measured: dict[int, float] = {}

    def reaches(probes: int) -> bool:
        measured[probes] = _recall(engine, vectors, sample, exact, probes)
        return measured[probes] >= RECALL_GOAL

    low, high = 0, min(_FEWEST_PROBES, most)
    while not reaches(high) and high < most:
        low, high = high, min(2 * high, most)
    while low and high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if reaches(middle) else (middle, high)
    return high, measured[high]


def _recall(
    engine: IvfEngine, vectors: StoredVectors, sample: NDArray[np.int64], exact: NDArray[np.float32], probes: int
) -> float:
    """Return the share of the exact nearest neighbours of a sample that a number of probes finds.

    A found row is correct if its score is not lower than that of the last exact neighbour. Rows with the same score are
    therefore not errors (Aumüller, Bernhardsson, Faithfull: ANN-Benchmarks, Information Systems 87, 2020). The vector
    itself is not a neighbour.
    """
    queries = vectors.unit(sample)
    found = engine.probe(queries, min(_CANDIDATES, vectors.rows), None, probes)
    wanted = exact.shape[1] - 1
    correct = 0
    for row, query, rows, scores in zip(sample, queries, found, exact, strict=True):
        others = rows[(rows >= 0) & (rows != row)]
        nearest = np.sort(vectors.unit(others) @ query)[::-1][:wanted]
        correct += int(np.count_nonzero(nearest >= scores.min() - _SAME_SCORE))
    return correct / (wanted * len(sample)) if wanted else 1.0


def _new_index(lists: int, dimensions: int) -> Any:
    """Return an empty FAISS index."""
    import faiss

    centroids = faiss.IndexFlatIP(dimensions)
    kind, metric = faiss.ScalarQuantizer.QT_8bit, faiss.METRIC_INNER_PRODUCT
    return faiss.IndexIVFScalarQuantizer(centroids, dimensions, lists, kind, metric, True)


def _read(file: NDArray[np.uint8]) -> Any:
    """Return the FAISS index in the bytes of a file. The index does not copy the bytes: keep them while it is used.

    Raises:
        IndexUnusableError: if FAISS cannot read the file.
    """
    import faiss

    try:
        reader = faiss.ZeroCopyIOReader(faiss.swig_ptr(file), len(file))
        return faiss.read_index(reader, faiss.IO_FLAG_MMAP_IFC)
    except RuntimeError as error:
        raise IndexUnusableError(NoIndexReason.FAILED, f"FAISS cannot read it: {str(error).splitlines()[0]}") from error


def _header_dtype(lists: int, dimensions: int) -> np.dtype[np.void]:
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


def _header(rows: int, training: Training, sizes: NDArray[np.integer]) -> NDArray[np.void]:
    """Return the header of a file, a structured array of shape (1,).

    Args:
        rows: number of rows.
        training: the centroids and ranges.
        sizes: number of rows of each list, shape (lists,).
    """
    lists, dimensions = training.centroids.shape
    header = np.zeros(1, _header_dtype(lists, dimensions))
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


def _check(found: NDArray[np.uint8], rows: int, lists: int, dimensions: int) -> NDArray[np.void]:
    """Check the header of a file, and return it as a structured array of shape (1,).

    Centroids and ranges must be finite. The sizes of the lists must add up to the number of rows, so that every list is
    inside the file. The row numbers in the lists are checked by `_check_rows`, which reads all of them. If it is not
    called, a wrong row number does no harm: FAISS looks it up in the bits of a selection, after a comparison with the
    number of bits, and the engine refuses it in a result.

    Raises:
        IndexUnusableError: if a value is impossible, or if a byte differs from the header of a build.
    """
    header = found.view(_header_dtype(lists, dimensions))
    training = Training(header["centroids"][0], header["ranges"][0])
    sizes = header["sizes"][0]
    finite = np.isfinite(training.centroids).all() and np.isfinite(training.ranges).all()
    if not finite or sizes.max() > rows or sizes.sum() != rows:
        raise IndexUnusableError(NoIndexReason.FOREIGN_CONTENT)
    check_header(found, _header(rows, training, sizes))
    return header


def _check_rows(lists: NDArray[np.uint8], sizes: NDArray[np.integer], dimensions: int) -> None:
    """Check that the lists of a file have every row of the segment exactly once.

    Args:
        lists: the bytes of the lists.
        sizes: number of rows of each list. They must add up to the number of rows.
        dimensions: length of a code in bytes.

    Raises:
        IndexUnusableError: if a row number is impossible, or occurs twice.
    """
    present = np.zeros(int(sizes.sum()), bool)
    at = 0
    for size in sizes.tolist():
        rows = lists[at + size * dimensions : at + size * (dimensions + 8)].view("<i8")
        if size and not 0 <= rows.min() <= rows.max() < len(present):
            raise IndexUnusableError(NoIndexReason.FOREIGN_CONTENT)
        present[rows] = True
        at += size * (dimensions + 8)
    if not present.all():
        raise IndexUnusableError(NoIndexReason.FOREIGN_CONTENT)
