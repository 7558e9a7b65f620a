"""Cards: what the page says about each dataset and each collection of the store."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Container, Hashable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from functools import partial

import pyarrow.compute as pc
from pydantic import BaseModel, ConfigDict, Field

from rasterembed.collection.collection import Collection, find_collection
from rasterembed.collection.members import is_member_id
from rasterembed.collection.scene_row import QaVerdict, SceneState
from rasterembed.collection.stac_collection import CollectionState
from rasterembed.dataset.dataset import Dataset
from rasterembed.dataset.extent import outline
from rasterembed.dataset.listing import Unlisted, find_datasets, read_unfinished_plan
from rasterembed.dataset.manifest import read_manifest
from rasterembed.dataset.plan import Plan
from rasterembed.dataset.shards import count_written_shards
from rasterembed.errors import DataError, ObjectMissingError, StoreError, StoreUnavailableError, one_line
from rasterembed.escape import escape_terminal
from rasterembed.explorer.boxes import Box, covering_box
from rasterembed.explorer.breaches import line_of_metrics, line_of_names
from rasterembed.explorer.problems import folder_is_away
from rasterembed.explorer.views import ViewKind, box_of
from rasterembed.qa.report import QaReport, read_report
from rasterembed.search.engines.engine import IndexUnusableError
from rasterembed.search.index.description import read_any_index
from rasterembed.search.vector_files import VectorFiles
from rasterembed.shared_work import SharedWork
from rasterembed.store.dataset_owner import collection_of
from rasterembed.store.known_collections import find_collection_objects
from rasterembed.store.layout import INDEXES_FOLDER, CollectionLayout, DatasetLayout
from rasterembed.store.lease import running_run
from rasterembed.store.modification_time import time_of
from rasterembed.store.object_store import ObjectStore
from rasterembed.store.stored_model import read_model

log = logging.getLogger("uvicorn.error")

_THREADS = 8
"""Number of datasets and collections that are read at the same time. On S3, each read is a request."""

_FRESH_S = 2.0
"""Seconds for which the listing of the store is used again."""

_SLOWER = 5.0
"""A listing that takes long is used again for this many times the seconds that it took."""


class RunProgress(BaseModel):
    """How far a run is that has not ended."""

    model_config = ConfigDict(frozen=True)

    shards: int | None
    """Number of shards in the plan. None for a collection, because the number of its scenes is not known."""
    done: int
    """Number of shards that are written. For a collection: number of scenes in the catalogue."""
    running: bool
    """Whether a run writes now. If not, the run was killed, and the same command continues it."""


class Quality(BaseModel):
    """The verdict of the quality checks."""

    model_config = ConfigDict(frozen=True)

    passed: bool
    line: str
    """The verdict in one line, for people."""


class Card(BaseModel):
    """A dataset or a collection in the list of the store. Values that are not known are None."""

    model_config = ConfigDict(frozen=True)

    kind: ViewKind
    id: str
    state: str
    """`ready`, `embedded`, `failed_qa`, `embedding`, `unfinished` or `unreadable`."""
    problem: str | None = None
    """Why it cannot be read, in one line. None if it can be read."""
    model: str | None = None
    created: datetime | None = None
    modified: datetime | None = None
    tiles: int | None = None
    """Number of planned tiles."""
    rows: int | None = None
    """Number of embedded tiles."""
    skipped: int | None = None
    scenes: int | None = None
    """Number of scenes of a collection, with those that failed. None for a dataset."""
    failed: int | None = None
    """Number of scenes of a collection that could not be embedded. None for a dataset."""
    bytes: int | None = None
    """Size of the vectors' files, in bytes."""
    bbox: Box | None = None
    """West, south, east, north in degrees. West is greater than east if the box crosses the antimeridian."""
    first: datetime | None = None
    """First time of acquisition, UTC."""
    last: datetime | None = None
    """Last time of acquisition, UTC."""
    raster: str | None = None
    """Address of the raster of a dataset."""
    qa: Quality | None = None
    index: str | None = None
    """Engine of the vector index. None if there is none that can be used."""
    progress: RunProgress | None = None
    """How far the run is. None if nothing is unfinished."""


