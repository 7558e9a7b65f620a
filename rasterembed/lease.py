"""One run a dataset: a lease made by a conditional create, which a dead run loses by not renewing it.

Lease files are numbered, and the highest number holds. Taking over means creating the next number, which exactly one of
several takers can do; a holder only ever rewrites its own file. So no step depends on a server's compare-and-swap.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from pydantic import BaseModel, ConfigDict, ValidationError

from rasterembed.errors import LeaseHeldError, LeaseLostError, StoreError
from rasterembed.layout import DatasetLayout
from rasterembed.store import ObjectStore

DURATION_S = 60.0
"""How long a lease holds without being renewed; a dead run blocks its dataset for this long."""

_POLL_S = 2.0


class _Lease(BaseModel):
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
    _end: threading.Event = field(default_factory=threading.Event)
    _lost: str | None = None

    def check(self) -> None:
        """Make sure that this run still holds the dataset.

        Raises:
            LeaseLostError: if another run took it.
        """
        if self._lost is None and _highest(self.store, self.folder) != self.number:
            self._lost = "another run took the dataset over"
        if self._lost is not None:
            raise LeaseLostError(f"{self.store.uri(self.folder)}: {self._lost}; this run stops")

    def _key(self) -> str:
        return _key(self.folder, self.number)

    def _write(self, expires: float) -> None:
        lease = _Lease(run_id=self.run_id, expires=expires)
        self.store.write(self._key(), lease.model_dump_json().encode())

    def _renew(self) -> None:
        while not self._end.wait(DURATION_S / 4):
            try:
                if _highest(self.store, self.folder) != self.number:
                    self._lost = "another run took the dataset over"
                    return
                self._write(time.time() + DURATION_S)
            except StoreError:
                continue  # the store is away: shards fail on their own, and `check` tells before a commit


@contextmanager
def hold(
    store: ObjectStore,
    layout: DatasetLayout,
    run_id: str,
    *,
    wait_s: float,
    waiting: Callable[[str], None],
) -> Iterator[Lease]:
    """Hold a dataset while the block runs.

    Args:
        store: where the dataset is.
        layout: the dataset.
        run_id: who holds it; shown to others.
        wait_s: seconds to wait for another run to end.
        waiting: told once, in a sentence, that there is a wait.

    Raises:
        LeaseHeldError: if another run still holds it after the wait.
    """
    lease = _take(store, layout, run_id, wait_s, waiting)
    thread = threading.Thread(target=lease._renew, name="lease", daemon=True)
    thread.start()
    try:
        yield lease
    finally:
        lease._end.set()
        thread.join()
        if lease._lost is None:
            lease._write(0.0)


def _take(
    store: ObjectStore,
    layout: DatasetLayout,
    run_id: str,
    wait_s: float,
    waiting: Callable[[str], None],
) -> Lease:
    folder = layout.leases
    deadline = time.monotonic() + wait_s
    told = False
    while True:
        number = _highest(store, folder)
        holder = _read(store, folder, number)
        if holder is None or holder.expires < time.time():
            mine = _Lease(run_id=run_id, expires=time.time() + DURATION_S)
            if store.create(_key(folder, number + 1), mine.model_dump_json().encode()):
                for old in _numbers(store, folder):
                    if old < number + 1:
                        store.delete(_key(folder, old))
                return Lease(store, folder, number + 1, run_id)
            continue
        sentence = f"dataset {layout.dataset_id!r} is being written by run {holder.run_id}"
        if time.monotonic() >= deadline:
            raise LeaseHeldError(f"{sentence}: wait for it to end (a run that died frees it after {DURATION_S:.0f} s)")
        if not told:
            waiting(f"{sentence}; waiting up to {wait_s:.0f} s")
            told = True
        time.sleep(_POLL_S)


def _key(folder: str, number: int) -> str:
    return f"{folder}/{number:08d}.json"


def _numbers(store: ObjectStore, folder: str) -> list[int]:
    names = (name.removesuffix(".json") for name in store.sizes(folder))
    return [int(name) for name in names if name.isdecimal()]


def _highest(store: ObjectStore, folder: str) -> int:
    return max(_numbers(store, folder), default=0)


def _read(store: ObjectStore, folder: str, number: int) -> _Lease | None:
    data = store.read(_key(folder, number))
    try:
        return _Lease.model_validate_json(data) if data else None
    except ValidationError:
        return None
