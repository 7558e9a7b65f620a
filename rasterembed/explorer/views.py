"""Views: the datasets and collections that the explorer shows. They stay open while they are used."""

from __future__ import annotations

import hashlib
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from functools import partial
from typing import Any, TypeVar

import shapely

from rasterembed.collection.collection import Collection, find_collection
from rasterembed.collection.scene_row import SceneState
from rasterembed.dataset.dataset import Dataset
from rasterembed.dataset.extent import bounding_box, outline
from rasterembed.dataset.manifest import ALL_STATES, read_manifest
from rasterembed.errors import DataError, ObjectMissingError, UsageError
from rasterembed.escape import cut
from rasterembed.explorer.problems import ProblemError, ProblemType, folder_is_away
from rasterembed.explorer.settings import Limits
from rasterembed.model.choice import Device
from rasterembed.near_names import known_names
from rasterembed.search.collection_searcher import CollectionSearcher
from rasterembed.search.searcher import Searcher
from rasterembed.shared_work import SharedWork
from rasterembed.store.known_collections import list_collections
from rasterembed.store.known_datasets import is_planned
from rasterembed.store.layout import CollectionLayout, DatasetLayout
from rasterembed.store.object_store import ObjectStore
from rasterembed.store.unknown_id import has_id, what_it_has
from rasterembed.store.uploads import dataset_dates

T = TypeVar("T")

_FRESH_S = 2.0
"""Seconds for which a view counts as current without a request to the store."""

_MEMBERS = 64
"""Number of scenes of a collection whose manifests stay in memory."""


class ViewKind(StrEnum):
    """Kind of a view. The values are parts of addresses."""

    DATASETS = "datasets"
    COLLECTIONS = "collections"


@dataclass(frozen=True)
class SceneInfo:
    """A scene of a view. A dataset is its only scene."""

    dataset_id: str
    """Id of the scene's dataset."""
    source: str
    """Address of the scene's raster."""
    state: SceneState
    """State of the scene. Only scenes that are ready are searched."""
    acquired: datetime | None
    """Time of acquisition, UTC. None if it is not known."""
    cloud_cover: float | None
    """Share of the scene that clouds cover, in percent. None if it is not known."""
    rows: int
    """Number of vectors."""
    bbox: tuple[float, float, float, float] | None
    """West, south, east, north in degrees. West is greater than east if the scene crosses the antimeridian. None if
    the scene has no place on Earth."""
    time: datetime | None
    """Time for filters and the order, UTC. It is `acquired`, or in a collection the time of the file's last
    modification if `acquired` is not known."""


