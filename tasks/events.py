"""Prefect events and assets: other flows, automations and people learn that a dataset or a collection has changed.

A run sends its events after the store has the result. If the Prefect server does not answer, the run goes on: the store
is the truth, and an event only points to it.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from prefect.assets import Asset
from prefect.assets.core import AssetProperties
from prefect.context import AssetContext
from prefect.events import emit_event
from prefect.states import Completed

from rasterembed.collection.collection import Collection
from rasterembed.collection.scene_row import SceneRow, SceneState
from rasterembed.collection_pipeline import CollectionResult
from rasterembed.dataset.manifest import Manifest
from rasterembed.dataset.plan import Plan
from rasterembed.escape import cut, escape_terminal
from rasterembed.number_text import counted
from rasterembed.qa.metrics import Metric
from rasterembed.qa.report import QaReport
from rasterembed.store.dataset_owner import collection_of
from rasterembed.store.layout import DatasetLayout
from rasterembed.store.object_store import ObjectStore

DATASET_EVENTS = {"ready": "raster-embeddings.dataset.ready", "failed_qa": "raster-embeddings.dataset.failed-qa"}
"""Name of the event for each final state of a dataset."""

COLLECTION_EVENT = "raster-embeddings.collection.updated"
"""Name of the event after a run that changed a collection."""

_MAX_KEY = 512
"""Largest length of the key of an asset. Prefect refuses longer keys."""

_MAX_TEXT = 500
"""Largest length of a text in an event, such as the address of a raster."""

_NOT_IN_KEYS = re.compile(r"[\s#?&%\"'<>\[\]{}|\\^`\x00-\x1f\x7f]")
"""Characters that Prefect refuses in the key of an asset, and control characters."""

_DIGEST_LETTERS = 12

_MAX_FILES = 50
"""Largest number of files of a scene that an event names. Prefect refuses events with more than 100 resources."""


def asset_key(uri: str) -> str:
    """Return the key of the asset at an address. Prefect asks for a URL with few kinds of characters.

    A path becomes a `file://` URL. Refused characters become `_`, and a long address is cut. Such a key ends with a
    digest of the address, so two addresses never have the same key.

    Example:
        >>> asset_key("s3://bucket/a.tif"), asset_key("/data/a.tif")
        ('s3://bucket/a.tif', 'file:///data/a.tif')
        >>> asset_key("/data/a b.tif")
        'file:///data/a_b.tif~32f1264a9f0b'
    """
    address = public_address(uri)
    url = address if re.match(r"[a-z0-9]+://", address) else f"file://{address}"
    # A lone surrogate, which stands for a byte that is not UTF-8, can be in no JSON text.
    key = _NOT_IN_KEYS.sub("_", url.encode(errors="replace").decode())
    if key == url and len(key) <= _MAX_KEY:
        return key
    digest = hashlib.sha256(address.encode(errors="surrogatepass")).hexdigest()[:_DIGEST_LETTERS]
    return f"{key[: _MAX_KEY - _DIGEST_LETTERS - 1]}~{digest}"


def public_address(uri: str) -> str:
    """Return an address without the parts that may hold a secret: user, password, query and fragment of a web address.

    Example:
        >>> public_address("https://user:word@host/a.tif?signature=s3cret")
        'https://host/a.tif'
    """
    if not uri.startswith(("http://", "https://")):
        return uri
    scheme, _, rest = re.split("[?#]", uri, maxsplit=1)[0].partition("://")
    host, slash, path = rest.partition("/")
    return f"{scheme}://{host.rpartition('@')[2]}{slash}{path}"


@dataclass(frozen=True)
class _Committed:
    """A dataset that was committed."""

    id: str
    state: str
    reason: str | None
    """Why the dataset did not pass its quality checks."""
    rows: int
    skipped: int
    files: tuple[str, ...]
    """Addresses of the files that the dataset was made from."""
    figures: Mapping[str, float]
    """Measured values of the quality checks, by name."""
    collection_id: str | None
    """Name of the collection that the dataset belongs to."""


def report_dataset(
    store: ObjectStore, block: str | None, plan: Plan, manifest: Manifest, report: QaReport | None
) -> None:
    """Send the event about a dataset that was committed, and materialise its asset.

    Args:
        store: store of the dataset.
        block: name of the store's block. None if the run has no block.
        plan: plan of the dataset.
        manifest: the dataset's manifest, in its final state.
        report: report of the quality checks. None if they did not run.
    """
    committed = _Committed(
        id=manifest.dataset_id,
        state=manifest.state,
        reason=manifest.reason,
        rows=manifest.rows,
        skipped=manifest.skipped,
        files=tuple(file.uri for file in plan.source.files)[:_MAX_FILES],
        figures={} if report is None else _figures(report.metrics),
        collection_id=None,
    )
    _report(store, block, committed)


def report_scene(store: ObjectStore, block: str | None, row: SceneRow) -> None:
    """Send the event about a scene of a collection that was committed, and materialise the asset of its dataset.

    Args:
        store: store of the collection.
        block: name of the store's block. None if the run has no block.
        row: row of the scene in the catalogue. Nothing is sent about a scene that failed.
    """
    if row.state is SceneState.FAILED:
        return
    committed = _Committed(
        id=row.id,
        state=row.state.value,
        reason=row.reason,
        rows=row.rows,
        skipped=row.skipped,
        files=(row.source,),
        figures={},
        collection_id=collection_of(row.id),
    )
    _report(store, block, committed)


def report_collection(result: CollectionResult, block: str | None) -> None:
    """Send the event about a collection, if the run changed it, and materialise its asset.

    Args:
        result: the result of the run.
        block: name of the block of the collection's store. None if the run has no block.
    """
    comparison = result.comparison
    if not (comparison.to_embed_count or result.pruned or comparison.found_again or comparison.newly_gone):
        return
    collection = result.collection
    catalogue, layout, store = collection.catalogue, collection.layout, collection.store
    counts = {state.value: count for state, count in catalogue.counts().items()}
    bbox, times = catalogue.extent()
    first, last = (None if time is None else time.isoformat() for time in times)
    key = asset_key(store.uri(layout.collection_folder))
    payload = {
        "collection": collection.id,
        "root": _text(store.root),
        "store": block,
        "state": collection.state.value,
        "listing": _text(public_address(result.listing.address)),
        "rows": catalogue.vectors,
        "scenes": counts,
        "failed": len(result.failed),
        "new": len(comparison.new),
        "changed": len(comparison.changed),
        "gone": len(comparison.gone),
        "coverage": {"bbox": bbox, "first": first, "last": last},
        "qa": {} if result.report is None else _figures(result.report.metrics),
        "links": _links(store, collection),
    }
    resource = {
        "prefect.resource.id": key,
        "prefect.resource.name": collection.id,
        "raster-embeddings.collection": collection.id,
    }
    emit_event(COLLECTION_EVENT, resource=resource, payload=payload)
    description = f"{counted(catalogue.vectors, 'vector')} of {counted(catalogue.count, 'scene')}"
    _materialise(key, collection.id, description, [asset_key(result.listing.address)], payload)


def _report(store: ObjectStore, block: str | None, committed: _Committed) -> None:
    """Send the event about a dataset. A dataset whose quality was not checked has no event, and only its asset."""
    layout = DatasetLayout(committed.id)
    key = asset_key(store.uri(layout.dataset_folder))
    links = {"manifest": store.uri(layout.manifest), "item": store.uri(layout.stac_item)}
    if committed.figures:
        links["report"] = store.uri(layout.qa_report_markdown)
    tiles = committed.rows + committed.skipped
    payload: dict[str, Any] = {
        "dataset": committed.id,
        "root": _text(store.root),
        "store": block,
        "state": committed.state,
        "reason": None if committed.reason is None else _text(committed.reason),
        "raster": _text(public_address(committed.files[0])),
        "rows": committed.rows,
        "skipped": committed.skipped,
        "coverage": committed.rows / tiles if tiles else 0.0,
        "qa": dict(committed.figures),
        "links": {name: _text(link) for name, link in links.items()},
    }
    resource = {
        "prefect.resource.id": key,
        "prefect.resource.name": committed.id,
        "raster-embeddings.dataset": committed.id,
    }
    if committed.collection_id is not None:
        payload["collection"] = resource["raster-embeddings.collection"] = committed.collection_id
    if committed.state in DATASET_EVENTS:
        emit_event(DATASET_EVENTS[committed.state], resource=resource, payload=payload)
    description = (
        f"{counted(committed.rows, 'vector')}, {counted(committed.skipped, 'skipped tile')}, {committed.state}"
    )
    _materialise(key, committed.id, description, [asset_key(file) for file in committed.files], payload)


def _materialise(key: str, name: str, description: str, upstream: list[str], metadata: dict[str, Any]) -> None:
    """Materialise an asset, as a task with the decorator `prefect.assets.materialize` does.

    That decorator makes a task run for each asset. A collection may have more scenes than a server can show task runs.

    Args:
        key: key of the asset.
        name: name of the asset, for people.
        description: description of the asset, for people.
        upstream: keys of the assets that it was made from.
        metadata: values of this materialisation.
    """
    asset = Asset(key=key, properties=AssetProperties(name=name, description=description))
    context = AssetContext(
        direct_asset_dependencies={Asset(key=each) for each in upstream},
        downstream_assets={asset},
        materialized_by="raster-embeddings",
        materialization_metadata={key: metadata},
    )
    context.emit_events(Completed())


def _figures(metrics: Iterable[Metric]) -> dict[str, float]:
    """Return the measured values of quality checks by name. JSON has no word for NaN and infinity."""
    return {each.name: each.value for each in metrics if each.value is not None and math.isfinite(each.value)}


def _links(store: ObjectStore, collection: Collection) -> dict[str, str]:
    layout = collection.layout
    links = {"catalogue": store.uri(layout.catalogue), "collection": store.uri(layout.stac_collection)}
    if collection.table is not None:
        links["table"] = store.uri(layout.table)
    return {name: _text(link) for name, link in links.items()}


def _text(text: str) -> str:
    """Return a text in one line and of a bounded length."""
    return cut(escape_terminal(text), _MAX_TEXT)
