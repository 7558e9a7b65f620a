"""One run a dataset: a lease made by a conditional create, which a dead run loses by not renewing it.

Lease files are numbered, and the highest number holds. Taking over means creating the next number, which exactly one of
several takers can do; a holder only ever rewrites its own file. So no step depends on a server's compare-and-swap.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from pydantic import BaseModel, ConfigDict, ValidationError

from rasterembed.errors import LeaseHeldError, LeaseLostError, StoreError
from rasterembed.store.layout import DatasetLayout
from rasterembed.store.object_store import ObjectStore

DURATION_S = 60.0
"""How long a lease holds without being renewed, which is done four times as often; a dead run blocks its dataset for
this long. Clocks may differ by three quarters of it before a lease is taken from a living run, which then stops."""

POLL_S = 2.0
"""Pause before a waiting run looks again."""


class _Content(BaseModel):
    model_config = ConfigDict(frozen=True)

    run_id: str
    expires: float
    """Seconds since 1970, by the holder's clock; 0 once released."""


@dataclass
class Lease:
    """A lease that is held, and renewed by a thread until it is released."""

    store: ObjectStore
    folder: str
    number: int
    run_id: str
    on_lost: Callable[[], object] = lambda: None
    """Called, from another thread, as soon as it is known that another run took the dataset."""
    _end: threading.Event = field(default_factory=threading.Event)
    _lost: bool = False

    def check(self) -> None:
        """Make sure that this run still holds the dataset.

        Raises:
            LeaseLostError: if another run took it.
        """
        if not self._lost and max(_numbers(self.store, self.folder), default=0) != self.number:
            self._lost = True
            self.on_lost()
        if self._lost:
            raise LeaseLostError(f"{self.store.uri(self.folder)}: another run took the dataset over; this run stops")

    def _claim(self) -> bool:
        key, content = _key(self.folder, self.number), self._content(time.time() + DURATION_S)
        # the second part: it was created, but the answer was lost and the request sent again
        if not (self.store.create(key, content) or self.store.read(key) == content):
            return False
        numbers = _numbers(self.store, self.folder)
        for number in numbers:
            if number < self.number:
                self.store.delete(_key(self.folder, number))
        if max(numbers, default=0) == self.number:
            return True
        # this number was used and cleared away since it was found free
        self.store.delete(key)
        return False

    def _content(self, expires: float) -> bytes:
        return _Content(run_id=self.run_id, expires=expires).model_dump_json().encode()

    def _renew(self) -> None:
        while not self._end.wait(DURATION_S / 4):
            try:
                self.check()
                self.store.write(_key(self.folder, self.number), self._content(time.time() + DURATION_S))
            except LeaseLostError:
                return
            except StoreError:
                continue  # the store is away: shards fail on their own, and `check` tells before a commit

    def _release(self) -> None:
        if not self._lost:
            with suppress(StoreError):  # it expires by itself, and the run's own error says more
                self.store.write(_key(self.folder, self.number), self._content(0.0))


@contextmanager
def hold_lease(
    store: ObjectStore,
    layout: DatasetLayout,
    run_id: str,
    *,
    wait_s: float,
    on_wait: Callable[[str], None],
) -> Iterator[Lease]:
    """Hold a dataset while the block runs.

    Args:
        store: where the dataset is.
        layout: the dataset.
        run_id: who holds it; shown to others.
        wait_s: seconds to wait for another run to end.
        on_wait: called once with a sentence, if the run has to wait.

    Raises:
        LeaseHeldError: if another run still holds it after the wait.
    """
    lease = _take(store, layout, run_id, wait_s, on_wait)
    store.clear_scratch(lease.folder, older_than_s=DURATION_S / 2)  # those of living runs are younger
    thread = threading.Thread(target=lease._renew, name="lease", daemon=True)
    thread.start()
    try:
        yield lease
    finally:
        lease._end.set()
        thread.join()
        lease._release()


def _take(
    store: ObjectStore,
    layout: DatasetLayout,
    run_id: str,
    wait_s: float,
    on_wait: Callable[[str], None],
) -> Lease:
    folder = layout.leases
    begun, told = time.monotonic(), False
    seen, seen_since = b"", begun
    while True:
        number = max(_numbers(store, folder), default=0)
        content = store.read(_key(folder, number)) or b""
        now = time.monotonic()
        if content != seen:
            seen, seen_since = content, now
        holder = _parse(content)
        # the second part: a clock that runs far ahead must not block the dataset
        if holder is None or holder.expires < time.time() or now - seen_since > DURATION_S:
            lease = Lease(store, folder, number + 1, run_id)
            if lease._claim():
                return lease
        who = f"run {holder.run_id}" if holder else "another run"
        sentence = f"dataset {layout.dataset_id!r} is being written by {who}"
        if now - begun >= wait_s:
            raise LeaseHeldError(f"{sentence}: wait for it to end (a run that died frees it after {DURATION_S:.0f} s)")
        if not told:
            on_wait(f"{sentence}; waiting up to {wait_s:.0f} s")
            told = True
        time.sleep(min(POLL_S, wait_s))


def _key(folder: str, number: int) -> str:
    return f"{folder}/{number:08d}.json"


def _numbers(store: ObjectStore, folder: str) -> list[int]:
    names = (name.removesuffix(".json") for name in store.sizes(folder))
    return [int(name) for name in names if name.isdecimal()]


def _parse(content: bytes) -> _Content | None:
    try:
        return _Content.model_validate_json(content)
    except ValidationError:
        return None
