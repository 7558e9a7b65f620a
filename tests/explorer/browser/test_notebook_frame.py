"""The page works in a frame of a page of another origin, as in a notebook. The browser is real."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Page

from rasterembed.dataset.dataset import Dataset
from rasterembed.explorer.notebook import NOTEBOOK_ORIGINS, NotebookExplorer
from tests.support.vectors import write_town

pytestmark = pytest.mark.browser


@contextmanager
def notebook_page(html: str) -> Iterator[str]:
    """Serve a page with the output of a cell, as a notebook server does. Yield its port."""

    class Notebook(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.end_headers()
            self.wfile.write(f"<!doctype html><title>notebook</title><body>{html}</body>".encode())

        def log_message(self, format: str, *args: object) -> None:
            """Print nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Notebook) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield str(server.server_address[1])
        finally:
            server.shutdown()


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Write a dataset. Its service runs in this process."""
    return write_town(tmp_path_factory.mktemp("frame"))


def _status(page: Page, statuses: dict[str, int], path: str) -> int:
    """Return the status of the answer from an address, as soon as the browser has reported it."""
    for _ in range(300):
        if path in statuses:
            break
        page.wait_for_timeout(100)
    return statuses[path]


def test_the_page_works_in_a_frame_and_in_a_tab(browser: Browser, dataset: Dataset) -> None:
    with dataset.explore() as explorer, notebook_page(explorer._repr_html_()) as port:
        own = urlsplit(explorer.url).netloc
        for host in ("localhost", "127.0.0.1"):
            context = browser.new_context()
            statuses: dict[str, int] = {}
            context.on(
                "response", lambda answer, kept=statuses: kept.update({urlsplit(answer.url).path: answer.status})
            )
            page = context.new_page()
            page.goto(f"http://{host}:{port}/")
            if host == "localhost":
                frame = page.frame_locator("iframe")
                frame.get_by_text("town").first.wait_for()
                page.reload()  # The address of the frame was used, but this browser is signed in.
                frame.get_by_text("town").first.wait_for()
                # A question is sent from the frame with its cookie.
                frame.get_by_placeholder("Tile id").fill("r000001_c000001")
                frame.get_by_placeholder("Tile id").press("Enter")
                frame.get_by_text("15 similar tiles").wait_for()
                assert _status(page, statuses, "/api/datasets/town/search") == 200
            else:
                # The code of the frame was used by the other browser. The link has a code for this one.
                page.frame_locator("iframe").get_by_text("was used already").wait_for()
                with context.expect_page() as opened:
                    page.get_by_role("link", name="Open in a browser tab").click()
                opened.value.get_by_text("town").first.wait_for()
                assert urlsplit(opened.value.url).netloc == own
                assert "code=" not in opened.value.url
            assert _status(page, statuses, "/api/datasets/town") == 200
            context.close()


def test_a_page_of_another_origin_cannot_show_the_frame(browser: Browser, dataset: Dataset) -> None:
    explorer: NotebookExplorer = dataset.explore(
        frame_origins=[origin.replace("*", "1") for origin in NOTEBOOK_ORIGINS]
    )
    with explorer, notebook_page(explorer._repr_html_()) as port:
        page = browser.new_page()
        with page.expect_console_message(lambda message: "frame-ancestors" in message.text):
            page.goto(f"http://localhost:{port}/")
        for _ in range(300):  # The browser reports the refusal before the frame has its error page.
            if page.frames[1].url.startswith("chrome-error"):
                break
            page.wait_for_timeout(100)
        assert page.frames[1].url.startswith("chrome-error")
        page.close()
