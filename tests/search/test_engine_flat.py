"""The engine `flat`: candidates, the bound of the rows that it misses, and files that are not its own."""

from __future__ import annotations

import resource
import tempfile
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

from rasterembed.errors import DataError
from rasterembed.search.engines import flat
from rasterembed.search.engines.codes import CodesParameters, open_codes, write_codes
from rasterembed.search.engines.engine import CodesEngine, IndexUnusableError
from rasterembed.search.row_selection import RowSelection
from tests.search.engine_vectors import clusters, cosines, store, unit

ROWS, DIMENSIONS = 500, 24
FLAT = CodesParameters("flat", "dataset 'scene'")


def build(vectors: NDArray[np.float32], folder: Path) -> CodesEngine:
    path = folder / "codes.faiss"
    path.unlink(missing_ok=True)
    return open_codes(path, write_codes(store(vectors, folder), path, FLAT), *vectors.shape)


@pytest.fixture(scope="module")
def vectors() -> NDArray[np.float32]:
    return clusters(ROWS, DIMENSIONS)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("flat")


@pytest.fixture(scope="module")
def engine(vectors: NDArray[np.float32], folder: Path) -> CodesEngine:
    return build(vectors, folder)


@pytest.fixture
def pieces(monkeypatch: pytest.MonkeyPatch, vectors: NDArray[np.float32], tmp_path: Path) -> CodesEngine:
    """An engine that compares 40 rows at a time."""
    monkeypatch.setattr(flat, "_PIECE_BYTES", 40 * 2 * DIMENSIONS)
    return build(vectors, tmp_path)


NUMBERS = st.floats(-1, 1, width=32) | st.floats(-(2.0**-13), 2.0**-13, width=32)