class View:
    """A dataset or a collection, as it was when it was opened. Several threads may use it at the same time.

    Args:
        store: the store.
        kind: kind of the view.
        id: id of the dataset or the collection.
        version: text that changes when the content changes. The answers of the service may be kept as long as it stays.
        content: the dataset or the collection.
        device: device that runs the model for images.
    """

    def __init__(
        self,
        store: ObjectStore,
        kind: ViewKind,
        id: str,
        version: str,
        content: Dataset | Collection,
        device: Device = "auto",
    ) -> None:
        self.store, self.kind, self.id, self.version, self.content = store, kind, id, version, content
        self._device = device
        self._lock = threading.Lock()
        self._builds = SharedWork[Any]()
        self._kept: dict[Hashable, Any] = {}
        self._members: OrderedDict[str, Dataset] = OrderedDict()

    @property
    def layout(self) -> DatasetLayout | CollectionLayout:
        """Keys of the view's objects in the store."""
        return self.content.layout

    @property
    def searcher(self) -> Searcher | CollectionSearcher:
        """The searcher of the view. It is opened once, and closed with the view.

        Raises:
            DataError: if the view cannot be searched, for example because its quality checks did not pass.
        """

        def open_searcher() -> Searcher | CollectionSearcher:
            if self.kind is ViewKind.DATASETS:
                return Searcher(self.store, [self.id], device=self._device)
            return CollectionSearcher(self.store, self.id, device=self._device)

        return self.keep("searcher", open_searcher)

    @property
    def tile_searcher(self) -> Searcher | CollectionSearcher:
        """The searcher that applies filters to the tiles on the map. Use `searcher` to answer a query.

        The map also shows a dataset whose quality checks did not pass. `searcher` refuses such a dataset.

        Raises:
            DataError: if a file of the view cannot be read, or if it has no tile.
        """
        if isinstance(self.content, Collection) or self.content.manifest.state == "ready":
            return self.searcher
        return self.keep("tile searcher", lambda: Searcher(self.store, [self.id], states=ALL_STATES))

    @property
    def scenes(self) -> tuple[SceneInfo, ...]:
        """The scenes with vectors, in the order of their ids. Scenes that could not be embedded are left out.

        Raises:
            DataError: if the catalogue of the collection, or the plan of the dataset, cannot be read.
        """
        return self.keep("scenes", self._read_scenes)

    def dataset(self, dataset_id: str) -> Dataset:
        """Return the dataset of a scene of this view.

        Args:
            dataset_id: id of the dataset. For a dataset, it is the id of the view.

        Raises:
            ProblemError: with status 404, if the view has no such scene.
            DataError: if the dataset is missing or cannot be read.
        """
        if isinstance(self.content, Dataset):
            if dataset_id != self.id:
                raise self._unknown_member(dataset_id)
            return self.content
        with self._lock:
            known = self._members.get(dataset_id)
            if known is not None:
                self._members.move_to_end(dataset_id)
                return known
        if dataset_id not in self.keep("ids", lambda: frozenset(scene.dataset_id for scene in self.scenes)):
            raise self._unknown_member(dataset_id)
        try:
            opened = Dataset.open(self.store, dataset_id, ALL_STATES)
        except UsageError as error:  # The catalogue has the scene, so the request is right. The other scenes are shown.
            raise DataError(
                f"{self.layout.owner}: dataset {dataset_id!r} of a scene is missing: remove the scene (`rasterembed "
                f"collection remove-scene {self.id} {dataset_id}`), then embed the collection again"
            ) from error
        with self._lock:
            self._members[dataset_id] = opened
            while len(self._members) > _MEMBERS:
                self._members.popitem(last=False)
        return opened

    def keep(self, key: Hashable, build: Callable[[], T]) -> T:
        """Return an object that belongs to the view. It is built once, even if several threads ask for it.

        Args:
            key: name of the object in this view.
            build: function that makes the object. If the object has a method `close`, it is called when the view is
                closed. If the object has a number `nbytes`, the view counts this memory.
        """
        with self._lock:
            if key in self._kept:
                return self._kept[key]  # type: ignore[no-any-return]
        return self._builds.do(key, partial(self._build, key, build))  # type: ignore[no-any-return]

    def _build(self, key: Hashable, build: Callable[[], T]) -> T:
        with self._lock:
            if key in self._kept:  # Another thread has built the object after this one looked.
                return self._kept[key]  # type: ignore[no-any-return]
        built = build()
        with self._lock:
            self._kept[key] = built
        return built

    @property
    def nbytes(self) -> int:
        """Memory of the kept objects that tell it, in bytes."""
        with self._lock:
            return sum(int(getattr(kept, "nbytes", 0)) for kept in self._kept.values())

    def close(self) -> None:
        """Release everything that the view keeps. No thread may use the view any more."""
        with self._lock:
            kept, self._kept = list(self._kept.values()), {}
            self._members.clear()
        for one in kept:
            close = getattr(one, "close", None)
            if close is not None:
                close()

    def _unknown_member(self, dataset_id: str) -> ProblemError:
        return ProblemError(
            404,
            ProblemType.UNKNOWN_TILE,
            f"{self.layout.owner} has no scene {cut(dataset_id, 100)!r} with vectors: it has "
            f"{known_names(dataset_id, [scene.dataset_id for scene in self.scenes])}",
        )

    def _read_scenes(self) -> tuple[SceneInfo, ...]:
        if isinstance(self.content, Dataset):
            return (_scene_of(self.content),)
        found = []
        for row, geometry in zip(self.content.catalogue.rows(), self.content.catalogue.geometry(), strict=True):
            if row.state is SceneState.FAILED:
                continue
            found.append(
                SceneInfo(
                    dataset_id=row.id,
                    source=row.source,
                    state=row.state,
                    acquired=row.datetime if row.dated else None,
                    cloud_cover=row.cloud_cover,
                    rows=row.rows,
                    bbox=box_of(geometry),
                    time=row.datetime,
                )
            )
        return tuple(found)


