"""The command `rasterembed explore` as a process: who reaches it, how it ends, and clients that mean harm."""

from __future__ import annotations

import io
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
import pytest
from PIL import Image

from rasterembed.explorer.page_files import PageFiles
from rasterembed.model.choice import Dinov3
from rasterembed.store.object_store import ObjectStore
from tests.support.explorer import Explorer
from tests.support.http import request
from tests.support.servers import HOST
from tests.support.silent_server import silent_server
from tests.support.vectors import blank_raster, checkpoint, write_dataset

pytestmark = pytest.mark.slow

COMMAND = [str(Path(sys.executable).with_name("rasterembed")), "explore"]
TOKEN = "a-token-that-nobody-guesses"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a store with one dataset."""
    folder = tmp_path_factory.mktemp("served")
    model = Dinov3(model=str(checkpoint(folder / "model", 8)))
    vectors = np.random.default_rng(0).standard_normal((18, 8)).astype(np.float32)
    store = ObjectStore(root=str(folder / "store"))
    write_dataset(store, "town", blank_raster(folder / "town.tif", 3, 6), model, vectors)
    return folder / "store"


@pytest.fixture(scope="module")
def running(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Explorer]:
    """Run the command with a token."""
    folder = tmp_path_factory.mktemp("running")
    environment = {"EXPLORER_TOKEN": TOKEN, "XDG_CACHE_HOME": str(folder / "cache")}
    with Explorer(str(root), folder, environment=environment, token=TOKEN) as explorer:
        yield explorer


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_command_prints_its_address_and_ends_without_an_error(
    root: Path, tmp_path: Path, number: signal.Signals
) -> None:
    process = subprocess.Popen(
        [*COMMAND, "--root", str(root), "--port", "0"],
        env=os.environ | {"XDG_CACHE_HOME": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        address = line.split(": ")[1].split(" ")[0]
        assert address.startswith(f"http://{HOST}:")
        answer = request("GET", f"{address}api/store")
        assert answer.status_code == 200
        assert "server" not in answer.headers
        connections = psutil.Process(process.pid).net_connections("tcp")
        assert {each.laddr.ip for each in connections if each.status == "LISTEN"} == {HOST}
    finally:
        process.send_signal(number)
        output, errors = process.communicate(timeout=240)
    # Without Node.js, the page is not built, and the command says so.
    warned = "" if PageFiles().is_built else "warning: the page was not built"
    assert (process.returncode, output, errors[: len(warned)], errors.count("\n")) == (0, "", warned, bool(warned))


def test_the_command_ends_while_the_store_does_not_answer(tmp_path: Path) -> None:
    with silent_server() as silent:
        keys = {"AWS_ENDPOINT_URL": silent.url, "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}
        explorer = Explorer("s3://bucket/maps", tmp_path, environment=keys | {"XDG_CACHE_HOME": str(tmp_path)})
        with explorer, ThreadPoolExecutor(3) as pool:
            paths = ["/api/store", "/api/datasets/town", "/api/datasets/harbour/imagery/0/0/0.webp"]
            answers = [pool.submit(explorer.get, path) for path in paths]
            for _ in paths:
                assert silent.arrived.acquire(timeout=120)
            process = psutil.Process(explorer.pid)
            process.terminate()
            deadline = time.monotonic() + 120  # A request to the store takes six minutes until it fails.
            while process.status() != psutil.STATUS_ZOMBIE:
                assert time.monotonic() < deadline
                time.sleep(0.1)
            assert [answer.result().json()["type"] for answer in answers] == ["store-unavailable"] * 3
        assert "Traceback" not in explorer.log.read_text()


def test_a_restarted_service_knows_its_people(root: Path, tmp_path: Path) -> None:
    explorer = Explorer(str(root), tmp_path, environment={"EXPLORER_TOKEN": TOKEN, "XDG_CACHE_HOME": str(tmp_path)})
    with explorer, httpx.Client(base_url=explorer.url, timeout=30) as client:
        assert client.post("/sign-in", data={"token": TOKEN}).status_code == 303
        before = client.get("/api/datasets/town").raise_for_status().json()
        explorer.stop()
        with pytest.raises(httpx.HTTPError):
            client.get("/health")
        explorer.start()
        assert client.get("/api/datasets/town").raise_for_status().json() == before
    assert "the page asks for the token" in explorer.log.read_text()


def send(explorer: Explorer, head: str) -> socket.socket:
    """Open a connection, and send the head of a request."""
    connection = socket.create_connection((HOST, explorer.port), timeout=30)
    connection.sendall(f"{head}\r\nHost: {HOST}:{explorer.port}\r\n".encode())
    return connection


def test_bodies_without_end_are_cut_off(running: Explorer) -> None:
    memory = psutil.Process(running.pid).memory_info().rss
    for path, kind in (("/api/datasets/town/search", "application/json"), ("/api/datasets/town/images", "image/png")):
        authorised = f"Authorization: Bearer {TOKEN}\r\nContent-Type: {kind}"
        for length in ("Content-Length: 1073741824", "Transfer-Encoding: chunked"):
            chunked = "chunked" in length
            sent = 0
            with send(running, f"POST {path} HTTP/1.1\r\n{authorised}\r\n{length}") as connection:
                connection.sendall(b"\r\n")
                part = b"x" * 2**20
                try:
                    for _ in range(1024):
                        connection.sendall(b"100000\r\n" + part + b"\r\n" if chunked else part)
                        sent += len(part)
                except OSError:
                    pass
            assert sent < 300 * 2**20, (path, length)
    assert psutil.Process(running.pid).memory_info().rss - memory < 100 * 2**20
    assert running.get("/api/datasets/town").status_code == 200


def test_a_body_that_is_a_little_too_large_gets_its_answer(running: Explorer) -> None:
    for body in (b"x" * (22 * 2**20), iter([b"x" * 2**20] * 22)):
        answer = request(
            "POST",
            f"{running.url}/api/datasets/town/images",
            content=body,
            headers={"Authorization": f"Bearer {TOKEN}", "Content-Type": "image/png"},
            timeout=60,
        )
        assert answer.status_code == 413
        assert answer.json()["type"] == "too-large"


def test_clients_that_send_nothing_do_not_stop_others(running: Explorer) -> None:
    held = [send(running, "GET / HTTP/1.1") for _ in range(300)]
    try:
        assert running.get("/api/datasets/town").status_code == 200
    finally:
        for connection in held:
            connection.close()


def test_requests_that_are_no_http_do_not_fill_the_log(running: Explorer) -> None:
    before = len(running.log.read_text())
    for _ in range(100):
        with socket.create_connection((HOST, running.port), timeout=30) as connection:
            connection.sendall(b"no HTTP at all\r\n\r\n")
            assert connection.recv(1000).startswith(b"HTTP/1.1 400 ")
    assert running.get("/health").status_code == 200
    added = running.log.read_text()[before:]
    assert 0 < added.count("Invalid HTTP request received") <= 10
    assert len(added) < 5_000


def test_a_home_that_cannot_be_written_stops_only_uploads(root: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()  # No folder can be made in it, not even by root.
    home = {"HOME": str(tmp_path / "file"), "XDG_CACHE_HOME": str(tmp_path / "file/cache")}
    with Explorer(str(root), tmp_path / "service", environment=home) as explorer:
        assert explorer.get("/api/store").json()["datasets"][0]["id"] == "town"
        view = "/api/datasets/town"
        for path in (view, f"{view}/tiles/0/0/0.png?colour=pca", f"{view}/imagery/0/0/0.webp"):
            assert explorer.get(path).status_code == 200, path
        tile = {"query": {"tile": "town/r000001_c000002"}, "k": 3}
        assert len(explorer.post(f"{view}/search", tile).json()["features"]) == 3
        png = io.BytesIO()
        Image.new("RGB", (16, 16)).save(png, "PNG")
        answer = request("POST", f"{explorer.url}{view}/images", content=png.getvalue(), timeout=60)
        assert (answer.status_code, answer.json()["type"]) == (507, "no-space")
        assert "XDG_CACHE_HOME" in answer.json()["detail"]
        assert str(tmp_path) not in answer.text
        assert "Traceback" not in explorer.log.read_text()


@pytest.mark.parametrize(
    "line",
    [
        "GET /assets/../../views.py HTTP/1.1",
        "GET /assets/..%2f..%2fviews.py HTTP/1.1",
        "GET //etc/passwd HTTP/1.1",
        "GET /api/datasets/../../../etc/passwd HTTP/1.1",
        "GET http://169.254.169.254/latest/meta-data HTTP/1.1",
        "GET /api/datasets/town/thumbnails/town/..%2f..%2fx.webp HTTP/1.1",
        "CONNECT example.com:443 HTTP/1.1",
        "\x00\x01 / HTTP/1.1",
    ],
)
def test_raw_requests_for_other_things_are_refused(running: Explorer, line: str) -> None:
    with send(running, line) as connection:
        connection.sendall(f"Authorization: Bearer {TOKEN}\r\nConnection: close\r\n\r\n".encode())
        answer = b""
        while part := connection.recv(65_536):
            answer += part
    status = int(answer.split(b" ")[1])
    assert 400 <= status < 500, answer
    assert b"root:" not in answer
    assert b"import " not in answer


KNOWN = {"kind": "datasets", "id": "town", "dataset_id": "town", "tile_id": "r000001_c000002", "name": "pca.png"}
"""Parts of addresses that exist. With random ones, almost every answer would be the status 404."""


def schema_with_known_names(explorer: Explorer, file: Path) -> Path:
    """Write the OpenAPI of the service with `KNOWN` in its paths.

    Bounds of long lists are left out, because schemathesis would generate thousands of corners of a polygon for each
    test. `tests/explorer/asking` tests these bounds.
    """
    schema = explorer.get("/api/openapi.json").raise_for_status().json()
    for operation in (operation for path in schema["paths"].values() for operation in path.values()):
        for parameter in operation.get("parameters", []):
            if parameter["in"] == "path" and parameter["name"] in KNOWN:
                parameter["schema"] = {"type": "string", "enum": [KNOWN[parameter["name"]]]}

    def shorten(value: Any) -> None:
        if isinstance(value, dict):
            if value.get("maxItems", 0) > 20:
                del value["maxItems"]
            for inner in value.values():
                shorten(inner)
        elif isinstance(value, list):
            for inner in value:
                shorten(inner)

    shorten(schema)
    file.write_text(json.dumps(schema))
    return file


def test_schemathesis_finds_nothing(running: Explorer, tmp_path: Path) -> None:
    schema = schema_with_known_names(running, tmp_path / "openapi.json")
    command = [str(Path(sys.executable).with_name("schemathesis")), "run", str(schema), "--url", running.url]
    # Some rules cannot be written as a JSON schema, such as `since` before `until`. They answer with status 422.
    options = ["--checks", "all", "--exclude-checks", "positive_data_acceptance", "--phases", "coverage,fuzzing"]
    options += ["--max-examples", "10", "--seed", "1", "--no-color"]
    options += ["--request-retries", "2", "--request-timeout", "60"]
    done = subprocess.run(
        [*command, *options, "--header", f"Authorization: Bearer {TOKEN}"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=550,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout}{done.stderr}\n{running.log.read_text()}"
    assert " passed" in done.stdout
