"""Only one run writes a dataset at a time: who holds the lease, who waits, and what frees it."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from rasterembed.errors import LeaseHeldError, LeaseLostError, StoreError
from rasterembed.store import lease, s3
from rasterembed.store.layout import DatasetLayout
from rasterembed.store.lease import Lease, hold_lease
from rasterembed.store.object_store import ObjectStore
from tests.support.stores import anew

LAYOUT = DatasetLayout("scene")
FOLDER = "datasets/scene/lease"


@pytest.fixture
def folder(tmp_path: Path) -> ObjectStore:
    return ObjectStore(root=str(tmp_path / "store"))


@pytest.fixture(autouse=True)
def _poll_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "POLL_S", 0.01)


def _hold(store: ObjectStore, run_id: str, wait_s: float = 0, on_wait: Callable[[str], None] = print) -> Any:
    return hold_lease(store, LAYOUT, run_id, wait_s=wait_s, on_wait=on_wait)


def _leases(store: ObjectStore) -> dict[str, dict[str, Any]]:
    contents = {name: store.read(f"{FOLDER}/{name}") for name in store.sizes(FOLDER)}
    return {name: json.loads(content) for name, content in contents.items() if content}


def _until(condition: Callable[[], object]) -> None:
    """Wait until a condition is true."""
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_one_run_holds_a_dataset_and_frees_it(store: ObjectStore) -> None:
    with _hold(store, "first") as held:
        held.check()
        assert list(_leases(store)) == ["00000001.json"]
        assert _leases(store)["00000001.json"]["run_id"] == "first"
        with pytest.raises(LeaseHeldError) as error, _hold(store, "second"):
            pass
        assert str(error.value) == (
            "dataset 'scene' is being written by run first: wait for that run to end "
            "(the lease of a dead run expires after 60 s)"
        )
        held.check()
    assert _leases(store) == {"00000001.json": {"run_id": "first", "expires": 0.0}}
    with _hold(store, "third"):
        assert list(_leases(store)) == ["00000002.json"]  # The old file is gone.


def test_a_dataset_is_freed_when_the_run_fails(folder: ObjectStore) -> None:
    with pytest.raises(ZeroDivisionError), _hold(folder, "first"):
        raise ZeroDivisionError
    with _hold(folder, "second"):
        pass


def test_datasets_are_held_one_by_one(folder: ObjectStore) -> None:
    with _hold(folder, "first"), hold_lease(folder, DatasetLayout("other"), "second", wait_s=0, on_wait=print):
        pass


def test_a_run_waits_and_says_so_once(store: ObjectStore) -> None:
    said: list[str] = []
    first = ExitStack()
    first.enter_context(_hold(store, "first"))

    def second() -> None:
        with _hold(store, "second", wait_s=600, on_wait=said.append):
            said.append("held")

    thread = threading.Thread(target=second)
    thread.start()
    _until(lambda: said)
    first.close()
    thread.join()
    waits, ended, held = said
    assert re.fullmatch(
        r"dataset 'scene' is being written by run first, which gave a sign of life \d s ago; if it stays silent, this "
        r"run takes over in \d\d s; otherwise this run waits up to 600 s",
        waits,
    )
    assert (ended, held) == ("dataset 'scene': run first has ended, so this run goes on", "held")


def test_a_wait_that_is_too_short_for_a_dead_run_promises_no_takeover(folder: ObjectStore) -> None:
    said: list[str] = []
    begun = time.time()
    _abandon(folder, expires=begun + 30)
    with pytest.raises(LeaseHeldError), _hold(folder, "next", wait_s=0.05, on_wait=said.append):
        pass
    (line,) = said
    told = re.fullmatch(
        r"dataset 'scene' is being written by run dead, which has given no sign of life for (\d+) s; waiting up to 0 s",
        line,
    )
    assert told
    # The number is rounded. On a quick machine, it is exactly 30.
    assert 30 <= int(told[1]) <= 30.5 + time.time() - begun


def test_the_takeover_from_a_dead_run_is_told_with_its_last_sign_of_life(folder: ObjectStore) -> None:
    said: list[str] = []
    last = datetime(2026, 3, 1, 12, 30, 15, tzinfo=UTC)
    _abandon(folder, expires=last.timestamp() + 60)
    with _hold(folder, "next", on_wait=said.append):
        pass
    assert said == [
        "dataset 'scene': run dead has given no sign of life since 2026-03-01 12:30:15 UTC, so this run took over its "
        "lease"
    ]
    said.clear()
    with _hold(folder, "third", on_wait=said.append):
        assert not said  # The run before has ended, and nobody waited for it.


@pytest.mark.parametrize("expires", ["NaN", "-Infinity", "1e300", "-1e300", "1e12"])
def test_an_impossible_time_of_expiry_neither_blocks_nor_fails(
    folder: ObjectStore, expires: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "DURATION_S", 0.2)
    said: list[str] = []
    folder.write(f"{FOLDER}/00000005.json", f'{{"run_id": "{"x" * 5000}", "expires": {expires}}}'.encode())
    with _hold(folder, "next", wait_s=60, on_wait=said.append):
        pass
    assert said[-1].endswith("so this run took over its lease") or said[-1].endswith("so this run took it over")
    assert max(map(len, said)) < 400


def test_a_wait_ends(folder: ObjectStore) -> None:
    with _hold(folder, "first"), pytest.raises(LeaseHeldError), _hold(folder, "second", wait_s=0.05):
        pass


def _abandon(store: ObjectStore, **content: Any) -> None:
    """Write the lease file that a killed run leaves."""
    store.write(f"{FOLDER}/00000005.json", json.dumps({"run_id": "dead"} | content).encode())


def test_a_dead_run_loses_the_dataset_when_its_lease_expires(store: ObjectStore) -> None:
    _abandon(store, expires=time.time() + 30)
    with pytest.raises(LeaseHeldError, match="by run dead:"), _hold(store, "next"):
        pass
    _abandon(store, expires=time.time() - 1)
    with _hold(store, "next"):
        assert list(_leases(store)) == ["00000006.json"]


def test_a_dead_run_whose_clock_ran_ahead_blocks_the_dataset_no_longer_than_others(
    folder: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "DURATION_S", 0.2)
    _abandon(folder, expires=time.time() + 1e9)
    with pytest.raises(LeaseHeldError), _hold(folder, "impatient"):
        pass
    with _hold(folder, "next", wait_s=60):
        pass


def test_a_lease_that_cannot_be_read_holds_nothing(folder: ObjectStore) -> None:
    folder.write(f"{FOLDER}/00000003.json", b"{")
    folder.write(f"{FOLDER}/notes.txt", b"left by somebody")
    with _hold(folder, "next"):
        assert folder.sizes(FOLDER).keys() == {"00000004.json", "notes.txt"}


def test_a_lease_is_renewed_while_it_is_held(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "DURATION_S", 8.0)
    monkeypatch.setattr(lease, "POLL_S", 0.5)
    with _hold(store, "first"):
        begun = _leases(store)["00000001.json"]["expires"]
        _until(lambda: _leases(store)["00000001.json"]["expires"] > begun)
        with pytest.raises(LeaseHeldError), _hold(store, "second"):
            pass


def test_a_run_whose_dataset_was_taken_is_told_and_leaves_it_alone(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = threading.Event()
    with _hold(store, "first") as held:
        held.on_lost = told.set
        _abandon(store, expires=0.0)  # Another run took it over and has ended.
        with pytest.raises(LeaseLostError, match=r"lease: another run took the dataset over; this run stops$"):
            held.check()
        assert told.is_set()
        with _hold(store, "second"), pytest.raises(LeaseLostError):
            held.check()
        now = _leases(store)
    assert _leases(store) == now
    assert list(now) == ["00000006.json"]


def test_the_renewing_thread_notices_too(folder: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "DURATION_S", 0.2)
    told = threading.Event()
    with _hold(folder, "first") as held:
        held.on_lost = told.set
        folder.write(f"{FOLDER}/00000002.json", json.dumps({"run_id": "other", "expires": 1e12}).encode())
        assert told.wait(60)


def test_of_sixteen_takers_of_an_expired_lease_one_holds(store: ObjectStore) -> None:
    _abandon(store, expires=0.0)
    together, done = threading.Barrier(16), threading.Barrier(16)
    stores = [store, anew(store), anew(store)]

    def take(number: int) -> str | None:
        together.wait()
        try:
            with _hold(stores[number % 3], f"run {number}") as held:
                done.wait()
                held.check()
                return held.run_id
        except LeaseHeldError:
            done.wait()
            return None

    with ThreadPoolExecutor(16) as pool:
        holders = [run_id for run_id in pool.map(take, range(16)) if run_id]
    assert len(holders) == 1
    assert list(_leases(store).values()) == [{"run_id": holders[0], "expires": 0.0}]


def test_sixteen_runs_that_wait_hold_it_one_after_the_other(folder: ObjectStore) -> None:
    inside: list[int] = []
    most: list[int] = []

    def take(number: int) -> None:
        with _hold(folder, f"run {number}", wait_s=600, on_wait=lambda _: None) as held:
            inside.append(number)
            most.append(len(inside))
            held.check()
            inside.remove(number)

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(take, range(16)))
    assert most == [1] * 16


def test_a_creation_whose_answer_was_lost_counts(folder: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """The request is sent again, and finds the lease that the first request of this run created."""
    create = ObjectStore.create

    def create_unheard(store: ObjectStore, key: str, data: bytes) -> bool:
        create(store, key, data)
        return create(store, key, data)

    monkeypatch.setattr(ObjectStore, "create", create_unheard)
    with _hold(folder, "first") as held:
        held.check()


def test_a_number_that_was_used_and_cleared_away_meanwhile_is_not_held(folder: ObjectStore) -> None:
    """A run was suspended after it saw that number 1 is free, and before it created that file."""
    folder.write(f"{FOLDER}/00000007.json", json.dumps({"run_id": "other", "expires": 1e12}).encode())
    assert not Lease(folder, LAYOUT, 1, "late")._claim()


def test_a_store_that_goes_away_neither_frees_nor_fails_the_run(
    folder: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "DURATION_S", 0.2)
    tried = threading.Event()

    def fail(*_: Any) -> None:
        tried.set()
        raise StoreError("away")

    with _hold(folder, "first") as held, monkeypatch.context() as patch:
        patch.setattr(ObjectStore, "write", fail)
        assert tried.wait(60)
        tried.clear()
        assert tried.wait(60)  # It tries again.
        held.check()
    with monkeypatch.context() as patch, _hold(folder, "second", wait_s=60):
        patch.setattr(ObjectStore, "write", fail)  # Releasing fails too. That is no error: the lease expires.
    with _hold(folder, "third", wait_s=60):
        pass


def test_what_a_killed_run_left_of_a_lease_is_cleared(folder: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    left = folder.scratch(FOLDER) / "left.part"
    left.write_bytes(b"{")
    with _hold(folder, "first"):
        assert left.exists()  # It may belong to a run that waits.
    monkeypatch.setattr(lease, "DURATION_S", 0.0)
    with _hold(folder, "second"):
        assert not left.exists()


def test_an_endpoint_without_a_server_is_no_lease(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3, "RETRY_DELAYS_S", ())
    store = ObjectStore(root="s3://bucket", endpoint_url="http://127.0.0.1:1", access_key="a", secret_key="b")
    with pytest.raises(StoreError, match="no answer"), _hold(store, "first"):
        pass


def test_a_check_before_each_deletion_asks_again_after_a_pause(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr(lease.time, "monotonic", lambda: now)
    asked: list[str] = []
    sizes = ObjectStore.sizes
    monkeypatch.setattr(ObjectStore, "sizes", lambda self, folder: (asked.append(folder), sizes(self, folder))[1])
    held = Lease(store, LAYOUT, 1, "first")
    store.write(LAYOUT.lease(1), b"{}")
    held.check_often()
    for _ in range(3):
        held.check_often()
    assert len(asked) == (1 if store.is_s3 else 4)
    store.write(LAYOUT.lease(2), b"{}")
    now += 60  # The process was stopped.
    with pytest.raises(LeaseLostError):
        held.check_often()
    with pytest.raises(LeaseLostError):
        held.check_often()
