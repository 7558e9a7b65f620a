"""A row of the catalogue: one scene of a collection, and what became of it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

import shapely

from rasterembed.collection.found_scene import FoundScene, state_of
from rasterembed.collection.members import member_id
from rasterembed.dataset.extent import outline
from rasterembed.dataset.manifest import Manifest
from rasterembed.dataset.plan import Plan
from rasterembed.store.modification_time import time_of


class SceneState(StrEnum):
    """State of a scene in the catalogue."""

    READY = "ready"
    """The scene is embedded and passed its quality checks. Only these scenes are searched."""
    EMBEDDED = "embedded"
    """The scene is embedded, and its quality was not checked."""
    FAILED_QA = "failed_qa"
    """The scene is embedded, and did not pass its quality checks."""
    FAILED = "failed"
    """The scene could not be embedded. The next run tries again."""


class QaVerdict(StrEnum):
    """Result of a scene's quality checks."""

    PASSED = "passed"
    FAILED = "failed"


_VERDICTS = {SceneState.READY: QaVerdict.PASSED, SceneState.FAILED_QA: QaVerdict.FAILED}


@dataclass(frozen=True, slots=True)
class SceneRow:
    """One scene of a collection. The fields are columns of the catalogue.

    A row holds nothing that depends on the run, such as a time or the run's name. A run that was killed and started
    again therefore writes the same rows as a run without a disturbance.
    """

    id: str
    """Id of the scene's dataset."""
    source: str
    """Address of the scene's file, or of its first file: absolute path, or s3://bucket/key."""
    source_size: int | None
    """Size of the scene's files in bytes. None if a file is missing."""
    source_version: str | None
    """Version of the scene's files. See `state_of`."""
    state: SceneState
    reason: str | None
    """Why the scene failed or did not pass its quality checks, in one line. None for other scenes."""
    qa: QaVerdict | None
    """Result of the quality checks. None if the scene was not checked."""
    rows: int
    """Number of vectors that belong to the present state of the scene."""
    skipped: int
    """Number of skipped tiles."""
    shards: int
    """Number of shards."""
    fingerprint: str | None
    """Fingerprint of the dataset's plan. None if the scene failed."""
    datetime: datetime | None
    """Time of acquisition, UTC. If it is not known: time of the file's last modification."""
    cloud_cover: float | None
    """Share of the scene that clouds cover, in percent, from the scene's STAC Item."""
    geometry: bytes | None
    """Footprint in OGC:CRS84 as WKB. None if the scene has no place on Earth."""
    item: str | None
    """Id of the STAC Item that names the scene. None if the scene was found in another way."""
    listing: str
    """Address of the listing that the scene was found in, such as a folder."""
    gone: bool = False
    """Whether a listing that should have the scene did not have it any more. See `compare`."""
    dated: bool = True
    """Whether `datetime` is the time of acquisition. False if it is only the time of the file's last modification."""


def failure_text(row: SceneRow) -> str:
    """Return address and reason of a failed scene in one line. The reason often begins with the address already."""
    reason = row.reason or "no reason is known"
    return reason if reason.startswith(row.source) else f"{row.source}: {reason}"


def embedded_row(listing: str, plan: Plan, manifest: Manifest) -> SceneRow:
    """Return the row of an embedded scene.

    Args:
        listing: address of the listing.
        plan: plan of the scene's dataset.
        manifest: manifest of the scene's dataset.
    """
    state = SceneState(manifest.state)
    geometry = outline(plan)
    size, version = state_of(plan.source)
    files = plan.source.scene
    return SceneRow(
        id=manifest.dataset_id,
        source=plan.source.uri,
        source_size=size,
        source_version=version,
        state=state,
        reason=manifest.reason,
        qa=_VERDICTS.get(state),
        rows=manifest.rows,
        skipped=manifest.skipped,
        shards=len(manifest.shards),
        fingerprint=manifest.fingerprint,
        datetime=plan.profile.acquired or plan.source.modified,
        cloud_cover=None if files is None else files.cloud_cover,
        geometry=None if geometry is None else shapely.to_wkb(geometry),
        item=None if files is None else files.item_id,
        listing=listing,
        dated=plan.profile.acquired is not None,
    )


def failed_row(collection_id: str, found: FoundScene, listing: str, reason: str) -> SceneRow:
    """Return the row of a scene that could not be embedded.

    Args:
        collection_id: name of the collection.
        found: the scene in the listing.
        listing: address of the listing.
        reason: why the scene failed, in one line.
    """
    modified = None if found.modified is None else time_of(found.modified)
    return SceneRow(
        id=member_id(collection_id, found.uri),
        source=found.uri,
        source_size=found.size,
        source_version=found.version,
        state=SceneState.FAILED,
        reason=reason,
        qa=None,
        rows=0,
        skipped=0,
        shards=0,
        fingerprint=None,
        datetime=found.datetime or modified,
        cloud_cover=found.cloud_cover,
        geometry=found.geometry,
        item=found.item,
        listing=listing,
        dated=found.datetime is not None,
    )
