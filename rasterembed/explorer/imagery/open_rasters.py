"""Rasters that stay open between requests. Opening a raster on S3 costs several requests to the server.

rasterio keeps credentials and options of GDAL for each thread, and they must be taken back in the order in which they
were set. Each open raster therefore has a thread that opens it, reads it and closes it. GDAL also allows only one
thread at a time to use an open raster.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextlib import contextmanager
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any, TypeVar

from rasterio.errors import RasterioError

from rasterembed.dataset.continuing import check_unchanged
from rasterembed.dataset.dataset import Dataset
from rasterembed.errors import DataError, ObjectMissingError, RasterChangedError, StoreUnavailableError, one_line
from rasterembed.explorer.imagery.raster_place import RasterPlace
from rasterembed.raster.pixels import Pixels, open_pixels
from rasterembed.raster.profile import RasterProfile
from rasterembed.store.https_url import is_https

T = TypeVar("T")

MOST_OPEN = 32
"""Largest number of rasters that a view keeps open."""

MOST_OF_ONE = 4
"""Largest number of threads that read the same raster."""

READ_S = 60.0
"""Longest time of one drawing, in seconds. A server that answers slowly must not hold a request for ever."""

_CACHE_BYTES = 64 * 2**20
"""Size in bytes of GDAL's block cache, which the whole process shares."""


@dataclass(frozen=True)
class RasterKey:
    """Which raster is open."""

    dataset_id: str
    on_grid: bool
    """True for the raster as its tiles are cut, which may be a warped one. False for the raster in its files."""


@dataclass(frozen=True)
class _Job:
    """A function that reads an open raster, and its result."""

    work: Callable[[Pixels], Any]
    result: Future[Any]


class OpenRaster:
    """A raster that is open in a thread. `OpenRasters` makes it.

    Args:
        dataset: dataset of the raster. Its raster must have been compared with the plan.
        on_grid: see `RasterKey.on_grid`.

    Raises:
        DataError: if the raster cannot be opened.
    """

    def __init__(self, dataset: Dataset, *, on_grid: bool) -> None:
        self.dataset = dataset
        self.place: RasterPlace | None = None
        """The place of the raster on the web map. Only the raster's thread may use it."""
        plan = dataset.plan
        self._uri = plan.source.uri
        # After an error of a web server, GDAL returns wrong pixels. The error is only found when the raster is closed.
        self.may_stay_open = not any(is_https(uri) for uri in plan.rasters)
        """Whether the raster can be read again by a later request."""
        self._is_late = False
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._opened: Future[None] = Future()
        self._closed: Future[None] = Future()
        profile = plan.profile if on_grid else plan.profile.original
        # Nothing waits for a daemon thread when the process ends.
        threading.Thread(target=self._serve, args=(profile,), name="raster", daemon=True).start()
        try:
            self._wait(self._opened)
        except BaseException:
            self._jobs.put(None)
            raise

    def read(self, work: Callable[[Pixels], T]) -> T:
        """Return the result of a function that reads the raster. It runs in the raster's thread.

        Raises:
            DataError: if the raster cannot be read.
            StoreUnavailableError: if it takes longer than `READ_S`.
        """
        job = _Job(work, Future())
        self._jobs.put(job)
        found: T = self._wait(job.result)
        return found

    def close(self) -> None:
        """Close the raster. A raster that did not answer in time is closed when it answers.

        Raises:
            DataError: if a web server did not send the pixels that were read.
        """
        self._jobs.put(None)
        if not self._is_late:
            self._wait(self._closed)

    def _wait(self, result: Future[Any]) -> Any:
        try:
            return result.result(READ_S)
        except FutureTimeoutError as error:
            self._is_late, self.may_stay_open = True, False
            raise StoreUnavailableError(f"{self._uri}: it was not read within {READ_S:g} s: try again later") from error
        except RasterioError as error:
            self.may_stay_open = False
            raise DataError(f"{self._uri}: its pixels cannot be read: {one_line(error.__cause__ or error)}") from error
        except DataError:  # The function that reads has its own words for the same error.
            self.may_stay_open = False
            raise

    def _serve(self, profile: RasterProfile) -> None:
        """Open the raster, do one job after the other, and close the raster. This is the raster's thread."""
        try:
            with open_pixels(self.dataset.store, self._uri, profile, cache_bytes=_CACHE_BYTES) as pixels:
                self._opened.set_result(None)
                while (job := self._jobs.get()) is not None:
                    try:
                        job.result.set_result(job.work(pixels))
                    except BaseException as error:
                        job.result.set_exception(error)
        except BaseException as error:
            (self._closed if self._opened.done() else self._opened).set_exception(error)
        else:
            self._closed.set_result(None)


