"""Limits for the connections of an HTTP service: how many are open at once, and how long a request may take.

Uvicorn alone waits for ever for a client that connects and sends no request. A few hundred of these clients would use
all file descriptors of the process, and no other client would get an answer.
"""

from __future__ import annotations

import asyncio
import resource
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

_ANSWER_S = 300.0
"""Longest time in seconds from a complete request to its answer."""

_WANTED_DESCRIPTORS = 4096
"""Number of file descriptors that the process asks the system for."""

_OTHER_DESCRIPTORS = 48
"""File descriptors for everything but connections, such as logs, files of the store, and the event loop."""

_FULL = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nContent-Length: 34\r\n"
    b'Retry-After: 3\r\nConnection: close\r\n\r\n{"detail":"too many connections"}\n'
)


class _Phase(Enum):
    """The state of a connection."""

    HEAD = auto()
    """The client has not sent the head of the next request."""
    BODY = auto()
    """The client has not sent the whole body of its request."""
    ANSWER = auto()
    """The request is complete, and the answer is not."""


@dataclass
class Connections:
    """The open connections of a process, and their limits."""

    limit: int
    """Largest number of open connections."""
    head_s: float
    """Seconds that a client may take to send the head of a request."""
    body_s: float
    """Seconds that a client may take to send the body after the head."""
    open: set[GuardedProtocol] = field(default_factory=set)
    waiting: dict[GuardedProtocol, None] = field(default_factory=dict)
    """Connections in the phase HEAD. The one that has waited longest is the first."""

    def seconds(self, phase: _Phase) -> float:
        """Return how long a connection may stay in a phase."""
        return {_Phase.HEAD: self.head_s, _Phase.BODY: self.body_s, _Phase.ANSWER: _ANSWER_S}[phase]


class GuardedProtocol(H11Protocol):
    """Uvicorn's HTTP connection with limits.

    If a client connects at the limit of open connections, the connection that has waited longest for the head of a
    request is closed. So a client that sends its request at once gets its answer, even if many clients hold connections
    and send nothing. If no open connection waits for a head, the new connection gets status 503.
    """

    def __init__(self, *arguments: Any, connections: Connections, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._all = connections
        self._seen: tuple[_Phase, RequestResponseCycle | None] | None = None
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Accept the connection if the limit allows it."""
        super().connection_made(transport)
        if len(self._all.open) >= self._all.limit:
            if not self._all.waiting:
                transport.write(_FULL)
                transport.close()
                return
            next(iter(self._all.waiting)).end()
        self._all.open.add(self)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._forget()
        super().connection_lost(exc)

    def handle_events(self) -> None:
        """Handle what the client has sent."""
        super().handle_events()
        self._watch()

    def on_response_complete(self) -> None:
        """Wait for the next request on this connection."""
        super().on_response_complete()
        self._watch()

    def end(self) -> None:
        """Close the connection at once, without an answer."""
        self._forget()
        self.transport.abort()

    def _watch(self) -> None:
        """If the connection has entered another phase, start the time limit of this phase.

        Data that a client sends within a phase does not extend the limit.
        """
        if self not in self._all.open:
            return
        cycle: RequestResponseCycle | None = self.cycle
        if cycle is None or cycle.response_complete:
            phase = _Phase.HEAD
        else:
            phase = _Phase.BODY if cycle.more_body else _Phase.ANSWER
        if (phase, cycle) == self._seen:
            return
        self._seen = phase, cycle
        if self._timer:
            self._timer.cancel()
        self._timer = self.loop.call_later(self._all.seconds(phase), self.end)
        self._all.waiting.pop(self, None)
        if phase is _Phase.HEAD:
            self._all.waiting[self] = None

    def _forget(self) -> None:
        if self._timer:
            self._timer.cancel()
        self._all.open.discard(self)
        self._all.waiting.pop(self, None)


def fit_descriptors(wanted: int) -> tuple[int, int]:
    """Raise the process's limit of file descriptors, and return how many connections fit into the limit.

    A request needs two descriptors: its own connection, and one to Prefect or to the store. More descriptors are kept
    free for the backlog: connections that the operating system holds until the process accepts them. The process may
    accept several batches of them before it can refuse the first.

    Args:
        wanted: largest number of open connections, if there are enough descriptors.

    Returns:
        The largest number of open connections, and the length of the backlog.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    enough = _WANTED_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(_WANTED_DESCRIPTORS, hard)
    if soft != resource.RLIM_INFINITY and soft < enough:
        resource.setrlimit(resource.RLIMIT_NOFILE, (enough, hard))
        soft = enough
    left = max((enough if soft == resource.RLIM_INFINITY else soft) - _OTHER_DESCRIPTORS, 32)
    return min(wanted, left // 4), min(128, left // 8)
