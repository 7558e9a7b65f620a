"""A store that does not answer: few requests wait for it, and everything that needs no store is answered at once."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest
from pydantic import SecretStr
from starlette.testclient import TestClient

from rasterembed.explorer.app import create_app
from rasterembed.explorer.settings import ExplorerSettings, Limits
from rasterembed.store.object_store import ObjectStore
from tests.support.silent_server import silent_server

TOKEN = "a-token-that-nobody-guesses"
QUESTIONS = 3


def test_few_requests_wait_for_a_silent_store_and_the_others_are_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rasterembed.store.storage.RETRY_DELAYS_S", ())
    monkeypatch.setattr("rasterembed.store.s3.RETRY_DELAYS_S", (), raising=False)
    with ExitStack() as stack:
        server = stack.enter_context(silent_server())
        store = ObjectStore(
            root="s3://bucket",
            endpoint_url=server.url,
            access_key=SecretStr("a"),
            secret_key=SecretStr("b"),
        )
        limits = Limits(store_questions=QUESTIONS, wait_s=0.05, read_s=60)
        app = create_app(ExplorerSettings.read(store=store, token=TOKEN, limits=limits))
        service = stack.enter_context(TestClient(app, base_url="http://127.0.0.1", follow_redirects=False))
        service.headers["Authorization"] = f"Bearer {TOKEN}"
        pool = stack.enter_context(ThreadPoolExecutor(QUESTIONS))
        waiting = [pool.submit(service.get, f"/api/datasets/town-{number}") for number in range(QUESTIONS)]
        for _ in waiting:
            assert server.arrived.acquire(timeout=60)
        view = "/api/collections/survey"
        for path in (
            "/api/store",
            "/api/progress",
            view,
            f"{view}/tiles/0/0/0.png",
            f"{view}/legend?colour=date",
            f"{view}/footprints?bbox=0,0,1,1",
            f"{view}/at?lon=0&lat=0",
            f"{view}/tile/a/b",
            f"{view}/qa/pca.png",
            f"{view}/imagery/0/0/0.webp",
            f"{view}/thumbnails/a/b.webp",
        ):
            answer = service.get(path)
            assert (answer.status_code, answer.json()["type"]) == (503, "busy"), path
            assert answer.headers["Retry-After"]
        assert service.post(f"{view}/search", json={"query": {"tile": "a/b"}}).json()["type"] == "busy"
        # What needs no store is answered as if nothing were wrong.
        assert service.get("/health").json() == {"status": "ok"}
        assert service.get("/sign-in").status_code == 200
        assert service.post("/sign-in", data={"token": TOKEN}).status_code == 303
        assert service.get("/api/openapi.json").status_code == 200
        assert service.get("/").status_code in (200, 503)  # 503 if the page was not built.
        assert not any(one.done() for one in waiting)
        server.close()
        for one in waiting:
            assert one.result(60).json()["type"] == "store-unavailable"
        # The threads are free again: the store is asked, and refuses the connection.
        assert service.get("/api/store").json()["type"] == "store-unavailable"


def test_a_folder_that_hangs_does_not_keep_the_service_from_answering(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[ObjectStore] = []
    hangs, go_on = threading.Event(), threading.Event()

    def folder_is_missing(store: ObjectStore) -> bool:
        calls.append(store)
        if len(calls) == 2:  # The first one asks why a dataset is not found, the second one writes the problem.
            hangs.set()
            assert go_on.wait(60)
        return False

    monkeypatch.setattr(ObjectStore, "folder_is_missing", property(folder_is_missing))
    app = create_app(ExplorerSettings.read(store=ObjectStore(root=str(tmp_path))))
    with TestClient(app, base_url="http://127.0.0.1") as service, ThreadPoolExecutor(2) as pool:
        lost = pool.submit(service.get, "/api/datasets/none")
        assert hangs.wait(60)
        health = pool.submit(service.get, "/health")
        try:
            assert health.result(50).json() == {"status": "ok"}
        finally:
            go_on.set()
        assert lost.result(60).json()["type"] == "unknown-view"
