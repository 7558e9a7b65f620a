"""Work that several threads ask for at the same time: it is done once, and its result or its error is for all."""

from __future__ import annotations

import threading
import traceback
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from rasterembed.shared_work import SharedWork
from tests.support.waiting_threads import Waiting

THREADS = 4


def ask(shared: SharedWork[int], waiting: Waiting, work: Callable[[], int]) -> list[Future[int]]:
    """Let several threads ask for the same work, and end it when all the others wait for it."""

    def when_all_wait() -> int:
        assert waiting.all.wait(60)
        return work()

    with ThreadPoolExecutor(THREADS) as pool:
        return [pool.submit(shared.do, "a", when_all_wait) for _ in range(THREADS)]


def test_threads_that_wait_share_the_result_and_nothing_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    shared, done = SharedWork[int](), [0]

    def work() -> int:
        done[0] += 1
        return done[0]

    assert [future.result() for future in ask(shared, Waiting(monkeypatch, THREADS - 1), work)] == [1] * THREADS
    assert shared.do("a", work) == 2


def test_threads_that_wait_share_the_error(monkeypatch: pytest.MonkeyPatch) -> None:
    shared, done = SharedWork[int](), []

    def fail() -> int:
        done.append(1)
        raise ValueError("no")

    futures = ask(shared, Waiting(monkeypatch, THREADS - 1), fail)
    assert [str(future.exception()) for future in futures] == ["no"] * THREADS
    assert len(done) == 1
    assert shared.do("a", lambda: 5) == 5


def test_the_traceback_of_a_shared_error_does_not_grow_with_the_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    shared = SharedWork[int]()

    def fail() -> int:
        raise ValueError("no")

    futures = ask(shared, Waiting(monkeypatch, THREADS - 1), fail)
    frames = [frame.name for frame in traceback.extract_tb(futures[0].exception().__traceback__)]  # type: ignore[union-attr]
    assert frames[-1] == "fail"
    assert frames.count("do") <= 2


def test_work_that_asks_for_itself_is_an_error_and_does_not_wait_for_ever() -> None:
    shared = SharedWork[int]()
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(shared.do, "a", lambda: shared.do("a", lambda: 1))
        with pytest.raises(RuntimeError, match="'a' asks for its own result"):
            asked.result(60)
    assert shared.do("a", lambda: 2) == 2


def test_a_thread_that_is_stopped_leaves_the_work_to_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    shared, done = SharedWork[int](), []

    def stopped_once() -> int:
        done.append(1)
        if len(done) == 1:
            raise KeyboardInterrupt
        return 7

    futures = ask(shared, Waiting(monkeypatch, THREADS - 1), stopped_once)
    stopped = [future for future in futures if isinstance(future.exception(), KeyboardInterrupt)]
    assert len(stopped) == 1
    assert [future.result() for future in futures if future not in stopped] == [7] * (THREADS - 1)


def test_other_work_does_not_wait() -> None:
    shared, go_on = SharedWork[int](), threading.Event()

    def slow() -> int:
        assert go_on.wait(60)
        return 1

    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(shared.do, "slow", slow)
        assert shared.do("quick", lambda: 2) == 2
        go_on.set()
        assert first.result(60) == 1
