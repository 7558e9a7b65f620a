"""The stored files of a collection as targets. The library and the explorer read each damaged copy."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Callable
from datetime import UTC, date, datetime
from pathlib import Path
from random import Random

import numpy as np
from starlette.testclient import TestClient

from rasterembed.collection.collection import Collection
from rasterembed.collection_upkeep import check_collection, rebuild_collection
from rasterembed.errors import RasterEmbedError
from rasterembed.explorer.app import create_app
from rasterembed.explorer.settings import ExplorerSettings
from rasterembed.model.choice import Dinov3
from rasterembed.search.collection_searcher import CollectionSearcher
from rasterembed.search.index.building import build_vector_index
from rasterembed.search.index_options import TableIndexOptions
from rasterembed.search.query import Query, Where
from rasterembed.search.vector_files import VectorFiles
from rasterembed.store.layout import CollectionLayout
from rasterembed.store.object_store import ObjectStore
from tests.fuzz.child import Outcome, run_limited
from tests.fuzz.mutations import damage_json, damage_parquet
from tests.fuzz.target import Target
from tests.support.search_world import ANCHORED, Scene, write_scene_and_dataset
from tests.support.vectors import checkpoint

_ID = "survey"
_SCENES = (
    Scene("first", 4, 5, when=datetime(2025, 6, 1, 10, tzinfo=UTC), cloud=3.0),
    Scene("second", 4, 5, east=2, when=datetime(2026, 6, 1, 10, tzinfo=UTC), cloud=30.0),
)
_TILE = "first/x22501_y42001"
"""Name of a tile. Whether the collection has it does not matter."""

_VIEW = f"/api/collections/{_ID}"
_GETS = (
    "/api/progress",
    _VIEW,
    f"{_VIEW}/imagery/5/18/9.webp",
    f"{_VIEW}/imagery/0/0/0.webp?since=2020-01-01",
    f"{_VIEW}/tiles/5/18/9.png?colour=validity",
    f"{_VIEW}/tiles/0/0/0.png?colour=date&pick=latest&max_cloud_cover=50",
    f"{_VIEW}/legend?colour=qa",
    f"{_VIEW}/footprints?bbox=-180,-90,180,90",
    f"{_VIEW}/at?lon=24.45&lat=60.59&pick=clearest",
    f"{_VIEW}/tile/{_TILE}",
    f"{_VIEW}/qa/map.png",
)
_POSTS = (
    ("search", {"query": {"lonlat": [24.452, 60.588]}, "k": 3, "where": {"since": "2020-01-01", "pick": "latest"}}),
    ("click", {"lonlat": [24.452, 60.588], "k": 3}),
    ("similarity", {"query": {"lonlat": [24.452, 60.588]}}),
    ("export", {"query": {"lonlat": [24.452, 60.588]}, "format": "geojson"}),
)


def collection_targets(folder: Path) -> list[Target]:
    """Write a collection with a table and a vector index below a folder, and return a target for each of its files."""
    store, layout = ObjectStore(root=str(folder / "collection-store")), CollectionLayout(_ID)

    def write() -> Outcome:
        model = Dinov3(model=str(checkpoint(folder / "collection-model", 8)))
        for number, scene in enumerate(_SCENES):
            vectors = np.random.default_rng(number).standard_normal((scene.count, 8)).astype(np.float32)
            write_scene_and_dataset(
                folder, store, scene, model, vectors, np.ones(scene.count, np.float32), grid=ANCHORED
            )
        collection = rebuild_collection(store, _ID, datasets=[scene.name for scene in _SCENES])
        assert collection.table is not None
        files = VectorFiles.of_table(collection, collection.table)
        build_vector_index(files, TableIndexOptions(index="always", index_engine="flat"))
        check_collection(store, _ID)
        return Outcome.READ

    # In a child, because threads are started. A later fork of this process would lack them and wait for ever.
    ending = run_limited(write)
    assert ending.outcome is Outcome.READ, ending

    (part,) = sorted(Path(store.root, layout.table_folder).rglob("*.parquet"))
    part_key = str(part.relative_to(store.root))

    def with_copy(key: str) -> Callable[[bytes, Path, Random], Outcome]:
        def read(data: bytes, place: Path, random: Random) -> Outcome:
            copy = ObjectStore(root=str(shutil.copytree(store.root, place / "store")))
            copy.write(key, data)
            if key == part_key:
                _describe_part(copy, layout, data)
            os.environ["XDG_CACHE_HOME"] = str(place / "cache")
            _ask_explorer(copy)
            _ask_library(copy)
            return Outcome.READ

        return read

    return [
        Target("collection", name, (Path(store.root) / key).read_bytes(), damage, with_copy(key))
        for name, key, damage in (
            ("catalogue", layout.catalogue, damage_parquet),
            ("STAC Collection", layout.stac_collection, damage_json),
            ("description of the table", layout.table, damage_json),
            ("rows of the table", part_key, damage_parquet),
            ("description of the index", layout.vector_index_info, damage_json),
            ("mean vectors", layout.scene_means, damage_parquet),
        )
    ]


def _describe_part(store: ObjectStore, layout: CollectionLayout, data: bytes) -> None:
    """Write size and digest of a damaged part into the description of the table, as an attacker would."""
    description = json.loads(store.read(layout.table) or b"")
    description["parts"][0] |= {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    store.write(layout.table, json.dumps(description).encode())


def _ask_library(store: ObjectStore) -> None:
    """Use the collection in each way of the library. Raise the first of its errors."""
    refused: list[RasterEmbedError] = []

    def attempt(work: Callable[[], object]) -> None:
        try:
            work()
        except RasterEmbedError as error:
            refused.append(error)

    def search() -> None:
        with CollectionSearcher(store, _ID) as searcher:
            searcher.ask(Query(lonlat=(24.452, 60.588)), Where(pick="latest", since=date(2020, 1, 1)), 3)

    for work in (
        lambda: Collection.open(store, _ID).catalogue.extent(),
        lambda: list(Collection.open(store, _ID).catalogue.rows()),
        search,
        lambda: list(Collection.open(store, _ID).vectors()),
        lambda: check_collection(store, _ID, dry_run=True),
    ):
        attempt(work)
    several = [str(error) for error in refused if "\n" in str(error)]
    assert not several, several
    if refused:
        raise refused[0]


class _Errors(logging.Handler):
    """Keeps the exceptions that the service logs: those that it did not expect."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[BaseException] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the exception of a line."""
        if record.exc_info and record.exc_info[1] is not None:
            self.found.append(record.exc_info[1])


def _ask_explorer(store: ObjectStore) -> None:
    """Ask the explorer everything about the collection. The answers are JSON, pictures or problems in one line.

    Raises:
        BaseException: an exception that the service did not expect.
    """
    logging.disable(logging.NOTSET)
    log, errors = logging.getLogger("uvicorn.error"), _Errors()
    log.addHandler(errors)
    log.propagate = False
    app = create_app(ExplorerSettings.read(store=store, device="cpu"))
    with TestClient(app, base_url="http://127.0.0.1", raise_server_exceptions=False) as service:
        (card,) = service.get("/api/store").raise_for_status().json()["collections"]
        assert card["id"] == _ID, card
        answers = [service.get(path) for path in _GETS]
        answers += [service.post(f"{_VIEW}/{path}", json=body) for path, body in _POSTS]
    if errors.found:
        raise errors.found[0]
    for answer in answers:
        kind = answer.headers.get("content-type", "")
        assert answer.status_code < 500 or answer.status_code in (502, 503), answer.text
        assert kind.startswith(("application/", "image/")), kind
        if answer.status_code >= 400:
            assert kind == "application/problem+json", kind
            assert "\n" not in answer.json()["detail"], answer.text
