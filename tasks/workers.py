"""Step 4 on many workers: divide the shards among child runs. Each child run has its own worker."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from uuid import UUID

import httpx
from prefect import get_run_logger
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId, ArtifactFilterType, FlowRunFilter
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.deployments import run_deployment
from prefect.exceptions import ObjectNotFound, PrefectException
from prefect.runtime import flow_run
from prefect.states import Cancelling

from rasterembed.dataset.embedding import Execution, Progress
from rasterembed.dataset.plan import Plan
from rasterembed.dataset.shards import Shard, find_shard
from rasterembed.errors import Cancelled, DataError, UsageError
from rasterembed.model.choice import Device
from rasterembed.raster.sharding import Sharding
from rasterembed.store.object_store import ObjectStore

ATTEMPTS = 3
"""Number of child runs that may try the same shards. If a worker dies, another child run can complete its shards. If
the shards are the reason why workers die, the run must fail after some attempts."""

POLL_S = 5.0
"""Seconds between two checks of the child runs. One check of all child runs is one request."""

_LATE_S = 60.0
"""Seconds that child runs may wait for a worker before a warning is logged."""

_PAGE = 200
"""Number of artifacts in one request. The server never sends more in one answer."""

_COLLECTORS = 8
"""Number of threads that read complete shards."""

_ENDED = [StateType.COMPLETED, StateType.FAILED, StateType.CRASHED, StateType.CANCELLED]


@dataclass(frozen=True)
class Fleet:
    """The workers of a run, and the parameters that their child runs of flow `embed-shards` get."""

    workers: int
    """Number of child runs at a time."""
    deployment: str
    """Name of the deployment, as `embed-shards/embed-share-docker`."""
    store: str | None
    """Name of the object-store block."""
    source_store: str | None
    """Name of the source-store block."""
    weights: str | None
    """Name of the weights block."""
    execution: Execution
    """How each child run does its work."""
    device: Device
    """Where the model runs."""


@dataclass(frozen=True)
class _Child:
    """One child run."""

    share: range
    """Numbers of the child run's shards."""
    attempt: int
    """1 for the first child run of these shards."""


