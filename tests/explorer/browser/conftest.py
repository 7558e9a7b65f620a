"""One browser, one store and one service for all tests of the page."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, expect

from rasterembed.search.answer import Hit
from rasterembed.search.query import Query
from rasterembed.search.searcher import Searcher
from tests.explorer.browser.explorer_page import ExplorerPage, name_of
from tests.support.browsing import chromium, watched_page
from tests.support.explorer import Explorer, build_page
from tests.support.explorer_stores import Archive, write_archive

# On a busy machine, the browser needs seconds to draw a picture without a graphics card.
expect.set_options(timeout=30_000)

TILE = "landscape/r000008_c000006"
"""A tile in the middle of the dataset `landscape`, as `dataset/tile`."""

OpenPage = Callable[..., ExplorerPage]
"""Function that opens a page: on the shared service, or on the service that is given. See `opened`."""


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    build_page()
    with chromium(for_pictures="SCREENSHOTS" in os.environ) as running:
        yield running


@pytest.fixture(scope="package")
def archive(tmp_path_factory: pytest.TempPathFactory, rasters: Path) -> Archive:
    return write_archive(tmp_path_factory.mktemp("archive"), rasters)


@pytest.fixture(scope="package")
def service(browser: Browser, archive: Archive) -> Iterator[Explorer]:
    with Explorer(str(archive.root), archive.folder / "service") as running:
        yield running


@pytest.fixture(scope="package")
def searcher(archive: Archive) -> Iterator[Searcher]:
    """The library's searcher of the dataset `landscape`."""
    with Searcher(archive.store, ["landscape"]) as opened:
        yield opened


@pytest.fixture(scope="package")
def tile(searcher: Searcher) -> Hit:
    """The tile that most tests click."""
    (hit,) = searcher.ask(Query(tile=TILE, include_query=True), k=1).hits
    assert name_of(hit) == TILE
    return hit


@pytest.fixture
def opened(request: pytest.FixtureRequest, browser: Browser) -> Iterator[OpenPage]:
    """Open pages. At the end of the test, each page is checked for problems that the test did not expect.

    `service` is the service, by default the shared one. Other arguments are options of `Browser.new_context`.
    """
    with ExitStack() as pages:

        def open_page(service: Explorer | None = None, **options: Any) -> ExplorerPage:
            chosen = service or request.getfixturevalue("service")
            page, watch = pages.enter_context(watched_page(browser, chosen.url, **options))
            return ExplorerPage(page, watch, chosen)

        yield open_page
