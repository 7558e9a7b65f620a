"""A lease on a dataset, so that only one run at a time writes it.

A run takes the lease by a conditional create, and renews it while it works. A run that died does not renew it, so the
lease expires and another run can take the dataset over.

Lease files are numbered, and the one with the highest number counts. To take over, a run creates the file with the next
number, which succeeds for exactly one of several runs. A run rewrites only its own file. No step needs a server that
can compare and swap.
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
"""Seconds until a lease expires if it is not renewed. A run renews it four times as often.

A dead run blocks its dataset for this long. The clocks of two machines may differ by three quarters of it. With a
larger difference, a run can take the lease of a living run, which then stops.
"""

POLL_S = 2.0
"""Seconds between two attempts of a run that waits for a lease."""


class _LeaseFile(BaseModel):
    model_config = ConfigDict(frozen=True)

    run_id: str
    expires: float
    """Seconds since 1970 by the clock of the run that wrote the file; 0 after the lease was released."""


@dataclass
class Lease:
    """A lease that this run holds. A thread renews it until it is released."""

    store: ObjectStore
    layout: DatasetLayout
    number: int
    """Number of this run's lease file."""
    run_id: str
    on_lost: Callable[[], object] = lambda: None
    """Called as soon as it is known that another run took the dataset, possibly by another thread."""
    _released: threading.Event = field(default_factory=threading.Event)
    _lost: bool = False

    def check(self) -> None:
        """Make sure that this run still holds the dataset.

        Raises:
            LeaseLostError: if another run took it over.
        """
        if not self._lost and _highest_number(self.store, self.layout) != self.number:
            self._lost = True
            self.on_lost()
        if self._lost:
            where = self.store.uri(self.layout.lease_folder)
            raise LeaseLostError(f"{where}: another run took the dataset over; this run stops")

    def _claim(self) -> bool:
        """Create this run's lease file; return whether the lease is held now."""
        key, content = self.layout.lease(self.number), self._content(time.time() + DURATION_S)
        created = self.store.create(key, content)
        # If the answer to the first request was lost, the request was sent again and found the file of this run.
        if not created and self.store.read(key) != content:
            return False
        numbers = _numbers(self.store, self.layout)
        for number in numbers:
            if number < self.number:
                self.store.delete(self.layout.lease(number))
        if max(numbers, default=0) == self.number:
            return True
        # Other runs took this number and higher ones, and removed this one, since this run saw that it was free.
        self.store.delete(key)
        return False

    def _content(self, expires: float) -> bytes:
        return _LeaseFile(run_id=self.run_id, expires=expires).model_dump_json().encode()

    def _keep_renewing(self) -> None:
        while not self._released.wait(DURATION_S / 4):
            try:
                self.check()
                self.store.write(self.layout.lease(self.number), self._content(time.time() + DURATION_S))
            except LeaseLostError:
                return
            except StoreError:
                # If the store does not answer, writing shards fails with its own error. Before a commit, `check`
                # finds out whether the lease was lost meanwhile.
                continue

    def _release(self) -> None:
        if not self._lost:
            # If this fails, the lease expires by itself, and the run's own error tells more.
            with suppress(StoreError):
                self.store.write(self.layout.lease(self.number), self._content(0.0))


@contextmanager
def hold_lease(
    store: ObjectStore,
    layout: DatasetLayout,
    run_id: str,
    *,
    wait_s: float,
    on_wait: Callable[[str], None],
) -> Iterator[Lease]:
    """Hold the lease of a dataset while the block runs.

    Args:
        store: store of the dataset.
        layout: layout of the dataset.
        run_id: name of this run, which other runs show to people who wait for it.
        wait_s: seconds to wait for another run to end.
        on_wait: called once, with a sentence for people, if this run has to wait.

    Raises:
        LeaseHeldError: if another run still holds the lease after the wait.

    Example:
        >>> import tempfile
        >>> from rasterembed.store.layout import DatasetLayout
        >>> from rasterembed.store.lease import hold_lease
        >>> from rasterembed.store.object_store import ObjectStore
        >>> store = ObjectStore(root=tempfile.mkdtemp())
        >>> with hold_lease(store, DatasetLayout("alps"), "my run", wait_s=0, on_wait=print) as lease:
        ...     lease.check()  # raises LeaseLostError if another run took over
    """
    lease = _take(store, layout, run_id, wait_s, on_wait)
    # Files of living runs are younger than this.
    store.clear_scratch(layout.lease_folder, older_than_s=DURATION_S / 2)
    thread = threading.Thread(target=lease._keep_renewing, name="lease", daemon=True)
    thread.start()
    try:
        yield lease
    finally:
        lease._released.set()
        thread.join()
        lease._release()


def _take(
    store: ObjectStore,
    layout: DatasetLayout,
    run_id: str,
    wait_s: float,
    on_wait: Callable[[str], None],
) -> Lease:
    started, announced = time.monotonic(), False
    last_content, unchanged_since = b"", started
    while True:
        number = _highest_number(store, layout)
        content = store.read(layout.lease(number)) or b""
        now = time.monotonic()
        if content != last_content:
            last_content, unchanged_since = content, now
        holder = _parse(content)
        # A holder whose clock is far ahead writes a late expiry. The lease counts as expired if nobody renewed it for
        # its whole duration by this machine's clock.
        if holder is None or holder.expires < time.time() or now - unchanged_since > DURATION_S:
            lease = Lease(store, layout, number + 1, run_id)
            if lease._claim():
                return lease
        who = f"run {holder.run_id}" if holder else "another run"
        sentence = f"dataset {layout.dataset_id!r} is being written by {who}"
        if now - started >= wait_s:
            raise LeaseHeldError(f"{sentence}: wait for it to end (a run that died frees it after {DURATION_S:.0f} s)")
        if not announced:
            on_wait(f"{sentence}; waiting up to {wait_s:.0f} s")
            announced = True
        time.sleep(min(POLL_S, wait_s))


def _numbers(store: ObjectStore, layout: DatasetLayout) -> list[int]:
    names = (name.removesuffix(".json") for name in store.sizes(layout.lease_folder))
    return [int(name) for name in names if name.isdecimal()]


def _highest_number(store: ObjectStore, layout: DatasetLayout) -> int:
    return max(_numbers(store, layout), default=0)


def _parse(content: bytes) -> _LeaseFile | None:
    try:
        return _LeaseFile.model_validate_json(content)
    except ValidationError:
        return None