def shares(missing: Sequence[int], workers: int) -> list[range]:
    """Divide shards into contiguous ranges, so that each worker reads one part of the raster.

    Args:
        missing: numbers of the shards to compute, ascending.
        workers: largest number of ranges. If fewer shards are missing, each of them is one range.

    Returns:
        Ranges that cover `missing`. Any two ranges differ by at most one in how many missing shards they have.
    """
    count = min(workers, len(missing))
    cuts = [len(missing) * i // count for i in range(count + 1)] if count else []
    return [range(missing[a], missing[b - 1] + 1) for a, b in pairwise(cuts)]


def embed_on_workers(store: ObjectStore, plan: Plan, fleet: Fleet, progress: Progress) -> list[Shard]:
    """Let child runs compute the missing shards, and collect all shards from the store.

    If a child run crashes or fails, another child run gets the same shards and computes only the incomplete ones. If
    this run fails, is cancelled or loses its lease, it cancels its child runs.

    Raises:
        UsageError: if the deployment does not exist.
        DataError: if the same shards failed `ATTEMPTS` times.
        Cancelled: if somebody cancelled a child run, or `progress.stop` was set.
    """
    with get_client(sync_client=True) as client:
        children = _Children(store, plan, fleet, client)
        complete = _complete(store, plan)
        progress.add(sum(map(plan.sharding.planned, complete)), found=True)
        missing = [number for number in range(plan.sharding.count) if number not in complete]
        try:
            children.cancel(children.of_an_earlier_attempt())
            for share in shares(missing, fleet.workers):
                children.start(share, attempt=1)
            while children.running:
                if progress.stop.wait(POLL_S):
                    raise Cancelled("the run was told to stop")
                children.look()
                now = complete | _complete(store, plan)
                progress.add(sum(map(plan.sharding.planned, now - complete)), underway=children.tiles_underway(now))
                complete = now
        except BaseException:
            children.cancel(children.running)
            raise
    with ThreadPoolExecutor(_COLLECTORS, thread_name_prefix="collect") as pool:
        shards = pool.map(lambda number: find_shard(store, plan, number), range(plan.sharding.count))
        return [shard for shard in shards if shard is not None]


def _complete(store: ObjectStore, plan: Plan) -> set[int]:
    """Return the numbers of all complete shards: those that are in the store."""
    names = store.sizes(plan.layout.shards_folder)
    return {
        number for number in range(plan.sharding.count) if plan.layout.shard_name(plan.fingerprint, number) in names
    }


def tiles_underway(sharding: Sharding, reports: Iterable[tuple[range, float]], complete: set[int]) -> int:
    """Return the number of finished tiles in shards that are not complete.

    Args:
        sharding: the shards of the dataset.
        reports: for each child run, the numbers of its shards, and the progress that it reports, in percent.
        complete: numbers of all complete shards.
    """
    tiles = 0
    for share, percent in reports:
        finished = round(percent / 100.0 * sum(map(sharding.planned, share)))
        tiles += max(0, finished - sum(sharding.planned(number) for number in share if number in complete))
    return tiles


class _Children:
    """The child runs of this run that have not ended."""

    def __init__(self, store: ObjectStore, plan: Plan, fleet: Fleet, client: SyncPrefectClient) -> None:
        self._plan = plan
        self._store = store
        self._fleet = fleet
        self._client = client
        self._log = get_run_logger()
        self._warned = False
        self._underway = 0
        self._started = time.monotonic()
        self.running: dict[UUID, _Child] = {}
        try:
            self._pool = client.read_deployment_by_name(fleet.deployment).work_pool_name
        except (ObjectNotFound, ValueError) as error:
            raise UsageError(
                f"worker_deployment: there is no deployment {fleet.deployment!r} on this Prefect server: "
                "`make deploy` makes embed-shards/embed-share-docker and embed-shards/embed-share-process"
            ) from error

    def start(self, share: range, attempt: int) -> None:
        """Create a child run. A second call with the same arguments creates no second child run."""
        run = run_deployment(
            self._fleet.deployment,
            parameters={
                "dataset_id": self._plan.dataset_id,
                "fingerprint": self._plan.fingerprint,
                "first": share.start,
                "stop": share.stop,
                "rasters": self._plan.rasters,
                "root": self._store.root,
                "store": self._fleet.store,
                "source_store": self._fleet.source_store,
                "weights": self._fleet.weights,
                "execution": self._fleet.execution.model_dump(mode="json"),
                "device": self._fleet.device,
            },
            timeout=0,  # Return at once.
            idempotency_key=f"{flow_run.id}/{flow_run.run_count}/{share.start}-{share.stop}/{attempt}",
        )
        assert isinstance(run, FlowRun)  # In an asynchronous flow, `run_deployment` would return a coroutine.
        self.running[run.id] = _Child(share, attempt)
        self._log.info("shards %d to %d: child run %s", share.start, share.stop - 1, run.name)

    def look(self) -> None:
        """Find the child runs that have ended. If one of them did not complete, start another with its shards."""
        try:
            ended = list(self._runs(id=self.running, state=_ENDED))
            self._warn_if_late()
        except httpx.TransportError as error:
            self._log.warning("the Prefect server does not answer (%s); the child runs continue", error)
            return
        for run in ended:
            child = self.running.pop(run.id)
            state = run.state
            assert state is not None
            if state.is_completed():
                continue
            what = f"shards {child.share.start} to {child.share.stop - 1}: child run {run.name}"
            reason = f"{state.name}: {' '.join((state.message or '').split())}"
            if state.is_cancelled():
                raise Cancelled(f"{what} was cancelled")
            if child.attempt == ATTEMPTS:
                raise DataError(f"{what} ended {reason} after {ATTEMPTS} attempts; run the flow again to continue")
            self._log.warning("%s ended %s; starting another child run", what, reason)
            self.start(child.share, child.attempt + 1)

    def tiles_underway(self, complete: set[int]) -> int:
        """Return the number of tiles that the child runs report as finished, in shards that are not complete.

        A child run reports its progress as an artifact. If the server does not answer, the last number is returned.

        Args:
            complete: numbers of all complete shards.
        """
        if not self.running:
            return 0
        wanted = ArtifactFilter(
            flow_run_id=ArtifactFilterFlowRunId(any_=list(self.running)), type=ArtifactFilterType(any_=["progress"])
        )
        percents: dict[UUID, float] = {}
        try:
            while page := self._client.read_artifacts(artifact_filter=wanted, limit=_PAGE, offset=len(percents)):
                percents |= {one.flow_run_id: float(str(one.data)) for one in page if one.flow_run_id is not None}
                if len(page) < _PAGE:
                    break
        except httpx.HTTPError:
            return self._underway
        reports = [(self.running[run].share, percent) for run, percent in percents.items() if run in self.running]
        self._underway = tiles_underway(self._plan.sharding, reports, complete)
        return self._underway

    def of_an_earlier_attempt(self) -> list[UUID]:
        """Return the child runs that an earlier, killed attempt of this run left running."""
        going = [state for state in StateType if state not in _ENDED]
        return [run.id for run in self._runs(parent_flow_run_id=[UUID(str(flow_run.id))], state=going)]

    def cancel(self, runs: Iterable[UUID]) -> None:
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