class Running(BaseModel):
    """A dataset or a collection that is not finished."""

    kind: ViewKind
    id: str
    shards: int | None
    done: int
    running: bool
    modified: datetime | None


class Cards:
    """The cards of a store. A card is read again only if its objects have changed.

    Args:
        store: the store.
    """

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self._listings = SharedWork[list[Card]]()
        self._kept: dict[Hashable, tuple[Hashable, Card]] = {}
        self._read: tuple[float, list[Card]] | None = None

    def all(self) -> list[Card]:
        """Return the cards of all datasets and collections, in the order of their ids.

        The scenes of a collection have no cards: they may be a hundred thousand.

        Raises:
            StoreError: if the store refuses or does not answer.
        """
        return self._listings.do("all", self._recent)  # Several pages that ask at the same time share one listing.

    def _recent(self) -> list[Card]:
        """Return the cards of the last listing, or list the store again if it was made too long ago."""
        now = time.monotonic()
        if self._read is not None and now < self._read[0]:
            return self._read[1]
        cards = self._list()
        took = time.monotonic() - now
        self._read = (time.monotonic() + max(_FRESH_S, _SLOWER * took), cards)
        return cards

    def running(self) -> list[Running]:
        """Return the datasets that are unfinished or being replaced, and the collections whose run has not ended.

        Raises:
            StoreError: if the store refuses or does not answer.
        """
        return [
            Running(kind=card.kind, id=card.id, modified=card.modified, **dict(card.progress))
            for card in self.all()
            if card.progress is not None
        ]

    def _list(self) -> list[Card]:
        if self._store.folder_is_missing:
            raise folder_is_away(self._store)
        collections = _find_collections(self._store)
        datasets = find_datasets(self._store)
        indexes = {key: info.version for key, info in self._store.find(INDEXES_FOLDER)}
        jobs: list[tuple[ViewKind, str, Callable[[], Card | None]]] = []
        for id, info in datasets.committed.items():
            if not _is_scene(id, collections):
                index = indexes.get(DatasetLayout(id).vector_index_info)
                read = partial(self._kept_card, ViewKind.DATASETS, id, (info.size, info.version, index), _dataset_card)
                if id in datasets.replaced:
                    read = partial(_replaced_card, self._store, id, datasets.replaced[id][1], read)
                jobs.append((ViewKind.DATASETS, id, read))
        for id, (modified, key) in datasets.unfinished.items():
            if not _is_scene(id, collections):
                jobs.append((ViewKind.DATASETS, id, partial(_unfinished_card, self._store, id, modified, key)))
        for id, versions in collections.items():
            read = partial(self._kept_card, ViewKind.COLLECTIONS, id, versions, _collection_card)
            jobs.append((ViewKind.COLLECTIONS, id, read))
        with ThreadPoolExecutor(_THREADS, thread_name_prefix="card") as pool:
            cards = [card for card in pool.map(lambda job: _card_or_problem(*job), jobs) if card is not None]
        present = {(card.kind, card.id) for card in cards}
        self._kept = {key: kept for key, kept in self._kept.items() if key in present}
        return sorted(cards, key=lambda card: card.id)

    def _kept_card(
        self, kind: ViewKind, id: str, version: Hashable, read: Callable[[ObjectStore, str], Card | None]
    ) -> Card | None:
        """Return the card of a committed dataset or a collection. It is read again only if its version has changed."""
        kept = self._kept.get((kind, id))
        if kept is not None and kept[0] == version:
            card: Card | None = kept[1]
        else:
            card = read(self._store, id)
            if card is not None:
                self._kept[(kind, id)] = version, card
        if card is not None and card.state == CollectionState.EMBEDDING:
            running = running_run(self._store, CollectionLayout(id)) is not None
            card = card.model_copy(
                update={"progress": RunProgress(shards=None, done=card.scenes or 0, running=running)}
            )
        return card


