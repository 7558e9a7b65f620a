"""The cache in memory: what it keeps, its bytes, and several threads that ask for the same value."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from concurrent.futures import ThreadPoolExecutor

import pytest

from rasterembed.memory_cache import MemoryCache


def test_the_values_that_were_not_used_for_the_longest_time_are_dropped() -> None:
    cache, built = MemoryCache[bytes](3 * 1024 + 3 * 400, len), []

    def get(key: str) -> bytes:
        def build() -> bytes:
            built.append(key)
            return bytes(400)

        return cache.get_or_build(key, build)

    for key in ("a", "b", "a", "c", "a", "d", "b", "a"):
        assert get(key) == bytes(400)
    assert built == ["a", "b", "c", "d", "b"]
    assert [key for key in "abcd" if cache.get(key) is not None] == ["a", "b", "d"]
    assert cache.nbytes == 3 * 1024 + 3 * 400


def test_the_latest_value_is_kept_even_if_it_alone_is_too_large() -> None:
    cache = MemoryCache[bytes](10_000, len)
    cache.get_or_build("small", lambda: b"s")
    cache.get_or_build("large", lambda: bytes(20_000))
    assert cache.get("small") is None
    assert cache.get("large") == bytes(20_000)
    cache.get_or_build("small", lambda: b"s")
    assert cache.get("large") is None
    assert cache.nbytes <= 10_000


def test_the_number_of_small_values_is_bounded_too() -> None:
    cache = MemoryCache[bytes](100_000, len)
    for number in range(1000):
        cache.get_or_build(number, lambda: b"s")
    kept = [number for number in range(1000) if cache.get(number) is not None]
    assert kept == list(range(1000 - len(kept), 1000))
    assert 0 < len(kept) <= 100
    assert cache.nbytes <= 100_000


@pytest.mark.parametrize("of", [str, lambda text: (text,), lambda text: (0.5, None, ((text[:5000],), text[5000:]))])
def test_long_keys_count_too(of: Callable[[str], Hashable]) -> None:
    """A person can send a filter with a hundred thousand letters, whose value is small."""
    cache = MemoryCache[bytes](100_000, len)
    for number in range(100):
        cache.get_or_build(of(f"{number:010_d}" * 1000), lambda: b"s")
    kept = [number for number in range(100) if cache.get(of(f"{number:010_d}" * 1000)) is not None]
    assert kept == list(range(100 - len(kept), 100))
    assert 0 < 10_000 * len(kept) <= cache.nbytes <= 100_000


def test_a_value_is_built_once_for_all_threads_that_wait_for_it() -> None:
    cache, built, waiting = MemoryCache[bytes](10_000, len), [], threading.Barrier(5)

    def build() -> bytes:
        built.append(1)
        return b"value"

    def ask(_: int) -> bytes:
        waiting.wait()
        return cache.get_or_build("a", build)

    with ThreadPoolExecutor(5) as pool:
        assert set(pool.map(ask, range(5))) == {b"value"}
    assert len(built) == 1


def test_other_keys_do_not_wait_for_a_value_that_is_being_built() -> None:
    cache, go_on = MemoryCache[bytes](10_000, len), threading.Event()

    def build() -> bytes:
        assert go_on.wait(60)
        return b"slow"

    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(cache.get_or_build, "slow", build)
        assert cache.get_or_build("quick", lambda: b"quick") == b"quick"
        assert cache.get("slow") is None
        go_on.set()
        assert slow.result(60) == b"slow"


def test_all_who_wait_get_the_error_and_the_next_one_builds_again() -> None:
    cache, asked, go_on = MemoryCache[bytes](10_000, len), threading.Event(), threading.Event()

    def fail() -> bytes:
        asked.set()
        assert go_on.wait(60)
        raise ValueError("no")

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(cache.get_or_build, "a", fail)
        assert asked.wait(60)
        second = pool.submit(cache.get_or_build, "a", fail)
        go_on.set()
        for future in (first, second):
            with pytest.raises(ValueError, match="no"):
                future.result(60)
    assert cache.get_or_build("a", lambda: b"value") == b"value"


def test_a_thread_that_is_stopped_does_not_stop_those_that_wait() -> None:
    cache, asked, go_on = MemoryCache[bytes](10_000, len), threading.Event(), threading.Event()

    def stopped() -> bytes:
        asked.set()
        assert go_on.wait(60)
        raise KeyboardInterrupt

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(cache.get_or_build, "a", stopped)
        assert asked.wait(60)
        second = pool.submit(cache.get_or_build, "a", lambda: b"value")
        go_on.set()
        assert second.result(60) == b"value"
        assert isinstance(first.exception(60), KeyboardInterrupt)