def _scene_of(dataset: Dataset) -> SceneInfo:
    plan = dataset.plan
    scene = plan.source.scene
    return SceneInfo(
        dataset_id=dataset.id,
        source=plan.source.uri,
        state=SceneState(dataset.manifest.state),
        acquired=plan.profile.acquired,
        cloud_cover=None if scene is None else scene.cloud_cover,
        rows=dataset.manifest.rows,
        bbox=box_of(outline(plan)),
        time=plan.profile.acquired,
    )


def box_of(geometry: shapely.Geometry | None) -> tuple[float, float, float, float] | None:
    """Return west, south, east, north of a footprint, or None if there is none. See `bounding_box`."""
    return None if geometry is None or geometry.is_empty else bounding_box(geometry)


@dataclass
class _Entry:
    """A view in the memory of the service."""

    view: View
    users: int = 0
    """Number of requests that use the view now."""
    checked: float = 0.0
    """Time when the store was last asked for the version, by the clock `time.monotonic`."""
    is_current: bool = True
    """Whether new requests get this view."""


class Views:
    """The open views of the service. A view is opened when it is first used, and opened anew when it has changed.

    Args:
        store: the store.
        limits: how many views stay open while nobody uses them.
        device: device that runs the model for images.
    """

    def __init__(self, store: ObjectStore, limits: Limits = Limits(), device: Device = "auto") -> None:
        self._store, self._limits, self._device = store, limits, device
        self._lock = threading.Lock()
        self._asking = SharedWork[_Entry]()
        """Asks the store for the versions of views, and opens views. If the store does not answer, all requests that
        wait for a view fail together. Otherwise each of them would wait again, one after the other."""
        self._entries: OrderedDict[tuple[ViewKind, str], _Entry] = OrderedDict()

    @contextmanager
    def use(self, kind: ViewKind, id: str) -> Iterator[View]:
        """Return a view while the block runs. The view is not closed before the block ends.

        Args:
            kind: kind of the view.
            id: id of the dataset or the collection.

        Raises:
            ProblemError: with status 404, if the store has no dataset or collection of this id.
            DataError: if the dataset or the collection cannot be read.
            StoreError: if the store refuses or does not answer.
        """
        entry = self._enter(kind, id)
        try:
            yield entry.view
        finally:
            self._leave(entry)

    def close(self) -> None:
        """Close all views."""
        with self._lock:
            keys = list(self._entries)
        for key in keys:
            self._retire(key)

    def _enter(self, kind: ViewKind, id: str) -> _Entry:
        """Return the entry of a view with its present content, and count the request as its user."""
        key = (kind, id)
        while True:
            entry = self._asking.do(key, partial(self._present, key))
            with self._lock:
                # Otherwise another request has closed the view since then.
                if self._entries.get(key) is entry:
                    entry.users += 1
                    self._entries.move_to_end(key)
                    return entry

    def _present(self, key: tuple[ViewKind, str]) -> _Entry:
        """Return the entry of a view with its present content. Only one thread at a time does it for one view."""
        with self._lock:
            known = self._entries.get(key)
        if known is not None and time.monotonic() - known.checked < _FRESH_S:
            return known
        try:
            version = view_version(self._store, *key)
            if known is None or known.view.version != version:
                opened = _Entry(open_view(self._store, *key, version, self._device))
                self._retire(key)
                with self._lock:
                    self._entries[key] = known = opened
        except ProblemError:  # The view does not exist any more.
            self._retire(key)
            raise
        known.checked = time.monotonic()
        return known

    def _retire(self, key: tuple[ViewKind, str]) -> None:
        """Let no further request use a view. The view is closed when the last request that uses it ends."""
        with self._lock:
            entry = self._entries.pop(key, None)
            if entry is None:
                return
            entry.is_current = False
            idle = entry.users == 0
        if idle:
            entry.view.close()

    def _leave(self, entry: _Entry) -> None:
        with self._lock:
            entry.users -= 1
            close = [] if entry.is_current or entry.users else [entry]
            close += self._too_many()
        for one in close:
            one.view.close()

    def _too_many(self) -> list[_Entry]:
        """Forget idle views until the limits hold. The caller holds the lock, and closes the returned views."""
        idle = [(key, entry) for key, entry in self._entries.items() if not entry.users]
        taken: list[_Entry] = []
        used = sum(entry.view.nbytes for _, entry in idle)
        count = len(idle)
        for key, entry in idle:  # The one that was used longest ago is the first.
            if count <= self._limits.views and used <= self._limits.view_bytes:
                break
            count, used = count - 1, used - entry.view.nbytes
            entry.is_current = False
            taken.append(self._entries.pop(key))
        return taken