def _is_scene(id: str, collections: Container[str]) -> bool:
    """Return whether a dataset is a scene of one of the collections."""
    collection_id = collection_of(id)
    return collection_id is not None and collection_id in collections and is_member_id(collection_id, id)


def _card_or_problem(kind: ViewKind, id: str, read: Callable[[], Card | None]) -> Card | None:
    """Return a card. If its files cannot be read, the card says so, and the others are shown all the same.

    Raises:
        StoreUnavailableError: if the store does not answer.
    """
    try:
        return read()
    except StoreUnavailableError:
        raise
    except DataError as error:
        problem = str(error)
    except Exception as error:  # The files may hold anything, and one of them must not hide all others.
        log.error("the card of %s cannot be made: %s", escape_terminal(id), one_line(error), exc_info=error)
        problem = f"its files cannot be read ({type(error).__name__}); the log of the service has the details"
    return Card(kind=kind, id=id, state=Unlisted.UNREADABLE, problem=problem)


def _find_collections(store: ObjectStore) -> dict[str, tuple[str, ...]]:
    """Return the versions of the objects that a card shows, by the id of the collection. No object is read."""
    found: dict[str, list[str]] = {}
    described = set()
    for layout, key, info in find_collection_objects(store):
        if key == layout.stac_collection:
            described.add(layout.collection_id)
        if key in (layout.stac_collection, layout.catalogue, layout.table, layout.vector_index_info):
            found.setdefault(layout.collection_id, []).append(f"{key} {info.size} {info.version}")
    return {id: tuple(sorted(found[id])) for id in described}


def _dataset_card(store: ObjectStore, id: str) -> Card | None:
    """Return the card of a committed dataset, or None if it was deleted after it was listed."""
    manifest = read_manifest(store, id)
    if manifest is None:
        return None
    try:
        return card_of_dataset(Dataset(store, manifest))
    except StoreUnavailableError:
        raise
    except DataError:
        # A run may have replaced or deleted the dataset after its manifest was read.
        newer = read_manifest(store, id)
        if newer == manifest:
            raise
        return None if newer is None else card_of_dataset(Dataset(store, newer))


def card_of_dataset(dataset: Dataset) -> Card:
    """Return the card of a dataset.

    Raises:
        DataError: if its plan cannot be read.
    """
    manifest, plan = dataset.manifest, dataset.plan
    return Card(
        kind=ViewKind.DATASETS,
        id=dataset.id,
        state=manifest.state,
        model=manifest.model,
        created=manifest.created,
        modified=_modified(dataset.store, dataset.layout.manifest),
        tiles=manifest.tiles,
        rows=manifest.rows,
        skipped=manifest.skipped,
        bytes=manifest.bytes,
        bbox=box_of(outline(plan)),
        first=plan.profile.acquired,
        last=plan.profile.acquired,
        raster=plan.source.uri,
        qa=_quality_of_dataset(dataset),
        index=_index_engine(VectorFiles.of_dataset(dataset)),
    )


def _quality_of_dataset(dataset: Dataset) -> Quality | None:
    match dataset.manifest.state:
        case "ready":
            return Quality(passed=True, line="The quality checks passed.")
        case "failed_qa":
            # The manifest's reason names metrics as programs do. Few datasets fail, so their reports are read.
            report = report_of_dataset(dataset)
            if report is not None and not report.passed:
                return Quality(passed=False, line=line_of_metrics(report.breaches))
            reason = f": {dataset.manifest.reason}" if dataset.manifest.reason else ""
            return Quality(passed=False, line=f"The quality checks did not pass{reason}.")
        case _:
            return None


def report_of_dataset(dataset: Dataset) -> QaReport | None:
    """Return the quality report of a dataset. None if it is about another content, damaged or missing.

    Raises:
        StoreError: if the store refuses or does not answer.
    """
    try:
        report = read_report(dataset.store, dataset.id)
    except StoreError:
        raise
    except DataError:  # The report is derived from the dataset, which is shown all the same.
        return None
    return report if report is not None and report.fingerprint == dataset.manifest.fingerprint else None


