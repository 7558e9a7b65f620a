"""The service of searches gives its clients the answers of the library."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import numpy as np
import pytest

from rasterembed.model.choice import Dinov3
from rasterembed.search.query import Query
from rasterembed.search.searcher import Searcher
from rasterembed.store.object_store import ObjectStore
from tests.conftest import PROJECT
from tests.support.http import request
from tests.support.servers import HOST, ServerProcess, free_port
from tests.support.vectors import blank_raster, checkpoint, write_dataset

pytestmark = pytest.mark.slow

ROWS, COLS, DIMENSIONS = 6, 8, 16


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> ObjectStore:
    folder = tmp_path_factory.mktemp("service")
    store = ObjectStore(root=str(folder / "store"))
    model = Dinov3(model=str(checkpoint(folder / "model", DIMENSIONS)), device="cpu")
    vectors = np.random.default_rng(6).standard_normal((ROWS * COLS, DIMENSIONS)).astype(np.float32)
    write_dataset(store, "scene", blank_raster(folder / "scene.tif", ROWS, COLS), model, vectors)
    return store


@pytest.fixture(scope="module")
def address(store: ObjectStore, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    port, log = free_port(), tmp_path_factory.mktemp("log") / "service.log"
    command = [sys.executable, "-m", "uvicorn", "examples.search_service:app", "--app-dir", str(PROJECT)]
    command += ["--workers", "2", "--host", HOST, "--port", str(port)]
    service = ServerProcess(command, log, os.environ | {"ROOT": store.root, "DATASETS": "scene"})
    try:
        while log.read_text().count("Application startup complete") < 2:
            service.check()
            time.sleep(0.05)
        yield f"http://{HOST}:{port}"
    finally:
        service.end()


def test_ten_clients_at_once_get_the_answers_of_the_library(store: ObjectStore, address: str) -> None:
    tiles = [f"r{row:06}_c{col:06}" for row in range(ROWS) for col in range(COLS)]
    with ThreadPoolExecutor(10) as clients:
        answers = list(clients.map(lambda tile: request("GET", f"{address}/similar/{tile}?k=5").json(), tiles))
    with Searcher(store, ["scene"]) as searcher:
        for tile, answer in zip(tiles, answers, strict=True):
            hits = searcher.ask(Query(tile=tile), k=5).hits
            assert list(answer.items()) == [(f"scene/{hit.tile_id}", hit.distance) for hit in hits]


def test_an_unknown_tile_is_refused_with_the_text_of_the_library(address: str) -> None:
    answer = request("GET", f"{address}/similar/r000099_c000000")
    assert answer.status_code == httpx.codes.UNPROCESSABLE_ENTITY
    assert "r000099_c000000" in answer.json()["detail"]
