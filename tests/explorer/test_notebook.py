"""`explore` of a dataset and of a collection: a service in this process, for one person, until it is closed."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from html import unescape
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import nbformat
import pytest
from nbclient import NotebookClient

from rasterembed.collection.collection import Collection
from rasterembed.collection_upkeep import rebuild_collection
from rasterembed.dataset.dataset import Dataset
from rasterembed.errors import UsageError
from rasterembed.explorer import single_use
from rasterembed.explorer.notebook import NotebookExplorer
from rasterembed.explorer.single_use import SingleUseCodes
from tests.support.http import patient_client, request
from tests.support.servers import free_port
from tests.support.vectors import write_town
from tests.support.waiting import wait_for

PROJECT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Write a dataset and a collection of it."""
    dataset = write_town(tmp_path_factory.mktemp("notebook"))
    rebuild_collection(dataset.store, "towns", datasets=["town"])
    return dataset


@pytest.fixture(scope="module")
def explorer(dataset: Dataset) -> Iterator[NotebookExplorer]:
    """Run the explorer of the dataset."""
    with dataset.explore() as explorer:
        yield explorer


def address(explorer: NotebookExplorer) -> str:
    """Return the address of the service without a code."""
    parts = urlsplit(explorer.url)
    return f"{parts.scheme}://{parts.netloc}"


def addresses_in(html: str) -> list[str]:
    return [unescape(found) for found in re.findall(r'(?:src|href)="([^"]*)"', html)]


def test_an_address_signs_one_browser_in_once(explorer: NotebookExplorer) -> None:
    url, base = explorer.url, address(explorer)
    with patient_client() as browser:
        entered = browser.get(url)
        assert (entered.status_code, entered.headers["location"]) == (303, "./?view=datasets/town")
        assert browser.get(f"{base}/api/store").status_code == 200
        # The notebook is opened again: its frame has the same address.
        assert browser.get(url).status_code == 303
    other = request("GET", url)
    assert other.status_code == 401
    assert "Run the cell of the notebook again" in other.text
    assert "set-cookie" not in other.headers
    assert request("GET", f"{base}/api/store").status_code == 401


def test_a_frame_may_be_in_pages_of_this_machine(explorer: NotebookExplorer) -> None:
    entered = request("GET", explorer.url)
    policy = entered.headers["content-security-policy"]
    assert policy.endswith("frame-ancestors 'self' http://localhost:* http://127.0.0.1:*")
    strict, framed = entered.headers.get_list("set-cookie")
    assert "SameSite=strict" in strict
    assert "Secure" not in strict
    for attribute in ("HttpOnly", "SameSite=None", "Secure", "Partitioned"):
        assert attribute in framed
    value = framed.partition(";")[0]
    assert request("GET", f"{address(explorer)}/api/store", headers={"Cookie": value}).status_code == 200


def test_pages_of_other_origins_cannot_send_with_the_cookie_of_frames(explorer: NotebookExplorer) -> None:
    cookie = request("GET", explorer.url).headers.get_list("set-cookie")[1].partition(";")[0]
    headers = {"Cookie": cookie, "Origin": "http://localhost:8888"}
    body = {"query": {"tile": "r000000_c000000"}}
    url = f"{address(explorer)}/api/datasets/town/search"
    assert request("POST", url, json=body, headers=headers).status_code == 403
    headers["Origin"] = address(explorer)
    assert len(request("POST", url, json=body, headers=headers).json()["features"]) == 12


def test_the_file_of_a_notebook_holds_no_secret_that_still_works(explorer: NotebookExplorer) -> None:
    html = explorer._repr_html_()
    frame, link = addresses_in(html)
    assert frame.startswith(address(explorer))
    assert frame != link
    token = explorer._settings.token
    assert token is not None
    assert token.get_secret_value() not in html
    assert "code=" not in repr(explorer)
    for url in (frame, link):
        assert request("GET", url).status_code == 303
        assert request("GET", url).status_code == 401


def test_a_collection_is_shown_first_if_it_explores(dataset: Dataset) -> None:
    with Collection.open(dataset.store, "towns").explore(height=300) as explorer:
        assert request("GET", explorer.url).headers["location"] == "./?view=collections/towns"
        assert 'height="300"' in explorer._repr_html_()


