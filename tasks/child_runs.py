"""Child runs that share the work of a run: start them, see how they end, start failed ones again, cancel them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Generic, TypeVar
from uuid import UUID

import httpx
from prefect import get_run_logger
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import FlowRunFilter
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.deployments import run_deployment
from prefect.exceptions import ObjectNotFound, PrefectException
from prefect.runtime import flow_run
from prefect.states import Cancelling

from rasterembed.errors import Cancelled, UsageError

ATTEMPTS = 3
"""Number of child runs that may try the same share. If a worker dies, another child run can complete its share. If the
share is the reason why workers die, the attempts must end."""

POLL_S = 5.0
"""Seconds between two checks of the child runs. One check of all child runs is one request."""

_LATE_S = 60.0
"""Seconds that child runs may wait for a worker before a warning is logged."""

_ENDED = [StateType.COMPLETED, StateType.FAILED, StateType.CRASHED, StateType.CANCELLED]

_Share = TypeVar("_Share")


@dataclass(frozen=True)
class Child(Generic[_Share]):
    """One child run."""

    share: _Share
    """The part of the work."""
    attempt: int
    """1 for the first child run of this share."""


@dataclass(frozen=True)
class Ended(Generic[_Share]):
    """A child run that has ended."""

    child: Child[_Share]
    name: str
    """Name of the flow run."""
    reason: str | None
    """State and message of a run that did not complete. None if the run completed."""


@dataclass(frozen=True)
class ShareTexts(Generic[_Share]):
    """How a share is passed to a child run, and named in the log."""

    parameters: Callable[[_Share], Mapping[str, Any]]
    """Parameters of the child run."""
    key: Callable[[_Share], str]
    """Text that no other share of the run has."""
    name: Callable[[_Share], str]
    """Words for people, such as `shards 0 to 4`."""


class ChildRuns(Generic[_Share]):
    """The child runs of this run that have not ended.

    Use an object as a context manager. At the start of its block, it cancels the child runs that an earlier, killed
    attempt of this run left running. If the block ends with an error, it cancels the child runs of the block.

    Args:
        client: client of the Prefect server.
        deployment: name of the deployment of the child runs.
        known: deployments that `make deploy` makes for this purpose, for the error about a wrong name.
        texts: how shares are passed and named.
    """

    def __init__(self, client: SyncPrefectClient, deployment: str, known: str, texts: ShareTexts[_Share]) -> None:
        self._client, self._deployment, self._texts = client, deployment, texts
        self._log = get_run_logger()
        self._warned = False
        self._started = time.monotonic()
        self.running: dict[UUID, Child[_Share]] = {}
        try:
            self._pool = client.read_deployment_by_name(deployment).work_pool_name
        except (ObjectNotFound, ValueError) as error:
            raise UsageError(
                f"`worker_deployment`: there is no deployment {deployment!r} on this Prefect server: "
                f"`make deploy` makes {known}"
            ) from error

    def __enter__(self) -> ChildRuns[_Share]:
        """Cancel the child runs of an earlier attempt, and return this object."""
        going = [state for state in StateType if state not in _ENDED]
        self._cancel(run.id for run in self._runs(parent_flow_run_id=[UUID(str(flow_run.id))], state=going))
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        """Cancel the child runs if the block ends with an error."""
        if error is not None:
            self._cancel(self.running)

    def start(self, share: _Share, attempt: int) -> None:
        """Create a child run. A second call with the same arguments creates no second child run."""
        run = run_deployment(
            self._deployment,
            parameters=dict(self._texts.parameters(share)),
            timeout=0,  # Return at once.
            idempotency_key=f"{flow_run.id}/{flow_run.run_count}/{self._texts.key(share)}/{attempt}",
        )
        assert isinstance(run, FlowRun)  # In an asynchronous flow, `run_deployment` would return a coroutine.
        self.running[run.id] = Child(share, attempt)
        self._log.info("%s: child run %s", self._texts.name(share), run.name)

    def look(self) -> list[Ended[_Share]]:
        """Find the child runs that have ended. If a share failed fewer than `ATTEMPTS` times, start it again.

        Returns:
            The child runs that completed, and those whose share failed `ATTEMPTS` times.

        Raises:
            Cancelled: if somebody cancelled a child run.
        """
        try:
            ended = list(self._runs(id=self.running, state=_ENDED))
            self._warn_if_late()
        except httpx.TransportError as error:
            self._log.warning("the Prefect server does not answer (%s); the child runs continue", error)
            return []
        found = []
        for run in ended:
            child = self.running.pop(run.id)
            state = run.state
            assert state is not None
            if state.is_completed():
                found.append(Ended(child, run.name, None))
                continue
            what = f"{self._texts.name(child.share)}: child run {run.name}"
            reason = f"{state.name}: {' '.join((state.message or '').split())}"
            if state.is_cancelled():
                raise Cancelled(f"{what} was cancelled")
            if child.attempt == ATTEMPTS:
                found.append(Ended(child, run.name, reason))
                continue
            self._log.warning("%s ended %s; starting another child run", what, reason)
            self.start(child.share, child.attempt + 1)
        return found

    def _cancel(self, runs: Iterable[UUID]) -> None:
        """Cancel child runs. Ignore errors of the server, because they must not hide the reason why this run ends."""
        for run in list(runs):
            with suppress(httpx.HTTPError, PrefectException):
                self._client.set_flow_run_state(run, Cancelling())

    def _warn_if_late(self) -> None:
        if self._warned or time.monotonic() - self._started < _LATE_S:
            return
        self._warned = True
        waiting = len(list(self._runs(id=self.running, state=[StateType.SCHEDULED])))
        if waiting:
            self._log.warning(
                "%d of %d child runs still wait for a worker: start one for work pool %r, or raise its limit",
                waiting,
                len(self.running),
                self._pool,
            )

    def _runs(self, *, state: Sequence[StateType], **ids: Iterable[UUID]) -> Iterator[FlowRun]:
        conditions = {name: {"any_": list(values)} for name, values in ids.items()}
        wanted = FlowRunFilter.model_validate({"state": {"type": {"any_": state}}, **conditions})
        offset = 0
        while page := self._client.read_flow_runs(flow_run_filter=wanted, offset=offset):
            yield from page
            offset += len(page)
