"""Build the file of the engine `ivf`: train the centroids, fill the lists, and measure the number of probes."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rasterembed.search.engines.codes_file import finite_blocks
from rasterembed.search.engines.engine import CANDIDATES, RECALL_AT, RECALL_GOAL, RECALL_SAMPLE, CodesInfo
from rasterembed.search.engines.ivf import IvfEngine
from rasterembed.search.engines.ivf_file import Training, make_header, most_lists, open_faiss_index
from rasterembed.search.engines.workers import cores

if TYPE_CHECKING:
    from rasterembed.search.index.stored_rows import StoredVectors

_LEAST_GAIN = 0.002
"""Smallest gain of recall for which twice as many lists are read. With a smaller gain, the missing neighbours are not
in other lists: the codes are too coarse, because all vectors point in nearly the same direction."""

_ONE_SIDED_95 = 1.645
"""Quantile of the normal distribution for a one-sided confidence of 95 %."""

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
    header = make_header(vectors.rows, training, sizes)
    empty = np.frombuffer(make_header(0, training, np.zeros_like(sizes)).tobytes(), np.uint8)
    index = open_faiss_index(empty)
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
    """Return the smallest number of probes that reaches `RECALL_GOAL` for new queries too, and its recall.

    The smallest number that reaches the goal for the sample would often miss it for other queries, because the sample
    chose it. Therefore the lower end of the confidence interval must reach the goal: see `_surely_above`. If more
    probes hardly raise the recall, the result is a number with a lower recall.

    Args:
        engine: the engine to measure.
        vectors: the vectors of the engine's segment.
        sample: row numbers of the queries.
        exact: the highest scores of each query. See `_assign`.
    """
    most = engine.info.lists
    measured: dict[int, float] = {}

    def reaches(probes: int) -> bool:
        shares = _recalls(engine, vectors, sample, exact, probes)
        measured[probes] = float(shares.mean())
        return _surely_above(shares) >= RECALL_GOAL

    low, high = 0, min(_FEWEST_PROBES, most)
    while not reaches(high) and high < most:
        if low and measured[high] - measured[low] < _LEAST_GAIN:
            return low, measured[low]
        low, high = high, min(2 * high, most)
    while low and high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if reaches(middle) else (middle, high)
    return high, measured[high]


def _surely_above(shares: NDArray[np.float64]) -> float:
    """Return the lower end of the one-sided confidence interval of 95 % of a mean.

    Args:
        shares: the measured values, at least one, shape (n,).
    """
    error = shares.std(ddof=1) / math.sqrt(len(shares)) if len(shares) > 1 else 0.0
    return float(shares.mean() - _ONE_SIDED_95 * error)


def _recalls(
    engine: IvfEngine, vectors: StoredVectors, sample: NDArray[np.int64], exact: NDArray[np.float32], probes: int
) -> NDArray[np.float64]:
    """Return the share of the exact nearest neighbours of each vector of a sample that a number of probes finds.

    A found row is correct if its score is not lower than that of the last exact neighbour. Rows with the same score are
    therefore not errors (Aumüller, Bernhardsson, Faithfull: ANN-Benchmarks, Information Systems 87, 2020). The vector
    itself is not a neighbour.
    """
    queries = vectors.unit(sample)
    found = engine.probe(queries, min(CANDIDATES, vectors.rows), None, probes)
    wanted = exact.shape[1] - 1
    correct = np.empty(len(sample))
    for number, (row, query, rows, scores) in enumerate(zip(sample, queries, found, exact, strict=True)):
        others = rows[(rows >= 0) & (rows != row)]
        nearest = np.sort(vectors.unit(others) @ query)[::-1][:wanted]
        correct[number] = np.count_nonzero(nearest >= scores.min() - _SAME_SCORE)
    return correct / wanted if wanted else np.ones(len(sample))


def _new_index(lists: int, dimensions: int) -> Any:
    """Return an empty FAISS index.

    The codes hold the difference between a vector and its centroid. In a measurement with 40,000 clustered vectors, the
    ten nearest vectors were the first ten by these codes in 99.0 % of the cases, and by codes of whole vectors in
    98.8 %.
    """
    import faiss

    centroids = faiss.IndexFlatIP(dimensions)
    kind, metric = faiss.ScalarQuantizer.QT_8bit, faiss.METRIC_INNER_PRODUCT
    return faiss.IndexIVFScalarQuantizer(centroids, dimensions, lists, kind, metric, True)