class OpenRasters:
    """The open rasters of a view. Several threads may use it at the same time."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._idle: list[tuple[RasterKey, OpenRaster]] = []
        self._used: list[RasterKey] = []
        self._closed = False

    @contextmanager
    def use(self, dataset: Dataset, *, on_grid: bool) -> Iterator[OpenRaster]:
        """Return an open raster while the block runs. No other thread gets it meanwhile.

        The raster is compared with the plan before it is opened, and again at the end of the block. If it was replaced
        while it was read, its pixels may be a mixture of both, and the block ends with an error.

        Args:
            dataset: dataset of the raster.
            on_grid: see `RasterKey.on_grid`.

        Raises:
            RasterChangedError: if the raster was changed since it was embedded.
            ObjectMissingError: if the raster is missing.
            DataError: if the raster cannot be opened, or if the store may not name it.
            StoreUnavailableError: if all rasters stay in use for longer than `READ_S`.
        """
        # The raster in its files is the one that the tiles are cut from, unless it is warped.
        key = RasterKey(dataset.id, on_grid and dataset.plan.profile.warp is not None)
        raster, unneeded = self._take(key)
        _close(unneeded)
        try:
            try:
                if raster is None:
                    _check(dataset)
                    raster = OpenRaster(dataset, on_grid=key.on_grid)
            except BaseException:
                self._forget(key, raster)
                raise
            failure: DataError | None = None
            try:
                yield raster
            except DataError as error:
                failure = error
            if not raster.may_stay_open:
                done, raster = raster, None
                done.close()  # Its own error tells more than that of the block: a server that does not answer.
            if not isinstance(failure, StoreUnavailableError):
                try:
                    _check(dataset)
                except (RasterChangedError, ObjectMissingError) as error:
                    self._forget(key, raster)
                    raster = None
                    raise error from failure
            if failure is not None:
                raise failure
        finally:
            self._give_back(key, raster)

    def close(self) -> None:
        """Close all rasters that are not in use. The others are closed when they are given back."""
        with self._changed:
            self._closed = True
            idle, self._idle = [raster for _, raster in self._idle], []
        _close(idle)

    def _take(self, key: RasterKey) -> tuple[OpenRaster | None, list[OpenRaster]]:
        """Return an idle raster. If none has this name, return None, and idle rasters to close before one is opened."""
        deadline = time.monotonic() + READ_S
        with self._changed:
            while self._used.count(key) >= MOST_OF_ONE or len(self._used) >= MOST_OPEN:
                if not self._changed.wait(deadline - time.monotonic()):
                    raise StoreUnavailableError("too many rasters are read at the same time: try again later")
            self._used.append(key)
            for number in reversed(range(len(self._idle))):
                if self._idle[number][0] == key:
                    return self._idle.pop(number)[1], []
            # The raster that was used longest ago is the first.
            surplus = max(0, len(self._used) + len(self._idle) - MOST_OPEN)
            unneeded, self._idle = self._idle[:surplus], self._idle[surplus:]
            return None, [raster for _, raster in unneeded]

    def _forget(self, key: RasterKey, raster: OpenRaster | None) -> None:
        """Close all idle rasters of this name, and the given one."""
        with self._changed:
            own = [one for name, one in self._idle if name == key]
            self._idle = [(name, one) for name, one in self._idle if name != key]
        _close([*own, *([] if raster is None else [raster])])

    def _give_back(self, key: RasterKey, raster: OpenRaster | None) -> None:
        unneeded = []
        with self._changed:
            self._used.remove(key)
            if raster is not None and raster.may_stay_open and not self._closed:
                self._idle.append((key, raster))
            elif raster is not None:
                unneeded.append(raster)
            self._changed.notify_all()
        _close(unneeded)


def _check(dataset: Dataset) -> None:
    """Refuse a raster that is missing, or was changed since it was embedded."""
    check_unchanged(dataset.store, dataset.plan)


def _close(rasters: list[OpenRaster]) -> None:
    """Close rasters whose pixels nobody uses any more. Errors are ignored: no answer depends on them."""
    for raster in rasters:
        try:
            raster.close()
        except DataError:
            continue
