"""Pictures in memory, so that a picture that several people look at is drawn once."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import Future

MOST_BYTES = 64 * 2**20
"""Largest size of the pictures of a view that stay in memory, in bytes."""

_ENTRY_BYTES = 200
"""Memory of an entry besides its picture, in bytes."""


class KeptPictures:
    """The pictures that were used last. Several threads may use it at the same time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: OrderedDict[Hashable, bytes] = OrderedDict()
        self._drawn_now: dict[Hashable, Future[bytes]] = {}
        self.nbytes = 0
        """Memory of the pictures, in bytes."""

    def get(self, key: Hashable, draw: Callable[[], bytes]) -> bytes:
        """Return a picture. If it is not in memory, it is drawn: once, even if several threads ask for it.

        Args:
            key: name of the picture.
            draw: function that draws the picture. If it raises an error, each thread that waits for it gets the error.
        """
        with self._lock:
            picture = self._kept.get(key)
            if picture is not None:
                self._kept.move_to_end(key)
                return picture
            waiting = self._drawn_now.get(key)
            if waiting is None:
                drawn = self._drawn_now[key] = Future()
        if waiting is not None:
            return waiting.result()
        try:
            picture = draw()
        except BaseException as error:
            drawn.set_exception(error)
            raise
        else:
            drawn.set_result(picture)
            self._keep(key, picture)
            return picture
        finally:
            with self._lock:
                del self._drawn_now[key]

    def _keep(self, key: Hashable, picture: bytes) -> None:
        with self._lock:
            self._kept[key] = picture
            self.nbytes += len(picture) + _ENTRY_BYTES
            while self.nbytes > MOST_BYTES:
                _, old = self._kept.popitem(last=False)
                self.nbytes -= len(old) + _ENTRY_BYTES