def test_nothing_listens_after_close(dataset: Dataset) -> None:
    before = set(threading.enumerate())
    explorer = dataset.explore()
    base, url = address(explorer), explorer.url
    with patient_client() as browser:
        browser.get(url)
        assert browser.get(f"{base}/api/store").status_code == 200
    explorer.close()
    explorer.close()
    with pytest.raises(httpx.ConnectError):
        request("GET", f"{base}/health")
    # AnyIO tells its threads to end, and does not wait for them.
    wait_for(lambda: set(threading.enumerate()) <= before, "the end of the service's threads")
    assert repr(explorer) == "Explorer of datasets/town, closed"
    assert explorer._repr_html_() == "<p>Explorer of datasets/town, closed</p>"
    with pytest.raises(UsageError, match="call `explore` again"):
        _ = explorer.url
    # The port is free again.
    with dataset.explore(port=urlsplit(base).port or 0) as again:
        assert address(again) == base


def test_a_forked_child_does_not_listen_on(dataset: Dataset) -> None:
    explorer = dataset.explore()
    base = address(explorer)
    child = os.fork()
    if child == 0:  # As a worker of a pool that a cell starts.
        while True:
            signal.pause()
    try:
        assert request("GET", f"{base}/health").status_code == 200
        explorer.close()
        with pytest.raises(httpx.ConnectError):
            request("GET", f"{base}/health")
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"height": 0}, "height is 0"),
    ({"height": True}, "height is True"),
    ({"port": -1}, "port"),
    ({"port": 70_000}, "port"),
    ({"frame_origins": ["http://localhost:*; script-src *"]}, "is no origin"),
    ({"frame_origins": ["*"]}, "is no origin"),
    ({"frame_origins": ["https://hub.example/lab"]}, "is no origin"),
    (
        {"frame_origins": "https://hub.example"},
        r"the frame_origins are a list: give \['https://hub.example'\], not 'https",
    ),
]


@pytest.mark.parametrize(("values", "problem"), WRONG)
def test_a_wrong_parameter_is_an_error_of_one_line(dataset: Dataset, values: dict[str, Any], problem: str) -> None:
    before = threading.active_count()
    with pytest.raises(UsageError, match=problem):
        dataset.explore(**values)
    assert threading.active_count() == before


def test_a_port_that_is_taken_is_an_error_of_one_line(dataset: Dataset) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(UsageError, match="choose another `port`"):
            dataset.explore(port=taken.getsockname()[1])


def test_a_cell_with_a_port_can_be_run_again(dataset: Dataset) -> None:
    port = free_port()
    first = dataset.explore(port=port)
    with dataset.explore(port=port) as second:
        assert request("GET", second.url, follow_redirects=False).status_code == 303
        with pytest.raises(UsageError, match="was closed"):
            _ = first.url


def test_codes_expire_and_are_bounded_in_number(monkeypatch: pytest.MonkeyPatch) -> None:
    codes = SingleUseCodes()
    made = [codes.new() for _ in range(100)]
    assert [codes.take(code) for code in made].count(True) == single_use._MOST
    assert not codes.take("")
    assert not codes.take("\ud800")
    late = codes.new()
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + 601)
    assert not codes.take(late)


SCRIPT = """
import sys, httpx
from rasterembed import Dataset, ObjectStore
explorer = Dataset.open(ObjectStore(root=sys.argv[1]), "town").explore()
with httpx.Client(timeout=60) as browser:
    browser.get(explorer.url)
    base = explorer.url.partition("/enter")[0]
    assert browser.get(base + "/api/datasets/town").status_code == 200
print(base)
"""


@pytest.mark.slow
@pytest.mark.parametrize("end", ["", "sys.exit(3)", "raise ValueError('a cell')"])
def test_the_service_ends_with_the_process(dataset: Dataset, end: str) -> None:
    command = [sys.executable, "-c", SCRIPT + end, dataset.store.root]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, timeout=240)
    base = done.stdout.strip()
    assert base.startswith("http://127.0.0.1:"), done.stderr
    with pytest.raises(httpx.ConnectError):
        request("GET", f"{base}/health")


@pytest.mark.slow
def test_a_kernel_shows_the_frame_and_ends_the_service_with_itself(dataset: Dataset) -> None:
    notebook = nbformat.v4.new_notebook(
        cells=[
            nbformat.v4.new_code_cell(
                "from rasterembed import Dataset, ObjectStore\n"
                f"explorer = Dataset.open(ObjectStore(root={dataset.store.root!r}), 'town').explore()\n"
                "explorer"
            ),
            nbformat.v4.new_code_cell("import httpx\nprint(httpx.get(explorer.url, timeout=60).status_code)"),
        ]
    )
    done = NotebookClient(notebook, timeout=240, resources={"metadata": {"path": str(PROJECT)}}).execute()
    shown, printed = (cell["outputs"][0] for cell in done["cells"])
    frame, _ = addresses_in(shown["data"]["text/html"])
    assert "code=" not in shown["data"]["text/plain"]
    assert printed["text"] == "303\n"
    with pytest.raises(httpx.ConnectError):
        request("GET", frame)
