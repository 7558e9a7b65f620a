"""Step 4 on many workers: the shards in shares, each a child run on a worker of its own."""

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
from prefect.client.schemas.filters import FlowRunFilter
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.deployments import run_deployment
from prefect.exceptions import ObjectNotFound, PrefectException
from prefect.runtime import flow_run
from prefect.states import Cancelling

from rasterembed.dataset.plan import Plan
from rasterembed.dataset.shards import Shard, find_shard
from rasterembed.errors import Cancelled, DataError, UsageError
from rasterembed.model.choice import Device
from rasterembed.pipeline import Execution, Progress
from rasterembed.store.object_store import ObjectStore
from tasks.embed import shown

ATTEMPTS = 3
"""Child runs that a share may take: a worker that dies must not end the run, a share that kills workers must."""

POLL_S = 5.0
"""Seconds between looks at the child runs: one request for all of them, however many."""

_LATE_S = 60.0
"""Seconds that child runs may wait for a worker before a person is told."""

_COLLECTORS = 8
"""Threads that read finished shards."""

_ENDED = [StateType.COMPLETED, StateType.FAILED, StateType.CRASHED, StateType.CANCELLED]


@dataclass(frozen=True)
class Fleet:
    """The workers of a run, and what each is told; parameters of the `embed-shards` flow."""

    workers: int
    deployment: str
    """Name of the deployment, as `embed-shards/docker`."""
    store: str | None
    """Name of the object-store block."""
    weights: str | None
    """Name of the weights block."""
    execution: Execution
    device: Device


@dataclass(frozen=True)
class _Child:
    share: range
    attempt: int


def shares(missing: Sequence[int], workers: int) -> list[range]:
    """Deal shards to workers in contiguous ranges, so that each reads one part of the raster.

    Args:
        missing: numbers of the shards to compute, ascending.
        workers: ranges wanted; there are fewer if there are fewer shards.

    Returns:
        Ranges that cover `missing`, with equal numbers of them to within one.
    """
    count = min(workers, len(missing))
    cuts = [len(missing) * i // count for i in range(count + 1)] if count else []
    return [range(missing[a], missing[b - 1] + 1) for a, b in pairwise(cuts)]


def embed_on_workers(plan: Plan, store: ObjectStore, fleet: Fleet) -> list[Shard]:
    """Have the missing shards computed by child runs, and gather all shards from the store.

    A child run that crashes or fails is followed by another for the same share, which finds complete what its
    predecessor completed. If this run fails or is cancelled, its child runs are cancelled.

    Raises:
        UsageError: if there is no such deployment.
        DataError: if a share failed `ATTEMPTS` times.
        Cancelled: if somebody cancelled a child run.
    """
    with get_client(sync_client=True) as client:
        children = _Children(plan, store, fleet, client)
        progress = Progress(plan.sharding.tile_count)
        with shown(progress, plan.dataset_id):
            there = _count(plan, store, set(), progress)
            missing = [number for number in range(plan.sharding.count) if number not in there]
            try:
                children.cancel(children.of_an_earlier_attempt())
                for share in shares(missing, fleet.workers):
                    children.start(share, attempt=1)
                while children.running:
                    time.sleep(POLL_S)
                    children.look()
                    there = _count(plan, store, there, progress)
            except BaseException:
                children.cancel(children.running)
                raise
    with ThreadPoolExecutor(_COLLECTORS, thread_name_prefix="collect") as pool:
        found = pool.map(lambda number: find_shard(plan, store, number), range(plan.sharding.count))
        return [shard for shard in found if shard is not None]


def _count(plan: Plan, store: ObjectStore, known: set[int], progress: Progress) -> set[int]:
    """Numbers of the shards in the store; tiles of those not yet known are added to the progress."""
    names = store.sizes(plan.layout.shards_folder)
    there = {n for n in range(plan.sharding.count) if plan.layout.shard_name(plan.fingerprint, n) in names}
    for number in there - known:
        progress.add(plan.sharding.planned(number))
    return there | known


class _Children:
    """The child runs of this run."""

    def __init__(self, plan: Plan, store: ObjectStore, fleet: Fleet, client: SyncPrefectClient) -> None:
        self._plan = plan
        self._store = store
        self._fleet = fleet
        self._client = client
        self._log = get_run_logger()
        self._told = False
        self._since = time.monotonic()
        self.running: dict[UUID, _Child] = {}
        try:
            self._pool = client.read_deployment_by_name(fleet.deployment).work_pool_name
        except (ObjectNotFound, ValueError) as error:
            raise UsageError(
                f"worker_deployment: there is no deployment {fleet.deployment!r} on this Prefect server: "
                "`make deploy` makes embed-shards/docker and embed-shards/process"
            ) from error

    def start(self, share: range, attempt: int) -> None:
        """Create a child run; a repeated call with the same arguments finds it again."""
        run = run_deployment(
            self._fleet.deployment,
            parameters={
                "dataset_id": self._plan.dataset_id,
                "fingerprint": self._plan.fingerprint,
                "first": share.start,
                "stop": share.stop,
                "root": self._store.root,
                "store": self._fleet.store,
                "weights": self._fleet.weights,
                "execution": self._fleet.execution.model_dump(mode="json"),
                "device": self._fleet.device,
            },
            timeout=0,  # do not wait
            idempotency_key=f"{flow_run.id}/{flow_run.run_count}/{share.start}-{share.stop}/{attempt}",
        )
        assert isinstance(run, FlowRun)  # in a synchronous flow
        self.running[run.id] = _Child(share, attempt)
        self._log.info("shards %d to %d: child run %s", share.start, share.stop - 1, run.name)

    def look(self) -> None:
        """Take note of child runs that ended, and start those again that did not do their work."""
        try:
            ended = list(self._runs(id=self.running, state=_ENDED))
            self._tell_if_late()
        except httpx.TransportError as error:
            self._log.warning("the Prefect server does not answer (%s); the child runs go on", error)
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
                raise DataError(f"{what} ended {reason} ({ATTEMPTS} were tried); run again to go on from there")
            self._log.warning("%s ended %s; starting another", what, reason)
            self.start(child.share, child.attempt + 1)

    def of_an_earlier_attempt(self) -> list[UUID]:
        """Child runs that this run left behind when it was killed, before Prefect started it anew."""
        going = [state for state in StateType if state not in _ENDED]
        return [run.id for run in self._runs(parent_flow_run_id=[UUID(str(flow_run.id))], state=going)]

    def cancel(self, runs: Iterable[UUID]) -> None:
        """Cancel child runs, as far as the server lets us."""
        for run in list(runs):
            with suppress(httpx.HTTPError, PrefectException):
                self._client.set_flow_run_state(run, Cancelling())

    def _tell_if_late(self) -> None:
        if self._told or time.monotonic() - self._since < _LATE_S:
            return
        self._told = True
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
