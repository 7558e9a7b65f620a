"""Batches of scenes in the store: a run deals them to its workers, which may run on other machines.

A batch is a file below the folder of its collection, because a thousand scenes are too long for the parameters of a
flow run. A worker writes the rows of its batch into a second file. The run deletes both.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any

import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from rasterembed.collection.catalogue import Catalogue, read_rows_of_catalogue
from rasterembed.collection.found_scene import FoundScene
from rasterembed.collection.scene_row import SceneRow
from rasterembed.dataset.whole_table import TableLimits
from rasterembed.errors import DataError, validation_reason
from rasterembed.raster.source import Source
from rasterembed.scene_pipeline import SceneJob
from rasterembed.store.layout import CollectionLayout, key_in
from rasterembed.store.object_store import ObjectStore

MOST_SCENES, MOST_BYTES = 1024, 2**30
"""Largest number of scenes of a batch, and size of their files in bytes after which a batch gets no further scene. The
work of a batch then takes much longer than the start of a worker and the loading of the model."""

_LIMITS = TableLimits(rows=MOST_SCENES, bytes=2**28)
"""Largest size of the rows of a batch that is read."""


class _StoredScene(BaseModel):
    """The fields of `FoundScene` as JSON."""

    model_config = ConfigDict(frozen=True, ser_json_bytes="base64", val_json_bytes="base64")

    uri: str
    size: int | None
    version: str | None
    modified: float | None
    item: str | None
    acquired: datetime | None = Field(alias="datetime")
    cloud_cover: float | None
    geometry: bytes | None
    source: Source | None
    problem: str | None


class _StoredBatch(BaseModel):
    model_config = ConfigDict(frozen=True, ser_json_bytes="base64", val_json_bytes="base64")

    job: SceneJob
    scenes: tuple[_StoredScene, ...]


@dataclass(frozen=True)
class Batch:
    """The place of a batch of scenes in a run."""

    lease: int
    """Number of the run's lease on the collection."""
    first: int
    """Number of the first scene, from 0."""
    stop: int
    """Number after the last scene."""
    sha256: str
    """SHA-256 digest of the batch's file. A worker that gets the digest from the run can trust the file: it holds what
    the run wrote, and nothing that somebody else put into the bucket."""


def write_batch(
    store: ObjectStore, layout: CollectionLayout, job: SceneJob, lease: int, first: int, scenes: Sequence[FoundScene]
) -> Batch:
    """Write a batch into the store.

    Args:
        store: store of the collection.
        layout: layout of the collection.
        job: what all scenes of the run have in common.
        lease: number of the run's lease.
        first: number of the batch's first scene in the run.
        scenes: the scenes of the batch.
    """
    stored = _StoredBatch(job=job, scenes=tuple(map(_stored, scenes)))
    data = stored.model_dump_json(by_alias=True).encode()
    batch = Batch(lease, first, first + len(scenes), hashlib.sha256(data).hexdigest())
    store.write(layout.batch(batch.lease, batch.first, batch.stop), data)
    return batch


def read_batch(store: ObjectStore, layout: CollectionLayout, batch: Batch) -> tuple[SceneJob, tuple[FoundScene, ...]]:
    """Read a batch that a run wrote.

    Raises:
        DataError: if the batch is missing, because its run has ended, or if it is not the one that the run wrote.
        StoreError: if the store refuses or does not answer.
    """
    key = layout.batch(batch.lease, batch.first, batch.stop)
    data = store.read(key)
    if data is None:
        raise DataError(f"{store.uri(key)}: the batch is missing: the run that wrote it has ended")
    if hashlib.sha256(data).hexdigest() != batch.sha256:
        raise DataError(
            f"{store.uri(key)}: it is not the batch that the run wrote: run the flow embed-collection again"
        )
    try:
        stored = _StoredBatch.model_validate_json(data)
    except ValidationError as error:
        raise DataError(f"{store.uri(key)}: this version cannot read the batch ({validation_reason(error)})") from error
    return stored.job, tuple(map(_found, stored.scenes))


def write_rows(store: ObjectStore, layout: CollectionLayout, batch: Batch, rows: Sequence[SceneRow]) -> None:
    """Write the rows of a batch whose scenes are complete or have failed."""
    data = io.BytesIO()
    pq.write_table(Catalogue.of(rows).table, data)
    store.write(layout.batch_rows(batch.lease, batch.first, batch.stop), data.getvalue())


def read_rows(store: ObjectStore, layout: CollectionLayout, batch: Batch) -> list[SceneRow]:
    """Read the rows of a batch that a worker completed.

    Raises:
        DataError: if they are missing, or if the file cannot be read.
        StoreError: if the store refuses or does not answer.
    """
    key = layout.batch_rows(batch.lease, batch.first, batch.stop)
    data = store.read(key)
    if data is None:
        raise DataError(f"{store.uri(key)}: the rows of a complete batch are missing: run again")
    return list(read_rows_of_catalogue(io.BytesIO(data), store.uri(key), "run again", _LIMITS).rows())


def clear_batches(store: ObjectStore, layout: CollectionLayout) -> None:
    """Delete all batches and rows, also those of a killed run. The caller holds the lease of the collection."""
    for name in store.sizes(layout.work_folder):
        store.delete(key_in(layout.work_folder, name))


def deal(scenes: Sequence[FoundScene], most_scenes: int, most_bytes: int) -> Iterator[tuple[int, list[FoundScene]]]:
    """Deal scenes to batches, in their order. Yield the number of the first scene and the scenes of each batch.

    Args:
        scenes: all scenes.
        most_scenes: largest number of scenes in a batch.
        most_bytes: size in bytes after which a batch gets no further scene. A scene of unknown size fills a batch.

    Example:
        >>> [(first, len(batch)) for first, batch in deal([FoundScene("a", 9), FoundScene("b", 9)], 256, 2**26)]
        [(0, 2)]
        >>> [(first, len(batch)) for first, batch in deal([FoundScene("a", 2**30), FoundScene("b", 9)], 256, 2**26)]
        [(0, 1), (1, 1)]
    """
    batch: list[FoundScene] = []
    size = 0
    for number, scene in enumerate(scenes):
        batch.append(scene)
        size += most_bytes if scene.size is None else scene.size
        if len(batch) == most_scenes or size >= most_bytes:
            yield number + 1 - len(batch), batch
            batch, size = [], 0
    if batch:
        yield len(scenes) - len(batch), batch


def deal_to_workers(scenes: Sequence[FoundScene], workers: int) -> Iterator[tuple[int, list[FoundScene]]]:
    """Deal scenes to batches for a number of workers, so that each worker gets about two. See `deal`."""
    each = max(1, 2 * workers)
    size = sum(scene.size or 0 for scene in scenes)
    return deal(
        scenes,
        most_scenes=min(MOST_SCENES, -(-len(scenes) // each)),
        most_bytes=min(MOST_BYTES, -(-size // each) or 1),
    )


def _stored(scene: FoundScene) -> _StoredScene:
    values: dict[str, Any] = {field.name: getattr(scene, field.name) for field in fields(FoundScene)}
    return _StoredScene.model_validate(values)


def _found(stored: _StoredScene) -> FoundScene:
    return FoundScene(
        uri=stored.uri,
        size=stored.size,
        version=stored.version,
        modified=stored.modified,
        item=stored.item,
        datetime=stored.acquired,
        cloud_cover=stored.cloud_cover,
        geometry=stored.geometry,
        source=stored.source,
        problem=stored.problem,
    )
