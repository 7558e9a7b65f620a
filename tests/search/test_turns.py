"""As many threads as cores make answers of an index at the same time."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rasterembed.dataset.dataset import Dataset
from rasterembed.model.choice import Dinov3
from rasterembed.search.answer import Hit
from rasterembed.search.engines import workers
from rasterembed.search.engines.workers import turn, turns
from rasterembed.search.index.building import build_vector_index
from rasterembed.search.index_options import VectorIndexOptions
from rasterembed.search.indexed_search import SegmentSearch
from rasterembed.search.query import Where
from rasterembed.search.searcher import Searcher
from rasterembed.search.vector_files import VectorFiles
from rasterembed.store.object_store import ObjectStore
from tests.support.vectors import blank_raster, checkpoint, write_dataset

DIMENSIONS = 24


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> ObjectStore:
    folder = tmp_path_factory.mktemp("turns")
    store = ObjectStore(root=str(folder / "store"))
    vectors = np.random.default_rng(5).normal(size=(100, DIMENSIONS)).astype(np.float32)
    model = Dinov3(model=str(checkpoint(folder / "model", DIMENSIONS)))
    half = np.full(100, 0.5, np.float32)
    write_dataset(store, "made", blank_raster(folder / "blank.tif", 10, 10), model, vectors, valid_fraction=half)
    options = VectorIndexOptions(index="always", index_engine="flat")
    build_vector_index(VectorFiles.of_dataset(Dataset.open(store, "made")), options)
    return store


@pytest.fixture(autouse=True)
def two_cores(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(workers, "cores", lambda: 2)
    turns.cache_clear()
    yield
    turns.cache_clear()


def count_free_turns() -> int:
    return sum(not one.locked() for one in turns())


def ask_all(searcher: Searcher) -> list[tuple[Hit, ...]]:
    queries = np.random.default_rng(6).normal(size=(6, DIMENSIONS))
    with ThreadPoolExecutor(6) as threads:
        return [answer.hits for answer in threads.map(lambda query: searcher.ask_vector(query, k=5), queries)]


def test_six_threads_that_ask_an_index_take_two_turns(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    plain, lock, both_inside, go_on = SegmentSearch.nearest, threading.Lock(), threading.Barrier(3), threading.Event()
    entered, inside, most = 0, 0, 0

    def nearest(search: SegmentSearch, *arguments: Any) -> Any:
        nonlocal entered, inside, most
        with lock:
            entered, inside = entered + 1, inside + 1
            most = max(most, inside)
            is_first = entered <= 2
        if is_first:
            both_inside.wait(60)
            assert go_on.wait(60)
        try:
            return plain(search, *arguments)
        finally:
            with lock:
                inside -= 1

    with Searcher(store, ["made"], engine="flat") as searcher, ThreadPoolExecutor(1) as thread:
        expected = ask_all(searcher)
        monkeypatch.setattr(SegmentSearch, "nearest", nearest)
        found = thread.submit(ask_all, searcher)
        both_inside.wait(60)
        assert count_free_turns() == 0
        go_on.set()
        assert found.result(60) == expected
    assert (entered, most, count_free_turns()) == (6, 2, 2)


def test_a_scan_takes_no_turn_because_it_may_wait_for_a_store(store: ObjectStore) -> None:
    with Searcher(store, ["made"], engine="scan") as searcher, ThreadPoolExecutor(1) as thread, turn(), turn():
        assert len(thread.submit(ask_all, searcher).result(60)) == 6


def test_the_reason_of_an_empty_answer_reads_the_store_without_a_turn(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, free = Searcher._most_valid, []

    def most_valid(searcher: Searcher, datasets: Any) -> float:
        free.append(count_free_turns())
        return plain(searcher, datasets)

    monkeypatch.setattr(Searcher, "_most_valid", most_valid)
    with Searcher(store, ["made"], engine="flat") as searcher:
        answer = searcher.ask_vector(np.ones(DIMENSIONS), Where(min_valid_fraction=1.0))
    assert "the largest share of valid pixels is 0.5" in answer.hint
    assert free == [2]


def test_an_empty_answer_of_an_index_needs_no_shard_for_its_reason(store: ObjectStore, tmp_path: Path) -> None:
    copy = ObjectStore(root=str(shutil.copytree(store.root, tmp_path / "store")))
    with Searcher(copy, ["made"], engine="flat") as searcher:
        for shard in searcher.datasets[0].shards:
            copy.delete(shard.path)
        answer = searcher.ask_vector(np.ones(DIMENSIONS), Where(min_valid_fraction=1.0))
    assert (answer.hits, answer.hint) == ((), "")


def test_a_forked_process_has_its_own_turns() -> None:
    with turn(), turn(), ProcessPoolExecutor(1, get_context("fork")) as processes:
        assert processes.submit(count_free_turns).result(60) == 2
    assert count_free_turns() == 2


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_a_turn_ends_with_its_block_whatever_happens_in_it(error: type[BaseException]) -> None:
    def fail() -> None:
        with turn():
            assert count_free_turns() == 1
            raise error

    with pytest.raises(error):
        fail()
    assert count_free_turns() == 2