@pytest.mark.vectors
@settings(max_examples=60, deadline=None)
@given(st.data())
def test_no_row_outside_the_candidates_is_nearer_than_the_bound(data: st.DataObject) -> None:
    rows, dimensions = data.draw(st.integers(1, 30)), data.draw(st.integers(1, 20))
    stored = data.draw(arrays.arrays(np.float32, (rows, dimensions), elements=NUMBERS))
    # Nearly equal rows differ by less than the error of the codes.
    stored[rows // 2 :] = stored[0] * np.float32(1 + data.draw(st.integers(0, 9)) * 2.0**-12)
    query = unit(data.draw(arrays.arrays(np.float32, (1, dimensions), elements=NUMBERS)) + np.float32(2.0**-9))
    count = data.draw(st.integers(1, rows + 2))
    with tempfile.TemporaryDirectory() as folder:
        candidates = build(stored, Path(folder)).candidates(query, count, None)
    outside = np.setdiff1d(np.arange(rows), candidates.rows[0])
    assert len(np.unique(candidates.rows[0])) == min(count, rows)
    if len(outside):
        assert (1.0 - cosines(query, stored)[0, outside]).min() >= candidates.missed[0]
    else:
        assert candidates.missed[0] == np.inf


@pytest.mark.parametrize("dimensions", [8, 384, 1024])
def test_the_error_of_a_score_is_within_its_bound_and_not_far_below(dimensions: int) -> None:
    # Every number is in the middle between two float16 numbers, and the query has the signs of the rounding errors.
    middle = np.float32(1.0 + 2.0**-11) / np.float32(np.sqrt(dimensions) * 1.01)
    numbers = np.full((1, dimensions), middle, np.float32)
    stored = unit(numbers)
    error = np.abs(stored.astype(np.float16).astype(np.float64) - stored).sum() / np.sqrt(dimensions)
    assert error <= flat.score_error(dimensions) < 2.0**-10
    assert flat.score_error(384) == pytest.approx(0.00054, abs=0.00001)


@pytest.mark.vectors
def test_candidates_are_the_nearest_rows_in_order(vectors: NDArray[np.float32], pieces: CodesEngine) -> None:
    queries = unit(vectors[:300:7])
    found = pieces.candidates(queries, 12, None).rows
    exact = cosines(queries, vectors)
    nearest = -np.sort(-exact, axis=1)[:, :12]
    assert found.shape == (len(queries), 12)
    assert np.abs(np.take_along_axis(exact, found, 1) - nearest).max() < flat.score_error(DIMENSIONS)
    assert found[:, 0].tolist() == list(range(0, 300, 7))


@pytest.mark.parametrize("numbers", [[], [3], [0, 7, 8, 39, 40, 41, 499], list(range(250, 350))])
def test_only_selected_rows_are_candidates(
    pieces: CodesEngine, vectors: NDArray[np.float32], numbers: list[int]
) -> None:
    selection = RowSelection.of_numbers(np.array(numbers, np.int64), ROWS)
    found = pieces.candidates(unit(vectors[:2]), 200, selection)
    assert [sorted(rows) for rows in found.rows.tolist()] == [numbers, numbers]
    assert found.missed.tolist() == [np.inf, np.inf]
    some = pieces.candidates(unit(vectors[:2]), 1, selection).rows
    assert set(some.ravel().tolist()) <= set(numbers)


def test_equal_rows_are_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    same = build(np.ones((50, 4), np.float32), tmp_path)
    assert same.candidates(unit(np.ones((1, 4))), 50, None).rows[0].tolist() == list(range(50))


def test_threads_get_the_same_candidates(
    engine: CodesEngine, pieces: CodesEngine, vectors: NDArray[np.float32]
) -> None:
    queries = unit(vectors)
    alone = engine.candidates(queries, 5, None).rows
    with ThreadPoolExecutor(8) as threads:
        together = list(threads.map(lambda n: pieces.candidates(queries[n : n + 1], 5, None).rows[0], range(ROWS)))
    assert np.array_equal(alone, together)


def test_a_forked_process_has_its_own_threads(pieces: CodesEngine, vectors: NDArray[np.float32]) -> None:
    query = unit(vectors[:1])
    expected = pieces.candidates(query, 5, None).rows.tolist()
    with ProcessPoolExecutor(1, get_context("fork"), initializer=_inherit, initargs=(pieces,)) as processes:
        assert processes.submit(_ask_inherited, query).result(timeout=60) == expected


_inherited: list[CodesEngine] = []


def _inherit(engine: CodesEngine) -> None:
    _inherited.append(engine)


def _ask_inherited(query: NDArray[np.float32]) -> list[list[int]]:
    return _inherited[0].candidates(query, 5, None).rows.tolist()


def test_queries_leave_no_memory_behind(engine: CodesEngine, vectors: NDArray[np.float32]) -> None:
    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()

    query = unit(vectors[:1])
    for _ in range(100):
        engine.candidates(query, 5, None)

    def growth() -> int:
        before = resident()
        for _ in range(4000):
            engine.candidates(query, 5, None)
        return resident() - before

    # A leak grows in every round. The memory of a process also grows by chance, such as when the system joins pages.
    assert any(growth() < 2**18 for _ in range(5))


def test_faiss_reads_the_file(engine: CodesEngine, folder: Path, vectors: NDArray[np.float32]) -> None:
    import faiss

    index = faiss.read_index(str(folder / "codes.faiss"))
    assert (index.ntotal, index.d) == (ROWS, DIMENSIONS)
    found = index.search(unit(vectors[:20]), 7)[1]
    assert np.array_equal(found, engine.candidates(unit(vectors[:20]), 7, None).rows)


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_not_finite_are_refused(vectors: NDArray[np.float32], tmp_path: Path, number: float) -> None:
    bad = vectors.copy()
    bad[123, 4] = number
    with pytest.raises(DataError, match=r"^dataset 'scene': the vector of row 123 has a number that is not finite"):
        write_codes(store(bad, tmp_path), tmp_path / "codes.faiss", FLAT)


def test_a_file_that_no_build_writes_is_refused(engine: CodesEngine, folder: Path, tmp_path: Path) -> None:
    good = (folder / "codes.faiss").read_bytes()
    path = tmp_path / "codes.faiss"
    header = len(good) - 2 * ROWS * DIMENSIONS
    flipped = [good[:n] + bytes([good[n] ^ 1]) + good[n + 1 :] for n in range(header)]
    for content in (b"", good[:50], good[:-1], good + b"\0", *flipped):
        path.write_bytes(content)
        with pytest.raises(IndexUnusableError, match="the index is broken"):
            open_codes(path, engine.info, ROWS, DIMENSIONS)
    path.write_bytes(good)
    for rows, dimensions in ((ROWS - 1, DIMENSIONS), (ROWS, DIMENSIONS - 1), (DIMENSIONS, ROWS), (2 * ROWS, 12)):
        with pytest.raises(IndexUnusableError, match="the index is broken"):
            open_codes(path, engine.info, rows, dimensions)
    with pytest.raises(IndexUnusableError, match="missing"):
        open_codes(tmp_path / "absent.faiss", engine.info, ROWS, DIMENSIONS)
