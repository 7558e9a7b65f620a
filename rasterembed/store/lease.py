"""A lease on a dataset or a collection. Only the run that holds the lease may write the dataset or collection.

A run takes the lease by a conditional create, and renews the lease during its work. A dead run does not renew its
lease. The lease then expires, and another run can take the dataset over.

Lease files have numbers. The file with the highest number is the valid lease. To take the dataset over, a run creates
the file with the next number. If several runs try this, exactly one of them succeeds. A run changes only its own lease
file. The server therefore needs no compare-and-swap operation.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime

from pydantic import BaseModel, ConfigDict, ValidationError

from rasterembed.errors import LeaseHeldError, LeaseLostError, StoreError
from rasterembed.escape import cut
from rasterembed.store.layout import Layout, lease_number
from rasterembed.store.object_store import ObjectStore

DURATION_S = 60.0
"""Seconds after which a lease expires if its run does not renew it. A run renews its lease four times in this period.

A dead run blocks its dataset for this many seconds. The clocks of two machines may differ by three quarters of this
period. If the clocks differ by more, a run can take the lease of a living run, and the living run then stops.
"""

DEAD_RUN_S = 1.5 * DURATION_S
"""Seconds to wait for a lease. The lease of a dead run expires during this wait."""

POLL_S = 2.0
"""Seconds between two attempts of a run that waits for a lease."""

_ALIVE_S = DURATION_S / 3
"""Longest time in seconds between two signs of life of a living run: a quarter of `DURATION_S`, and some delay."""

_FRESH_S = 2.0
"""Seconds for which the answer of S3 about a lease is used again by `Lease.check_often`. Only a run that did not renew
its lease for much longer can lose it."""

_MAX_BYTES = 2**16
"""Largest number of bytes that are read of a lease file. A longer file was not written by a run."""


_NAME_LETTERS = 100
"""Largest number of letters of the name of a run in a message. The name comes from a file."""


class _LeaseFile(BaseModel):
    model_config = ConfigDict(frozen=True)

    run_id: str
    expires: float
    """Time of expiry in seconds since 1970, by the clock of the run that wrote the file. 0 after the release."""

    @property
    def is_released(self) -> bool:
        """Whether the run has ended and freed the lease."""
        return self.expires == 0

    @property
    def who(self) -> str:
        """Name of the run for people."""
        return f"run {cut(self.run_id, _NAME_LETTERS)}"

    @property
    def last_sign(self) -> datetime | None:
        """Time at which the run renewed its lease last. None if the clock of the run is wrong."""
        seconds = self.expires - DURATION_S
        return datetime.fromtimestamp(seconds, UTC) if 0 <= seconds <= time.time() else None


@dataclass
class Lease:
    """A lease that this run holds. A thread renews the lease until the run releases it."""

    store: ObjectStore
    layout: Layout
    number: int
    """Number of this run's lease file."""
    run_id: str
    on_lost: Callable[[], object] = lambda: None
    """Function that is called when this run notices that it lost the dataset. Any thread may call it."""
    borrowed: bool = False
    """Whether another process holds and renews the lease. That process may be dead, so each check asks the store."""
    _released: threading.Event = field(default_factory=threading.Event)
    _lost: bool = False
    _checked: float = -math.inf
    """Time of the last check, by the clock `time.monotonic`."""

    def check(self) -> None:
        """Check that this run still holds the dataset.

        Raises:
            LeaseLostError: if another run took the dataset over.
        """
        # Take the time before the store is asked: the process may be stopped between the answer and the next line.
        self._checked = time.monotonic()
        if not self._lost and _highest_number(self.store, self.layout) != self.number:
            self._lost = True
            self.on_lost()
        if self._lost:
            where = self.store.uri(self.layout.lease_folder)
            raise LeaseLostError(f"{where}: another run took the {self.layout.kind} over; this run stops")

    def check_often(self) -> None:
        """Check that this run still holds the dataset. Call this method before each deletion and each commit.

        A process can be stopped at any time, and go on after another run has completed the dataset. On S3, a check is a
        request, so the answer of the last two seconds is used again. In these two seconds, the run can lose
        the lease only if its own renewals have failed for a whole minute.

        Raises:
            LeaseLostError: if another run took the dataset over.
        """
        if self._lost or self.borrowed or not self.store.is_s3 or time.monotonic() - self._checked > _FRESH_S:
            self.check()

    def _claim(self) -> bool:
        """Create this run's lease file. Return True if this run now holds the lease."""
        key, content = self.layout.lease(self.number), self._content(time.time() + DURATION_S)
        created = self.store.create(key, content)
        # The store may have sent the request twice, because the first answer was lost. The second request then fails,
        # but the file has the content of this run.
        if not created and self.store.read(key) != content:
            return False
        numbers = _numbers(self.store, self.layout)
        for number in numbers:
            if number < self.number:
                self.store.delete(self.layout.lease(number))
        if max(numbers, default=0) == self.number:
            return True
        # Since this run looked for a free number, other runs took this number and higher numbers, and deleted the file
        # with this number. This run then created the file again: delete it.
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
                # Try again at the next renewal. If the store stays away, the run fails when it writes a shard. If the
                # lease is lost meanwhile, the run fails at the `check` before its commit.
                continue

    def _release(self) -> None:
        if not self._lost:
            # Ignore a failed write, because the lease then expires by itself. An error here would hide the run's error.
            with suppress(StoreError):
                self.store.write(self.layout.lease(self.number), self._content(0.0))