def _unfinished_card(store: ObjectStore, id: str, modified: float, key: str) -> Card:
    """Return the card of a dataset without a manifest, with the progress of its run."""
    plan = read_unfinished_plan(store, id, key)
    card = Card(kind=ViewKind.DATASETS, id=id, state=Unlisted.UNFINISHED, modified=time_of(modified))
    if plan is None:
        return card
    return card.model_copy(
        update={
            "model": plan.model.name,
            "tiles": plan.sharding.tile_count,
            "bbox": box_of(outline(plan)),
            "first": plan.profile.acquired,
            "last": plan.profile.acquired,
            "raster": plan.source.uri,
            "progress": _progress(store, plan),
        }
    )


def _replaced_card(store: ObjectStore, id: str, key: str, read: Callable[[], Card | None]) -> Card | None:
    """Return the card of a committed dataset with several plans, with the progress of the run that replaces it.

    Args:
        store: the store.
        id: id of the dataset.
        key: key of the newest plan.
        read: function that returns the card of the dataset as it is.
    """
    card, plan, manifest = read(), read_unfinished_plan(store, id, key), read_manifest(store, id)
    if card is None or plan is None or manifest is None or plan.fingerprint == manifest.fingerprint:
        return card
    return card.model_copy(update={"progress": _progress(store, plan)})


def _progress(store: ObjectStore, plan: Plan) -> RunProgress:
    """Return how many shards of a plan are written, and whether a run writes now."""
    return RunProgress(
        shards=plan.sharding.count,
        done=count_written_shards(store, plan),
        running=running_run(store, plan.layout) is not None,
    )


def _collection_card(store: ObjectStore, id: str) -> Card | None:
    """Return the card of a collection, or None if it was deleted after it was listed."""
    collection = find_collection(store, id)
    try:
        return None if collection is None else card_of_collection(collection)
    except ObjectMissingError:
        if find_collection(store, id) is None:  # It was deleted after it was read.
            return None
        raise


def card_of_collection(collection: Collection) -> Card:
    """Return the card of a collection.

    Raises:
        DataError: if its catalogue or the description of its table cannot be read.
    """
    catalogue, table = collection.catalogue, collection.table
    boxes = [box for box in map(box_of, catalogue.geometry()) if box is not None]
    _, (first, last) = catalogue.extent()
    skipped = int(pc.sum(catalogue.table["skipped"]).as_py() or 0)
    return Card(
        kind=ViewKind.COLLECTIONS,
        id=collection.id,
        state=collection.state,
        model=collection.configuration.model.name,
        modified=_modified(collection.store, collection.layout.stac_collection),
        tiles=catalogue.vectors + skipped,
        rows=catalogue.vectors,
        skipped=skipped,
        scenes=catalogue.count,
        failed=catalogue.counts().get(SceneState.FAILED, 0),
        bytes=None if table is None else sum(part.bytes for part in table.parts),
        bbox=covering_box(boxes),
        first=first,
        last=last,
        qa=_quality_of_collection(collection),
        index=None if table is None or not table.rows else _index_engine(VectorFiles.of_table(collection, table)),
    )


class _Verdict(BaseModel):
    verdict: QaVerdict
    breached: tuple[str, ...] = ()


class _Checked(BaseModel):
    """The entry of a stored STAC Collection about its quality."""

    qa: _Verdict | None = Field(default=None, alias="rasterembed:qa")


def _quality_of_collection(collection: Collection) -> Quality | None:
    remedy = "check the collection again"
    found = read_model(collection.store, collection.layout.stac_collection, _Checked, name="collection", remedy=remedy)
    if found is None or found.qa is None:
        return None
    if found.qa.verdict is QaVerdict.PASSED:
        return Quality(passed=True, line="The quality checks passed.")
    return Quality(passed=False, line=line_of_names(found.qa.breached))


def _modified(store: ObjectStore, key: str) -> datetime:
    return time_of(store.describe_object(key).modified)


def _index_engine(files: VectorFiles) -> str | None:
    """Return the engine of a vector index, or None if there is none that can be used."""
    try:
        return read_any_index(files).engine
    except IndexUnusableError:
        return None
