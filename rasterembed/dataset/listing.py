"""List the datasets of a store, with a short description of each."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum

from rasterembed.dataset.continuing import continue_command, run_text, written_text
from rasterembed.dataset.manifest import State, read_manifest
from rasterembed.dataset.plan import Plan
from rasterembed.dataset.plan_checks import why_unusable
from rasterembed.dataset.shards import count_written_shards
from rasterembed.errors import DataError, StoreError, StoreUnavailableError
from rasterembed.store.dataset_owner import collection_of_member
from rasterembed.store.known_collections import embed_command
from rasterembed.store.layout import (
    DATASETS_FOLDER,
    DatasetLayout,
    dataset_id_of_manifest,
    dataset_id_of_plan,
    is_dataset_id,
)
from rasterembed.store.lease import running_run
from rasterembed.store.modification_time import time_of
from rasterembed.store.object_store import ObjectStore
from rasterembed.store.storage import ObjectInfo
from rasterembed.store.stored_model import read_model

_THREADS = 8
"""Number of manifests that are read at the same time. On S3, each read is a request."""


class Unlisted(StrEnum):
    """State of a dataset without a usable manifest."""

    UNFINISHED = "unfinished"
    """A run has planned the dataset, and has not committed it. The run may still work, or it was killed."""
    UNREADABLE = "unreadable"
    """This version cannot read the manifest."""


@dataclass(frozen=True)
class DatasetSummary:
    """A dataset in the list of a store.

    The numbers are 0 if the dataset has no usable manifest. The numbers of tiles and shards of an unfinished dataset,
    its model and its raster are those of its newest plan.
    """

    id: str
    state: State | Unlisted
    modified: datetime
    """Time of the last write of the manifest's file, UTC. For an unfinished dataset, that of its plan's file. This time
    changes if the store is copied."""
    created: datetime | None = None
    """Time of the first write of the manifest, UTC. The manifest holds it, so it stays if the store is copied. None if
    the dataset has no usable manifest."""
    tiles: int = 0
    """Number of planned tiles."""
    rows: int = 0
    """Number of embedded tiles."""
    bytes: int = 0
    """Size of all shards together, in bytes."""
    model: str = ""
    """Id of the model, or `demo (untrained)`."""
    raster: str = ""
    """Address of the raster."""
    shards: int = 0
    """Number of planned shards."""
    written_shards: int = 0
    """Number of shards that the store has. Less than `shards` only if the dataset is unfinished."""
    running: bool = False
    """Whether a run writes the unfinished dataset now. A killed run counts for up to a minute."""
    continue_with: str = ""
    """Command that goes on with the unfinished dataset. Empty for other datasets, and if the plan cannot be read."""
    problem: str = ""
    """Reason why the manifest cannot be read. Empty if the manifest can be read, or does not exist."""


def list_datasets(store: ObjectStore) -> list[DatasetSummary]:
    """Return all datasets of a store, in the order of their ids. Unfinished and unreadable datasets are included.

    Args:
        store: the store. It is listed once. Each manifest is read, and the newest plan of each unfinished dataset.

    Raises:
        StoreError: if the store refuses or does not answer.

    Example:
        >>> import tempfile
        >>> list_datasets(ObjectStore(root=tempfile.mkdtemp()))
        []
    """
    listed = find_datasets(store)
    pending = [(dataset_id, *plan) for dataset_id, plan in listed.unfinished.items()]
    with ThreadPoolExecutor(_THREADS, thread_name_prefix="manifest") as pool:
        found = pool.map(lambda entry: _summary(store, entry[0], entry[1].modified), listed.committed.items())
        finished = [summary for summary in found if summary is not None]
        unfinished = list(pool.map(lambda entry: _unfinished(store, *entry), pending))
    return sorted([*finished, *unfinished], key=lambda summary: summary.id)


@dataclass(frozen=True)
class FoundDatasets:
    """The datasets of a store, without their content."""

    committed: dict[str, ObjectInfo]
    """Size, version and time of the manifest, by the id of the dataset."""
    unfinished: dict[str, tuple[float, str]]
    """Time of the last write of the newest plan, and its key, by the id of a dataset without a manifest."""
    replaced: dict[str, tuple[float, str]]
    """Time of the last write of the newest plan, and its key, by the id of a committed dataset with several plans.
    A run replaces the dataset now, or was killed."""


def find_datasets(store: ObjectStore) -> FoundDatasets:
    """List the datasets of a store. No object is read.

    Raises:
        StoreError: if the store refuses or does not answer.
    """
    committed: dict[str, ObjectInfo] = {}
    planned: dict[str, tuple[float, str]] = {}
    several = set()
    for key, info in store.find(DATASETS_FOLDER):
        manifest_of, plan_of = dataset_id_of_manifest(key), dataset_id_of_plan(key)
        if manifest_of is not None and is_dataset_id(manifest_of):
            committed[manifest_of] = info
        if plan_of is not None and is_dataset_id(plan_of):
            several.update([plan_of] if plan_of in planned else [])
            planned[plan_of] = max((info.modified, key), planned.get(plan_of, (0.0, "")))
    unfinished = {dataset_id: plan for dataset_id, plan in planned.items() if dataset_id not in committed}
    replaced = {dataset_id: planned[dataset_id] for dataset_id in several if dataset_id in committed}
    return FoundDatasets(committed, unfinished, replaced)


def _summary(store: ObjectStore, dataset_id: str, modified: float) -> DatasetSummary | None:
    """Return the summary of a committed dataset, or None if it was deleted after it was listed."""
    time = time_of(modified)
    try:
        manifest = read_manifest(store, dataset_id)
    except StoreUnavailableError:
        raise
    except DataError as error:
        return DatasetSummary(dataset_id, Unlisted.UNREADABLE, time, problem=str(error))
    if manifest is None:
        return None
    return DatasetSummary(
        id=dataset_id,
        state=manifest.state,
        modified=time,
        created=manifest.created,
        tiles=manifest.tiles,
        rows=manifest.rows,
        bytes=manifest.bytes,
        model=manifest.model,
        raster=manifest.configuration["source"]["uri"],
        shards=len(manifest.shards),
        written_shards=len(manifest.shards),
    )


@dataclass(frozen=True)
class Unfinished:
    """What a store has of a dataset that a run has planned and not committed."""

    id: str
    modified: datetime
    """Time of the last write of the plan's file, UTC."""
    plan: Plan | None
    """The newest plan. None if it cannot be used: the next run then writes it again."""
    written: int
    """Number of shards of the plan that the store has."""
    running: bool
    """Whether a run writes the dataset now. A killed run counts for up to a minute."""
    collection: str | None
    """Id of the collection that the dataset belongs to. None for a dataset of its own."""
    continue_with: str
    """Command that goes on with the dataset. Empty if the plan cannot be used."""

    def describe(self) -> str:
        """Return in one line how much is written, and whether a run goes on with it."""
        written = "its plan cannot be read" if self.plan is None else written_text(self.written, self.plan)
        return f"{written}, and {run_text(self.running)}"


