"""Steps of the sweep, which finds uploads whose notification was lost."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

from prefect import get_client, get_run_logger, task
from prefect.artifacts import create_table_artifact
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import (
    FlowFilter,
    FlowFilterName,
    FlowRunFilter,
    FlowRunFilterIdempotencyKey,
    FlowRunFilterState,
    FlowRunFilterStateType,
    FlowRunFilterTags,
)
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.client.schemas.responses import DeploymentResponse
from prefect.exceptions import ObjectNotFound
from prefect.runtime import flow_run

from rasterembed.collection.catalogue import read_catalogue
from rasterembed.dataset.dataset import Dataset
from rasterembed.dataset.manifest import ALL_STATES
from rasterembed.errors import DataError, ObjectMissingError, StoreError, UsageError, one_line
from rasterembed.escape import escape_terminal
from rasterembed.near_names import known_names
from rasterembed.raster.source import default_dataset_id, older_dataset_ids
from rasterembed.store.collection_rules import CollectionRule, is_scene, rule_for
from rasterembed.store.layout import CollectionLayout
from rasterembed.store.object_store import ObjectStore
from rasterembed.store.storage import ObjectInfo
from rasterembed.store.uploads import Upload, UploadRules, dataset_dates
from tasks.artifacts import shortened
from tasks.policy import STEP

_PAGE = 100
"""Number of idempotency keys in one request. The server answers with at most 200 runs."""


_BUSY = [StateType.SCHEDULED, StateType.PENDING, StateType.RUNNING]
"""States of a run that has not ended. A run that works finds new uploads itself, or the next sweep finds them."""


@dataclass(frozen=True)
class PendingUploads:
    """Uploads that no run has embedded."""

    single: list[Upload]
    """Uploads that become a dataset each."""
    collections: Mapping[CollectionRule, int]
    """Number of uploads that the collection of each rule lacks. Rules without such uploads are left out."""


@task(name="find-uploads", **STEP)
def find_uploads(
    store: ObjectStore, uploads: str, rules: UploadRules, collections: Sequence[CollectionRule] = ()
) -> PendingUploads:
    """Find the uploads that have no dataset, or whose dataset is older than the upload and has other content.

    An upload into a collection is found if the catalogue does not have this version of it. A scene that failed is in
    the catalogue, so no sweep starts a run for it again. Every other run of the collection tries it again.

    Args:
        store: store of the datasets. Its credentials are also used to list the uploads.
        uploads: bucket and prefix of the uploads, as s3://bucket/prefix.
        rules: which objects are uploads.
        collections: which uploads belong to a collection.
    """
    dates = dataset_dates(store)
    known = cache(lambda collection: _known_scenes(store, collection))
    pending: list[Upload] = []
    lacking: dict[CollectionRule, int] = {}
    found = 0
    for bucket, key, info in store.find_uploads(uploads):
        if not rules.follow(bucket, key, store.root):
            continue
        found += 1
        uri = f"s3://{bucket}/{key}"
        rule = rule_for(collections, bucket, key)
        if rule is not None:
            if is_scene(key) and known(rule.collection).get(uri) != (info.size, info.version):
                lacking[rule] = lacking.get(rule, 0) + 1
            continue
        # Compare ids only, unless the dataset is older. To see which raster a dataset has, its manifest must be read,
        # and a store may have thousands of datasets.
        names = (default_dataset_id(uri), *older_dataset_ids(uri))
        if max(dates.get(name, 0.0) for name in names) < info.modified and not (
            any(name in dates and _was_made_from(store, name, info) for name in names)
        ):
            try:
                pending.append(Upload(bucket=bucket, key=key, version=store.version_id(uri) or info.version))
            except ValueError:
                get_run_logger().warning("%r: no run can read an object with this name", uri)
            except ObjectMissingError:
                continue  # The object was deleted after the listing.
    missing = len(pending) + sum(lacking.values())
    get_run_logger().info("%d uploads in %s, %d without their dataset", found, uploads, missing)
    return PendingUploads(pending, lacking)


def _was_made_from(store: ObjectStore, dataset_id: str, info: ObjectInfo) -> bool:
    """Return whether a dataset has the content of an object. The same content may have been uploaded again later."""
    try:
        source = Dataset.open(store, dataset_id, ALL_STATES).plan.source
    except StoreError:
        raise
    except (DataError, UsageError):  # The run of the upload will fail with this error, and a person will see it.
        return False
    return (source.size, source.version) == (info.size, info.version)


def _known_scenes(store: ObjectStore, collection: str) -> dict[str, tuple[int, str]]:
    """Return size and version of each scene in a catalogue, by address. Empty if there is no catalogue."""
    try:
        catalogue = read_catalogue(store, CollectionLayout(collection))
    except StoreError:
        raise
    except DataError as error:  # The run of the collection will fail with this error, and a person will see it.
        get_run_logger().warning("%s", one_line(error))
        return {}
    if catalogue is None:
        return {}
    names = ("source", "source_size", "source_version")
    columns = [catalogue.table[name].to_pylist() for name in names]
    return {source: (size, version) for source, size, version in zip(*columns, strict=True)}


@task(name="start-runs", **STEP)
def start_runs(
    pending: Iterable[Upload], deployment: str, root: str | None, store: str | None, most: int
) -> tuple[list[Upload], list[FlowRun]]:
    """Create a run for each upload that has no run.

    Args:
        pending: uploads without a dataset.
        deployment: deployment to run for each upload, as flow/deployment.
        root: folder or s3://bucket/prefix for the datasets; None: the deployment's value.
        store: name of an object-store block; None: the deployment's value.
        most: largest number of runs to create.

    Returns:
        The uploads whose run was created, and the runs that the other uploads already had.

    Raises:
        UsageError: if the deployment does not exist.
    """
    waiting = list(pending)
    with get_client(sync_client=True) as client:
        target = _find_deployment(client, deployment, "deployment")
        known: dict[str, FlowRun] = {}
        for start in range(0, len(waiting), _PAGE):
            keys = [upload.identity for upload in waiting[start : start + _PAGE]]
            named = FlowRunFilter(idempotency_key=FlowRunFilterIdempotencyKey(any_=keys))
            known |= {run.idempotency_key or "": run for run in client.read_flow_runs(flow_run_filter=named)}
        missing = [upload for upload in waiting if upload.identity not in known][:most]
        for upload in missing:
            client.create_flow_run_from_deployment(
                target.id,
                name=upload.uri,
                parameters=upload.parameters(root, store),
                idempotency_key=upload.identity,
                tags=["upload"],
            )
            get_run_logger().info("started %r", upload.uri)
    return missing, list(known.values())


@task(name="start-collection-runs", **STEP)
def start_collection_runs(
    place: ObjectStore,
    lacking: Mapping[CollectionRule, int],
    deployment: str,
    root: str | None,
    store: str | None,
) -> list[CollectionRule]:
    """Create a run for each collection that lacks uploads and has no run that waits or works.

    Args:
        place: store of the collections.
        lacking: number of missing uploads of each rule.
        deployment: deployment to run for a collection, as flow/deployment.
        root: folder or s3://bucket/prefix of the collections; None: the deployment's value.
        store: name of an object-store block; None: the deployment's value.

    Returns:
        The rules for which a run was created.

    Raises:
        UsageError: if the deployment does not exist.
    """
    started = []
    with get_client(sync_client=True) as client:
        target = _find_deployment(client, deployment, "collection_deployment")
        for rule, count in lacking.items():
            identity = rule.identity(place.root)
            busy = FlowRunFilter(
                tags=FlowRunFilterTags(all_=[identity]),
                state=FlowRunFilterState(type=FlowRunFilterStateType(any_=_BUSY)),
            )
            if client.read_flow_runs(flow_run_filter=busy, limit=1):
                get_run_logger().info("%d uploads of %r: a run waits or works", count, rule.scenes)
                continue
            client.create_flow_run_from_deployment(
                target.id,
                name=f"{rule.collection} from {rule.scenes}",
                parameters=rule.parameters(root, store),
                # If the answer is lost, the task is repeated. It must not create a second run.
                idempotency_key=f"{identity}:sweep:{flow_run.id}",
                tags=["upload", identity],
            )
            started.append(rule)
            get_run_logger().info("%d uploads of %r: started a run", count, rule.scenes)
    return started


def _find_deployment(client: SyncPrefectClient, name: str, option: str) -> DeploymentResponse:
    """Return the deployment that an option of the sweep names."""
    try:
        return client.read_deployment_by_name(name)
    except (ObjectNotFound, ValueError) as error:
        flow = name.partition("/")[0]
        others = client.read_deployments(flow_filter=FlowFilter(name=FlowFilterName(any_=[flow])))
        names = sorted(f"{flow}/{other.name}" for other in others)
        known = known_names(name, names) if names else "no deployment of this flow: run `make deploy`"
        raise UsageError(
            f"`{option}`: there is no deployment {name!r} on this Prefect server: give another one as flow/deployment; "
            f"the server has {known}"
        ) from error


def publish_sweep(
    started: Iterable[Upload],
    known: Iterable[FlowRun],
    lacking: Mapping[CollectionRule, int],
    collections: Iterable[CollectionRule],
) -> None:
    """Create a table artifact: the uploads started now, and the uploads that have a run but no dataset.

    Args:
        started: uploads whose run was created.
        known: runs that other uploads already had.
        lacking: number of uploads that the collection of each rule lacks.
        collections: rules for which a run was created.
    """
    started, known, collections = list(started), list(known), list(collections)
    rows = [{"upload": escape_terminal(shortened(upload.uri)), "state": "started now"} for upload in started]
    rows += [
        {
            "upload": f"{count} uploads in {escape_terminal(shortened(rule.scenes))}, collection {rule.collection}",
            "state": "started now" if rule in collections else "a run waits or works",
        }
        for rule, count in lacking.items()
    ]
    rows += [
        {"upload": escape_terminal(shortened(run.name)), "state": str(run.state_name), "run": str(run.id)}
        for run in known
    ]
    create_table_artifact(
        rows,
        key="uploads-without-dataset",
        description=f"Uploads without a dataset: {len(started)} started now, {len(known)} started before",
    )