@contextmanager
def hold_lease(
    store: ObjectStore,
    layout: Layout,
    run_id: str,
    *,
    wait_s: float,
    on_wait: Callable[[str], None],
) -> Iterator[Lease]:
    """Hold the lease of a dataset or a collection while the block runs.

    Args:
        store: store of the dataset or collection.
        layout: layout of the dataset or collection.
        run_id: name of this run. Other runs that wait for this run show the name to people.
        wait_s: seconds to wait for another run to end.
        on_wait: function that is called with a sentence for people if this run has to wait. The sentence says whether
            the other run gives signs of life, and how long this run waits. The function is called again when the wait
            ends, and if the lease of a dead run is taken over.

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
    # Remove the unfinished lease files of killed runs. A living run finishes a lease file in less time than this.
    store.clear_scratch(layout.lease_folder, older_than_s=DURATION_S / 2)
    thread = threading.Thread(target=lease._keep_renewing, name="lease", daemon=True)
    thread.start()
    try:
        yield lease
    finally:
        lease._released.set()
        thread.join()
        lease._release()


def running_run(store: ObjectStore, layout: Layout) -> str | None:
    """Return the name of the run that writes a dataset or a collection now. None if no run does.

    The lease of a dead run counts until it expires. See `DURATION_S`.

    Raises:
        StoreError: if the store refuses or does not answer.
    """
    number = _highest_number(store, layout)
    holder = _parse(store.read(layout.lease(number), _MAX_BYTES) or b"") if number else None
    return holder.run_id if holder is not None and holder.expires >= time.time() else None


def _take(
    store: ObjectStore,
    layout: Layout,
    run_id: str,
    wait_s: float,
    on_wait: Callable[[str], None],
) -> Lease:
    started = time.monotonic()
    told = 0  # Number of the lease that `on_wait` was last told of.
    last_content, unchanged_since = b"", started
    while True:
        number = _highest_number(store, layout)
        content = store.read(layout.lease(number), _MAX_BYTES) or b""
        now = time.monotonic()
        if content != last_content:
            last_content, unchanged_since = content, now
        holder = _parse(content)
        left_s = _seconds_left(holder, now - unchanged_since)
        if left_s < 0:
            lease = Lease(store, layout, number + 1, run_id)
            if lease._claim():
                if content and (told or holder is None or not holder.is_released):
                    on_wait(f"{layout.owner}: {_how_freed(holder)}")
                return lease
        who = holder.who if holder else "another run"
        sentence = f"{layout.owner} is being written by {who}"
        if now - started >= wait_s:
            raise LeaseHeldError(
                f"{sentence}: wait for that run to end (the lease of a dead run expires after {DURATION_S:.0f} s)"
            )
        if told != number and left_s >= 0:  # A new number is that of another run.
            on_wait(f"{sentence}, {_outlook(left_s, wait_s - (now - started))}")
            told = number
        time.sleep(min(POLL_S, wait_s))


def _seconds_left(holder: _LeaseFile | None, unchanged_s: float) -> float:
    """Return the seconds until a lease expires if its holder stays silent. The number is negative if it has expired.

    Args:
        holder: content of the lease file. None if the file does not exist or cannot be read.
        unchanged_s: seconds for which the file did not change, by the clock of this machine. If the holder's clock is
            far ahead, its time of expiry is too late. The lease therefore also expires if its file did not change for
            `DURATION_S`.
    """
    if holder is None:
        return -math.inf
    # The time of expiry may be NaN. `min` then returns its first argument.
    return min(DURATION_S - unchanged_s, holder.expires - time.time())


def _outlook(left_s: float, wait_s: float) -> str:
    """Return the end of a sentence about a run that is waited for: its last sign of life, and how the wait can end.

    Args:
        left_s: seconds until the lease expires if the other run stays silent.
        wait_s: seconds after which this run stops waiting.
    """
    silent_s = max(0.0, DURATION_S - left_s)
    sign = f"which gave a sign of life {silent_s:.0f} s ago"
    if silent_s > _ALIVE_S:
        sign = f"which has given no sign of life for {silent_s:.0f} s"
    if left_s > wait_s:
        return f"{sign}; waiting up to {wait_s:.0f} s"
    return (
        f"{sign}; if it stays silent, this run takes over in {math.ceil(left_s)} s; otherwise this run waits up to "
        f"{wait_s:.0f} s"
    )


def _how_freed(holder: _LeaseFile | None) -> str:
    """Return a sentence about how this run got the lease of another run.

    Args:
        holder: content of the other run's lease file. None if the file cannot be read.
    """
    if holder is None:
        return "the lease of another run cannot be read, so this run took it over"
    if holder.is_released:
        return f"{holder.who} has ended, so this run goes on"
    last = holder.last_sign
    since = f"for {DURATION_S:.0f} s" if last is None else f"since {last:%Y-%m-%d %H:%M:%S} UTC"
    return f"{holder.who} has given no sign of life {since}, so this run took over its lease"


def _numbers(store: ObjectStore, layout: Layout) -> list[int]:
    numbers = (lease_number(name) for name in store.sizes(layout.lease_folder))
    return [number for number in numbers if number is not None]


def _highest_number(store: ObjectStore, layout: Layout) -> int:
    return max(_numbers(store, layout), default=0)


def _parse(content: bytes) -> _LeaseFile | None:
    try:
        return _LeaseFile.model_validate_json(content)
    except ValidationError:
        return None
