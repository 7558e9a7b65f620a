"""Forged files of a store, and a store that does not answer: each is one clear problem, and the page still comes."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import uvicorn
from starlette.testclient import TestClient

from rasterembed.dataset.plan import fingerprint_of
from rasterembed.explorer import cards as cards_module
from rasterembed.explorer import views as views_module
from rasterembed.explorer.app import create_app
from rasterembed.explorer.serving import listen, server_config
from rasterembed.explorer.settings import ExplorerSettings, Limits
from rasterembed.model.choice import Dinov3
from rasterembed.store.layout import DatasetLayout
from rasterembed.store.object_store import ObjectStore
from rasterembed.store.storage import ObjectInfo
from tests.support.vectors import blank_raster, checkpoint, write_dataset
from tests.support.waiting import wait_for

LAYOUT = DatasetLayout("town")
TILE = "town/r000001_c000002"


@dataclass(frozen=True)
class Forger:
    """A store with the dataset `town`, somebody who changes its files, and the service over it."""

    root: Path
    plan: dict[str, Any]
    manifest: dict[str, Any]
    service: TestClient

    def write_plan(self, **profile: Any) -> None:
        """Write a plan with other values in its profile, and a manifest that fits it."""
        plan = self.plan | {"profile": self.plan["profile"] | profile}
        # The fingerprint covers no value that the tests forge.
        assert fingerprint_of(self.manifest["configuration"]) == self.manifest["fingerprint"]
        (self.root / LAYOUT.plan(self.manifest["fingerprint"])).write_text(json.dumps(plan))
        # A manifest that was written again is a new version of the dataset.
        (self.root / LAYOUT.manifest).write_text(json.dumps(self.manifest))


@pytest.fixture(scope="module")
def forger(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forger]:
    """Write the dataset, and run the service. Every request looks at the store again."""
    folder = tmp_path_factory.mktemp("forged")
    store = ObjectStore(root=str(folder / "store"))
    raster = blank_raster(folder / "town.tif", 3, 6, when="2024:07:03 09:41:00")
    vectors = np.random.default_rng(0).standard_normal((18, 8)).astype(np.float32)
    manifest = write_dataset(store, "town", raster, Dinov3(model=str(checkpoint(folder / "model", 8))), vectors)
    root = Path(store.root)
    plan = json.loads((root / LAYOUT.plan(manifest.fingerprint)).read_text())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(views_module, "_FRESH_S", 0.0)
        patch.setattr(cards_module, "_FRESH_S", 0.0)
        patch.setattr(cards_module, "_SLOWER", 0.0)
        app = create_app(ExplorerSettings.read(store=store, device="cpu"))
        with TestClient(app, base_url="http://127.0.0.1", raise_server_exceptions=False) as service:
            yield Forger(root, plan, json.loads(manifest.model_dump_json()), service)


GETS = [
    "",
    "/imagery/12/2326/1166.webp",
    "/tiles/12/2326/1166.png?colour=date",
    "/legend?colour=date",
    "/footprints?bbox=-180,-90,180,90",
    "/at?lon=24.46&lat=60.588",
    "/tile/town/r000001_c000002",
    "/thumbnails/town/r000001_c000002.webp",
]


@pytest.mark.parametrize(
    ("profile", "reason"),
    [
        ({"crs_wkt": "EPSG:99999 <script>"}, "profile.crs_wkt: its CRS is not understood"),
        ({"crs_wkt": 'LOCAL_CS["hall",UNIT["metre",1]]'}, "is not tied to Earth"),
        ({"dtype": "0001-01-01"}, "profile.dtype: it is no type of pixels"),
        ({"transform": [0, 0, 360_000, 0, -10, 6_720_000]}, "profile.transform: all pixels lie on one line"),
        ({"acquired": "9999-12-31T23:59:59-14:00"}, "profile.acquired: the time has no zone, or is impossible"),
        ({"acquired": "0001-01-01T00:00:00+14:00"}, "profile.acquired: the time has no zone, or is impossible"),
        ({"acquired": "2024-07-03T09:41:00"}, "profile.acquired: the time has no zone, or is impossible"),
    ],
)
def test_a_forged_plan_is_one_clear_problem_everywhere(forger: Forger, profile: dict[str, Any], reason: str) -> None:
    forger.write_plan(**profile)
    (card,) = forger.service.get("/api/store").json()["datasets"]
    assert card["state"] == "unreadable"
    assert reason in card["problem"]
    for path in GETS:
        answer = forger.service.get(f"/api/datasets/town{path}")
        assert (answer.status_code, answer.json()["type"]) == (409, "not-usable"), path
        assert reason in answer.json()["detail"], path
    for path in ("search", "similarity"):
        answer = forger.service.post(f"/api/datasets/town/{path}", json={"query": {"tile": TILE}})
        assert answer.status_code in (200, 409), path


class Silence:
    """A store that takes every question and answers none."""

    def __init__(self) -> None:
        self.over = threading.Event()

    def describe_object(self, store: ObjectStore, key: str) -> ObjectInfo:
        assert self.over.wait(60)
        return ObjectInfo(size=1, version="1", modified=0.0)


@pytest.fixture
def silence(monkeypatch: pytest.MonkeyPatch) -> Iterator[Silence]:
    """Let the store be silent until the end of the test."""
    silent = Silence()
    monkeypatch.setattr(ObjectStore, "describe_object", lambda store, key: silent.describe_object(store, key))
    yield silent
    silent.over.set()


def answer_in_time(service: TestClient, path: str) -> httpx.Response:
    """Return the answer of the service itself. A busy machine may need several attempts to keep to a short limit."""

    def ask() -> httpx.Response | None:
        answer: httpx.Response = service.get(path)
        return None if "no answer within" in answer.text else answer

    found: httpx.Response = wait_for(ask, f"the answer to {path}")
    return found


def test_a_store_that_never_answers_is_a_clear_problem_and_the_page_still_comes(
    tmp_path: Path, silence: Silence
) -> None:
    settings = ExplorerSettings.read(store=ObjectStore(root=str(tmp_path)), limits=Limits(read_s=0.05, ask_s=0.05))
    with TestClient(create_app(settings), base_url="http://127.0.0.1") as service:
        for number in range(45):  # The service has 40 threads.
            answer = service.get(f"/api/datasets/town{number}")
            assert (answer.status_code, answer.json()["type"]) == (503, "store-unavailable")
            assert "no answer within 0.05 s" in answer.json()["detail"]
        answer = service.post("/api/datasets/town/search", json={"query": {"tile": TILE}})
        assert (answer.status_code, answer.json()["type"]) == (503, "store-unavailable")
        assert answer_in_time(service, "/health").status_code == 200
        page = answer_in_time(service, "/")
        assert page.status_code == 200 or page.json()["type"] == "page-missing"
        assert answer_in_time(service, "/assets/none-00000000.js").json()["type"] == "not-found"
        silence.over.set()


def test_work_whose_answer_came_too_late_still_ends(tmp_path: Path, silence: Silence) -> None:
    settings = ExplorerSettings.read(store=ObjectStore(root=str(tmp_path)), limits=Limits(read_s=0.5))
    with TestClient(create_app(settings), base_url="http://127.0.0.1") as service:
        assert service.get("/api/datasets/town").status_code == 503
        silence.over.set()
        # The folder has no manifest, so the view cannot be opened.
        assert answer_in_time(service, "/api/datasets/town").status_code == 404


def test_an_upload_that_finds_no_place_gets_its_answer_and_no_broken_connection(tmp_path: Path) -> None:
    limits = Limits(uploads=1, wait_s=0.2)
    listener = listen("127.0.0.1", 0)
    port = listener.getsockname()[1]
    settings = ExplorerSettings.read(store=ObjectStore(root=str(tmp_path)), port=port, limits=limits)
    server = uvicorn.Server(server_config(settings))
    thread = threading.Thread(target=lambda: asyncio.run(server.serve([listener])))
    thread.start()
    # A proxy may ask that the connection is closed after the answer.
    head = "POST /api/datasets/town/images HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
    start = f"{head}Content-Length: {15 * 2**20}\r\n\r\n".encode()
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=120) as first:
            # It takes the only place, and sends nothing more. The service asks for the body when it has the place.
            first.sendall(start.replace(b"\r\n\r\n", b"\r\nExpect: 100-continue\r\n\r\n"))
            assert first.recv(100).startswith(b"HTTP/1.1 100 ")
            with socket.create_connection(("127.0.0.1", port), timeout=120) as second:
                # It reads the answer only after it has sent everything.
                second.sendall(start + bytes(15 * 2**20))
                assert second.recv(100).startswith(b"HTTP/1.1 503 ")
    finally:
        server.should_exit = True
        thread.join(120)
        listener.close()
