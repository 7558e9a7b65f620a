"""Hide rasterio's warning about a raster without a georeference, in one thread only.

`warnings.catch_warnings` replaces the filters of the whole process for some time, so it hides the warnings of other
threads too. Two threads that use it at the same time may leave a wrong filter behind for ever.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

from rasterio.errors import NotGeoreferencedWarning


class _InThisThread:
    """Takes the place of the pattern in a filter of warnings. It matches every text while the present thread hides."""

    def __init__(self) -> None:
        self._local = threading.local()

    def match(self, _: str) -> bool:
        """Return whether the present thread hides the warning."""
        return getattr(self._local, "hides", False)

    @contextmanager
    def hiding(self) -> Iterator[None]:
        """Hide the warning in the present thread until the end of the block."""
        self._local.hides = True
        try:
            yield
        finally:
            self._local.hides = False


_IN_THIS_THREAD = _InThisThread()
_FILTER = ("ignore", _IN_THIS_THREAD, NotGeoreferencedWarning, None, 0)
_lock = threading.Lock()
"""Only one thread at a time puts the filter into the list."""


@contextmanager
def georeference_warning_hidden() -> Iterator[None]:
    """Hide the warning in this thread. The filters for other warnings and other threads have the same effect as before.

    The filter stays in the list. It has no effect while no thread hides the warning.
    """
    filters = cast(list[Any], warnings.filters)
    if not (filters and filters[0] is _FILTER):  # A program that adds filters puts them in front.
        with _lock:
            filters[:] = [_FILTER, *(each for each in filters if each is not _FILTER)]
    with _IN_THIS_THREAD.hiding():
        yield
