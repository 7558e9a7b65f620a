"""A collection with a vector index: the answer names the engine, and the memory of the search is counted."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pytest
from pydantic import SecretStr
from starlette.testclient import TestClient

from rasterembed.collection.collection import Collection
from rasterembed.explorer.app import create_app
from rasterembed.explorer.settings import ExplorerSettings
from rasterembed.explorer.views import ViewKind, Views
from rasterembed.search.index.building import build_vector_index
from rasterembed.search.index_options import TableIndexOptions
from rasterembed.search.query import Query, Where
from rasterembed.search.vector_files import VectorFiles
from rasterembed.store.object_store import ObjectStore
from tests.support.servers import S3Server

K = 5

Engine = Literal["flat", "ivf"]


def with_index(store: ObjectStore, folder: Path, engine: Engine) -> ObjectStore:
    """Return a copy of a store in which the collection `survey` has a vector index."""
    copy = ObjectStore(root=str(shutil.copytree(store.root, folder / "store")))
    collection = Collection.open(copy, "survey")
    assert collection.table is not None
    options = TableIndexOptions(index="always", index_engine=engine, index_lists=2 if engine == "ivf" else None)
    build_vector_index(VectorFiles.of_table(collection, collection.table), options)
    return copy


def table_of(store: ObjectStore, *columns: str) -> pa.Table:
    """Return columns of all rows of the collection `survey`."""
    return pa.Table.from_batches(Collection.open(store, "survey").vectors(columns))


@pytest.mark.parametrize("engine", ["flat", "ivf"])
def test_the_answer_names_the_engine_of_the_index(store: ObjectStore, tmp_path: Path, engine: Engine) -> None:
    indexed = with_index(store, tmp_path, engine)
    rows = table_of(indexed, "dataset_id", "tile_id", "embedding")
    vectors = np.stack(rows["embedding"].to_pylist()).astype(np.float64)
    number = int(np.flatnonzero(vectors.any(axis=1))[0])
    name = f"{rows['dataset_id'][number]}/{rows['tile_id'][number]}"
    lengths = np.linalg.norm(vectors, axis=1) * np.linalg.norm(vectors[number])
    cosines = np.divide(vectors @ vectors[number], lengths, out=np.zeros(len(vectors)), where=lengths > 0)
    wanted = np.sort(1 - np.delete(cosines, number))[:K]
    app = create_app(ExplorerSettings.read(store=indexed, device="cpu"))
    with TestClient(app, base_url="http://127.0.0.1") as service:
        (card,) = (one for one in service.get("/api/store").json()["collections"] if one["id"] == "survey")
        assert card["index"] == engine
        answer = service.post("/api/collections/survey/search", json={"query": {"tile": name}, "k": K}).json()
    assert [(one["dataset_id"], one["name"]) for one in answer["engines"]] == [("survey", engine)]
    distances = [feature["properties"]["distance"] for feature in answer["features"]]
    np.testing.assert_allclose(distances, wanted, rtol=0, atol=1e-6)


def test_a_view_counts_the_memory_of_its_searcher(store: ObjectStore, tmp_path: Path) -> None:
    indexed = with_index(store, tmp_path, "flat")
    rows = table_of(indexed, "valid_fraction")
    passing = int(np.count_nonzero(rows["valid_fraction"].to_numpy() >= np.float32(0.5)))
    assert passing
    views = Views(indexed)
    with views.use(ViewKind.COLLECTIONS, "survey") as view:
        searcher = view.searcher
        before = view.nbytes
        assert before >= Collection.open(indexed, "survey").catalogue.table.nbytes
        searcher.ask(Query(lonlat=(24.452, 60.588)), Where(min_valid_fraction=0.5), 3)
        # One bit for each row, and eight bytes for each row that passes.
        assert view.nbytes - before >= len(rows) // 8 + 8 * passing
    views.close()


def test_a_cache_folder_that_cannot_be_written_leaves_the_exact_scan(
    store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moto: S3Server, bucket: str
) -> None:
    indexed = with_index(store, tmp_path, "flat")
    moto.create_bucket(bucket)
    remote = ObjectStore(
        root=f"s3://{bucket}/maps",
        endpoint_url=moto.endpoint_url,
        access_key=SecretStr(moto.access_key),
        secret_key=SecretStr(moto.secret_key),
    )
    for path in Path(indexed.root).rglob("*"):
        if path.is_file():
            remote.write(str(path.relative_to(indexed.root)), path.read_bytes())
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    app = create_app(ExplorerSettings.read(store=remote, device="cpu"))
    with TestClient(app, base_url="http://127.0.0.1") as service:
        question = {"query": {"lonlat": [24.452, 60.588]}, "k": 3}
        answer = service.post("/api/collections/survey/search", json=question).raise_for_status().json()
        assert len(answer["features"]) == 3
        (engine,) = answer["engines"]
        assert engine["name"] == "scan"
        assert "<cache folder>" in engine["why"]
        assert str(tmp_path) not in str(answer)
