"""Copies of the vectors that pass a filter: their candidates, when they are made, and their memory."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from rasterembed.memory_cache import ENTRY_BYTES
from rasterembed.search import selected_vectors
from rasterembed.search.engines.codes import CodesParameters, open_codes, write_codes
from rasterembed.search.engines.engine import CodesEngine
from rasterembed.search.engines.flat import score_error
from rasterembed.search.engines.ivf_lists import SelectedLists
from rasterembed.search.index.stored_rows import StoredVectors
from rasterembed.search.row_selection import RowSelection
from rasterembed.search.selected_vectors import RepeatedSelections, SelectedVectors
from tests.search.engine_vectors import clusters, cosines, store, unit

ROWS, DIMENSIONS = 500, 24


@pytest.fixture(scope="module")
def vectors() -> NDArray[np.float32]:
    return clusters(ROWS, DIMENSIONS)


@pytest.fixture(scope="module")
def stored(vectors: NDArray[np.float32], tmp_path_factory: pytest.TempPathFactory) -> StoredVectors:
    return store(vectors, tmp_path_factory.mktemp("vectors"))


@pytest.fixture(scope="module")
def codes(stored: StoredVectors, tmp_path_factory: pytest.TempPathFactory) -> CodesEngine:
    path = tmp_path_factory.mktemp("codes") / "codes.faiss"
    info = write_codes(stored, path, CodesParameters("ivf", "dataset 'scene'", 8))
    return open_codes(path, info, ROWS, DIMENSIONS)


def every(step: int) -> RowSelection:
    return RowSelection.of_numbers(np.arange(3, ROWS, step), ROWS)


def test_candidates_are_the_nearest_selected_rows(
    vectors: NDArray[np.float32], stored: StoredVectors, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(selected_vectors, "BLOCK_ROWS", 16)
    selection, query = every(7), unit(vectors[50:51])
    found = SelectedVectors(stored, selection).candidates(query, 10)
    exact = cosines(query, vectors)[0]
    allowed = selection.numbers
    assert set(found.rows[0]) == set(allowed[np.argsort(-exact[allowed], kind="stable")[:10]])
    assert found.missed[0] <= 1 - exact[np.setdiff1d(allowed, found.rows[0])].max()
    everything = SelectedVectors(stored, selection).candidates(query, ROWS)
    assert sorted(everything.rows[0]) == allowed.tolist()
    assert everything.missed[0] == np.inf


def test_copies_are_made_when_a_selection_is_used_again(stored: StoredVectors, codes: CodesEngine) -> None:
    repeated, selection = RepeatedSelections(), every(7)
    assert repeated.copies(selection, stored, codes) is None
    assert repeated.nbytes == 0
    made = repeated.copies(selection, stored, codes)
    assert made is not None
    assert repeated.copies(selection, stored, codes) is made
    assert repeated.nbytes == selection.count * 2 * DIMENSIONS + selection.nbytes + ENTRY_BYTES


def test_many_rows_are_copied_by_the_engine_after_more_uses(
    stored: StoredVectors, codes: CodesEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(selected_vectors, "_ALWAYS_FEW", 5)
    repeated = RepeatedSelections()
    few, many = every(60), every(20)
    used = {selection: [repeated.copies(selection, stored, codes) for _ in range(40)] for selection in (few, many)}
    assert [[copies is None for copies in made].count(True) for made in used.values()] == [1, 29]
    assert isinstance(used[few][-1], SelectedVectors)
    assert isinstance(used[many][-1], SelectedLists)
    assert used[many][29] is used[many][-1]
    assert repeated.nbytes == sum(made[-1].nbytes + ENTRY_BYTES for made in used.values() if made[-1] is not None)


def test_rows_that_the_engine_does_not_copy_have_no_copies(
    stored: StoredVectors, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(selected_vectors, "_ALWAYS_FEW", 5)
    info = write_codes(stored, tmp_path / "codes.faiss", CodesParameters("flat", "dataset 'scene'"))
    flat = open_codes(tmp_path / "codes.faiss", info, ROWS, DIMENSIONS)
    repeated, selection = RepeatedSelections(), every(20)
    assert [repeated.copies(selection, stored, flat) for _ in range(70)] == [None] * 70


def test_the_memory_of_all_copies_is_limited(stored: StoredVectors, codes: CodesEngine) -> None:
    kept = [every(7) for _ in range(3)]
    limit = 2 * (kept[0].count * 2 * DIMENSIONS + kept[0].nbytes + ENTRY_BYTES)
    repeated = RepeatedSelections(limit)
    for selection in kept:
        repeated.copies(selection, stored, codes)
    made = [repeated.copies(selection, stored, codes) for selection in kept]
    assert None not in made
    assert repeated.nbytes == limit
    assert repeated.copies(kept[1], stored, codes) is made[1]
    assert repeated.copies(kept[0], stored, codes) is None, (
        "the copies that were not used for the longest time are gone"
    )
    assert repeated.copies(kept[0], stored, codes) is not None, "and are made when the selection is used again"
    assert repeated.copies(kept[1], stored, codes) is made[1]
    assert repeated.nbytes == limit
    large = every(2)
    for _ in range(2):
        assert repeated.copies(large, stored, codes) is None, "these copies alone would take more than the limit"


def test_threads_share_the_copies(vectors: NDArray[np.float32], stored: StoredVectors, codes: CodesEngine) -> None:
    selections, queries = [every(step) for step in (5, 6, 7, 8)], unit(vectors[:8])
    limit = ROWS * DIMENSIONS
    repeated = RepeatedSelections(limit)
    exact = cosines(queries, vectors)

    def nearest(number: int) -> bool:
        selection, query = selections[number % 4], number % 8
        copies = repeated.copies(selection, stored, codes)
        if copies is None:
            return True
        first = copies.candidates(queries[query : query + 1], 4).rows[0, 0]
        allowed = selection.numbers
        return bool(exact[query, first] > exact[query, allowed].max() - score_error(DIMENSIONS))

    with ThreadPoolExecutor(4) as threads:
        assert all(threads.map(nearest, range(400)))
    assert repeated.nbytes <= limit
