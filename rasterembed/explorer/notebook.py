"""The explorer in a notebook: a frame on a service that runs in a thread of the notebook's own process.

The service ends when it is closed, and when the process ends. docs/decisions/0023-explorer-in-notebooks.md has the
reasons.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
import threading
import time
import weakref
from collections.abc import Sequence
from typing import Literal, cast
from urllib.parse import quote, urlencode

import uvicorn
from fastapi import FastAPI

from rasterembed.errors import RasterEmbedError, UsageError, name_list
from rasterembed.escape import escape_html
from rasterembed.explorer.dependencies import Explorer
from rasterembed.explorer.serving import listen, page_address, server_config
from rasterembed.explorer.settings import ExplorerSettings
from rasterembed.explorer.views import ViewKind
from rasterembed.store.object_store import ObjectStore

NOTEBOOK_ORIGINS = ("http://localhost:*", "http://127.0.0.1:*")
"""Origins of notebook servers on this machine."""

_HOST = "127.0.0.1"
"""The service is not reached by the name `localhost`: another user could listen on the same port of ::1."""

_HEIGHTS = 200, 4000
"""Smallest and largest height of the frame, px."""

_START_S, _STOP_S = 30.0, 10.0
_LOOK_S = 0.2
"""Seconds between two looks at whether the process ends."""

_listeners: weakref.WeakSet[socket.socket] = weakref.WeakSet()
"""Sockets of this process that listen."""

_by_port: weakref.WeakValueDictionary[int, NotebookExplorer] = weakref.WeakValueDictionary()
"""The latest explorer of this process at each port that a caller chose."""


def _close_listeners() -> None:
    """Close the sockets in a new child process. Otherwise a forked child listens on after the service is closed."""
    for listener in list(_listeners):
        listener.close()


os.register_at_fork(after_in_child=_close_listeners)


class NotebookExplorer:
    """The explorer of one dataset or collection, for a notebook. A notebook shows it as a frame.

    Only browsers on this machine reach the service. They sign in by an address that can be used once, so the file of
    the notebook holds no secret that still works.

    Args:
        store: the store.
        kind: kind of the view that is shown first.
        id: id of the dataset or the collection that is shown first.
        height: height of the frame, px.
        port: port to listen on. 0 means any free port. An earlier explorer of this process at this port is closed, so
            that a cell can be run again.
        frame_origins: origins of the pages that may show the frame. See `ExplorerSettings.frame_origins`.

    Raises:
        UsageError: if the port is taken, or if a parameter is wrong.

    Example:
        >>> explorer = dataset.explore()  # doctest: +SKIP
        >>> explorer.close()  # doctest: +SKIP
    """

    def __init__(
        self,
        store: ObjectStore,
        kind: ViewKind,
        id: str,
        *,
        height: int = 640,
        port: int = 0,
        frame_origins: Sequence[str] = NOTEBOOK_ORIGINS,
    ) -> None:
        low, high = _HEIGHTS
        if isinstance(height, bool) or not isinstance(height, int) or not low <= height <= high:
            raise UsageError(f"height is {height!r}: give a whole number of pixels from {low} to {high}")
        self._kind, self._id, self._height = kind, id, height
        settings = ExplorerSettings.read(
            store=store,
            host=_HOST,
            port=port,
            token=secrets.token_urlsafe(32),
            frame_origins=tuple(name_list(frame_origins, "frame_origins")),
        )
        if (earlier := _by_port.get(settings.port)) is not None:
            earlier.close()
        listener = listen(_HOST, settings.port)
        _listeners.add(listener)
        self._settings = settings.model_copy(update={"port": listener.getsockname()[1]})
        config = server_config(self._settings)
        self._sign_in = cast(Explorer, cast(FastAPI, config.app).state.explorer).sign_in
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._run, args=(listener,), name="explorer", daemon=True)
        self._thread.start()
        self._wait_for_start()
        if settings.port:
            _by_port[settings.port] = self

    def _run(self, listener: socket.socket) -> None:
        with listener:
            asyncio.run(self._serve(listener))

    async def _serve(self, listener: socket.socket) -> None:
        watcher = asyncio.create_task(self._stop_with_process())
        try:
            await self._server.serve([listener])
        finally:
            watcher.cancel()

    async def _stop_with_process(self) -> None:
        """Stop the service when the main thread has ended.

        The threads in which the service answers requests would otherwise keep the process from ending.
        """
        while threading.main_thread().is_alive():
            await asyncio.sleep(_LOOK_S)
        self._server.should_exit = True

    def _wait_for_start(self) -> None:
        deadline = time.monotonic() + _START_S
        while not self._server.started:
            if not self._thread.is_alive() or time.monotonic() > deadline:
                self.close()
                raise RasterEmbedError("the explorer did not start: the log of the kernel may say why")
            time.sleep(0.01)

    @property
    def url(self) -> str:
        """A new address for a browser on this machine. It signs one browser in, once, within ten minutes.

        Raises:
            UsageError: if the explorer was closed.
        """
        if not self._thread.is_alive():
            raise UsageError("the explorer was closed: call `explore` again")
        state = urlencode({"view": f"{self._kind}/{self._id}"}, safe="/")
        return f"{page_address(self._settings)}enter?code={self._sign_in.codes.new()}&next={quote(f'?{state}')}"

    def close(self) -> None:
        """Stop the service. Nothing listens on its port any more. A second call does nothing."""
        self._server.should_exit = True
        self._thread.join(_STOP_S)

    def __enter__(self) -> NotebookExplorer:
        """Return the explorer. It is closed at the end of the block."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the explorer."""
        self.close()

    def __repr__(self) -> str:
        """Return one short line for people. It has no code, because it may be logged."""
        state = f"at {page_address(self._settings)}" if self._thread.is_alive() else "closed"
        return f"Explorer of {self._kind}/{self._id}, {state}"

    def _repr_html_(self) -> str:
        """Return a frame with the explorer. Jupyter calls this method."""
        if not self._thread.is_alive():
            return f"<p>{escape_html(repr(self))}</p>"
        title = escape_html(f"Explorer of {self._id}")
        return (
            f'<iframe src="{escape_html(self.url)}" title="{title}" width="100%" height="{self._height}" '
            'style="border: 0" allow="fullscreen"></iframe>'
            f'<p><a href="{escape_html(self.url)}" target="_blank" rel="noopener">Open in a browser tab</a></p>'
        )


def explore_in_notebook(
    store: ObjectStore,
    kind: Literal["datasets", "collections"],
    id: str,
    height: int,
    port: int,
    frame_origins: Sequence[str] | None,
) -> NotebookExplorer:
    """Return a running explorer. It is the method `explore` of datasets and collections. See `NotebookExplorer`."""
    origins = NOTEBOOK_ORIGINS if frame_origins is None else frame_origins
    return NotebookExplorer(store, ViewKind(kind), id, height=height, port=port, frame_origins=origins)
