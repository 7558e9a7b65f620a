"""Step 4 on many workers: divide the shards among child runs. Each child run has its own worker."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from uuid import UUID

import httpx
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId, ArtifactFilterType

from rasterembed.dataset.embedding import Execution, Progress
from rasterembed.dataset.plan import Plan
from rasterembed.dataset.shards import Shard, find_shard
from rasterembed.errors import Cancelled, DataError
from rasterembed.model.choice import Device
from rasterembed.raster.sharding import Sharding
from rasterembed.store.object_store import ObjectStore
from tasks.child_runs import ATTEMPTS, POLL_S, Child, ChildRuns, Ended, ShareTexts

_PAGE = 200
"""Number of artifacts in one request. The server never sends more in one answer."""

_COLLECTORS = 8
"""Number of threads that read complete shards."""


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
        children = ChildRuns(
            client,
            fleet.deployment,
            "embed-shards/embed-share-docker and embed-shards/embed-share-process",
            _share_texts(store, plan, fleet),
        )
        reports = _Reports(client, plan.sharding)
        complete = _complete(store, plan)
        progress.add(sum(map(plan.sharding.planned, complete)), found=True)
        missing = [number for number in range(plan.sharding.count) if number not in complete]
        with children:
            for share in shares(missing, fleet.workers):
                children.start(share, attempt=1)
            while children.running:
                if progress.stop.wait(POLL_S):
                    raise Cancelled("the run was told to stop")
                _check_complete(children.look())
                now = complete | _complete(store, plan)
                progress.add(
                    sum(map(plan.sharding.planned, now - complete)),
                    underway=reports.tiles_underway(children.running, now),
                )
                complete = now
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


def _share_texts(store: ObjectStore, plan: Plan, fleet: Fleet) -> ShareTexts[range]:
    """Return how a range of shards is passed to a child run, and named in the log."""
    common = {
        "dataset_id": plan.dataset_id,
        "fingerprint": plan.fingerprint,
        "rasters": plan.rasters,
        "root": store.root,
        "store": fleet.store,
        "source_store": fleet.source_store,
        "weights": fleet.weights,
        "execution": fleet.execution.model_dump(mode="json"),
        "device": fleet.device,
    }
    return ShareTexts(
        parameters=lambda share: common | {"first": share.start, "stop": share.stop},
        key=lambda share: f"{share.start}-{share.stop}",
        name=_name,
    )


def _name(share: range) -> str:
    return f"shards {share.start} to {share.stop - 1}"


def _check_complete(ended: Iterable[Ended[range]]) -> None:
    """Refuse shards that failed too often.

    Raises:
        DataError: if a child run did not complete.
    """
    for one in ended:
        if one.reason is not None:
            raise DataError(
                f"{_name(one.child.share)}: child run {one.name} ended {one.reason} after {ATTEMPTS} attempts; run the "
                "flow again to continue"
            )


class _Reports:
    """Reads the progress that child runs report as artifacts."""

    def __init__(self, client: SyncPrefectClient, sharding: Sharding) -> None:
        self._client, self._sharding = client, sharding
        self._underway = 0

    def tiles_underway(self, running: Mapping[UUID, Child[range]], complete: set[int]) -> int:
        """Return the number of tiles that the child runs report as finished, in shards that are not complete.

        If the server does not answer, the last number is returned.

        Args:
            running: the child runs that have not ended.
            complete: numbers of all complete shards.
        """
        if not running:
            return 0
        wanted = ArtifactFilter(
            flow_run_id=ArtifactFilterFlowRunId(any_=list(running)), type=ArtifactFilterType(any_=["progress"])
        )
        percents: dict[UUID, float] = {}
        try:
            while page := self._client.read_artifacts(artifact_filter=wanted, limit=_PAGE, offset=len(percents)):
                percents |= {one.flow_run_id: float(str(one.data)) for one in page if one.flow_run_id is not None}
                if len(page) < _PAGE:
                    break
        except httpx.HTTPError:
            return self._underway
        reports = [(running[run].share, percent) for run, percent in percents.items() if run in running]
        self._underway = tiles_underway(self._sharding, reports, complete)
        return self._underway