def view_version(store: ObjectStore, kind: ViewKind, id: str) -> str:
    """Return a text that changes when a dataset or a collection changes. Nothing is read, only sizes and versions.

    Raises:
        ProblemError: with status 404, if the store has no dataset or collection of this id.
        StoreError: if the store refuses or does not answer.
    """
    try:
        layout: DatasetLayout | CollectionLayout
        if kind is ViewKind.DATASETS:
            layout = DatasetLayout(id)
            keys = [layout.manifest, layout.vector_index_info]
        else:
            layout = CollectionLayout(id)
            keys = [layout.stac_collection, layout.catalogue, layout.table, layout.vector_index_info]
    except UsageError as error:
        raise ProblemError(404, ProblemType.UNKNOWN_VIEW, str(error)) from error
    digest = hashlib.sha256()
    for number, key in enumerate(keys):
        try:
            info = store.describe_object(key)
        except ObjectMissingError as error:
            if number == 0:
                raise _unknown_view(store, layout) from error
            digest.update(b"missing\n")
        else:
            digest.update(f"{info.size} {info.version}\n".encode())
    return digest.hexdigest()[:16]


def open_view(store: ObjectStore, kind: ViewKind, id: str, version: str, device: Device = "auto") -> View:
    """Open a dataset in any state, or a collection.

    Args:
        store: the store.
        kind: kind of the view.
        id: id of the dataset or the collection. It has been checked by `view_version`.
        version: result of `view_version`. It was computed before, so that a later change is noticed.
        device: device that runs the model for images.

    Raises:
        ProblemError: with status 404, if it was deleted in the meantime.
        DataError: if it cannot be read.
    """
    content: Dataset | Collection | None
    if kind is ViewKind.DATASETS:
        manifest = read_manifest(store, id)
        content = None if manifest is None else Dataset(store, manifest)
        layout: DatasetLayout | CollectionLayout = DatasetLayout(id)
    else:
        content, layout = find_collection(store, id), CollectionLayout(id)
    if content is None:
        raise _unknown_view(store, layout)
    return View(store, kind, id, version, content, device)


def _unknown_view(store: ObjectStore, layout: DatasetLayout | CollectionLayout) -> Exception:
    if store.folder_is_missing:
        return folder_is_away(store)
    if isinstance(layout, DatasetLayout) and is_planned(store, layout):
        text = f"{layout.owner} in {store.root} is unfinished: it can be seen when its run has ended"
        return ProblemError(404, ProblemType.UNKNOWN_VIEW, text)
    text = f"{layout.owner} is not in {store.root}"
    if isinstance(layout, DatasetLayout):
        id, kind, other, path = layout.dataset_id, "dataset", "collection", ViewKind.COLLECTIONS
    else:
        id, kind, other, path = layout.collection_id, "collection", "dataset", ViewKind.DATASETS
    if has_id(store, other, id):
        text += f": {id!r} is a {other}: its path is `/api/{path}/{id}`"
    else:
        text += ": it was deleted, or its id is wrong"
        ids = list_collections(store) if kind == "collection" else sorted(dataset_dates(store))
        text += f"; {what_it_has(store, kind, id, ids)}" if ids else ""
    return ProblemError(404, ProblemType.UNKNOWN_VIEW, text)