def find_unfinished(store: ObjectStore, dataset_id: str) -> Unfinished | None:
    """Return what a store has of a dataset without a manifest. None if it has a manifest, or no plan.

    Raises:
        StoreError: if the store refuses or does not answer.
    """
    layout = DatasetLayout(dataset_id)
    plans = []
    for key, info in store.find(layout.dataset_folder):
        if key == layout.manifest:
            return None
        if dataset_id_of_plan(key) == dataset_id:
            plans.append((info.modified, key))
    return _read_unfinished(store, dataset_id, *max(plans)) if plans else None


def _read_unfinished(store: ObjectStore, dataset_id: str, modified: float, key: str) -> Unfinished:
    """Read the plan of an unfinished dataset, and count its shards.

    Args:
        store: the store.
        dataset_id: name of the dataset.
        modified: time of the last write of the plan, in seconds since 1970.
        key: key of the newest plan.
    """
    plan, owner = read_unfinished_plan(store, dataset_id, key), collection_of_member(store, dataset_id)
    command = "" if plan is None else continue_command(store, plan)
    if owner is not None:
        command = embed_command(store, owner.collection_id)
    return Unfinished(
        id=dataset_id,
        modified=time_of(modified),
        plan=plan,
        written=0 if plan is None else count_written_shards(store, plan),
        running=running_run(store, owner or DatasetLayout(dataset_id)) is not None,
        collection=None if owner is None else owner.collection_id,
        continue_with=command,
    )


def _unfinished(store: ObjectStore, dataset_id: str, modified: float, key: str) -> DatasetSummary:
    """Return the summary of an unfinished dataset. See `_read_unfinished`."""
    found = _read_unfinished(store, dataset_id, modified, key)
    summary = DatasetSummary(
        dataset_id,
        Unlisted.UNFINISHED,
        found.modified,
        written_shards=found.written,
        running=found.running,
        continue_with=found.continue_with,
    )
    plan = found.plan
    if plan is None:
        return summary
    return replace(
        summary,
        tiles=plan.sharding.tile_count,
        model=plan.model.name,
        raster=plan.source.uri,
        shards=plan.sharding.count,
    )


def read_unfinished_plan(store: ObjectStore, dataset_id: str, key: str) -> Plan | None:
    """Return the plan of an unfinished dataset. None if it cannot be used: the next run then writes it again.

    Args:
        store: the store.
        dataset_id: name of the dataset.
        key: key of the plan.

    Raises:
        StoreError: if the store refuses or does not answer.
    """
    try:
        plan = read_model(store, key, Plan, name="plan", remedy="embed the raster again")
    except StoreError:
        raise
    except DataError:
        return None
    return None if plan is None or why_unusable(plan, dataset_id) is not None else plan
