"""Pictures of the page for the documents. They are made only if SCREENSHOTS is set to a folder, such as docs/images."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Route, expect

from tests.explorer.browser.conftest import OpenPage
from tests.explorer.browser.explorer_page import ExplorerPage
from tests.explorer.browser.test_access import ON_A_PHONE
from tests.support.explorer_stores import DATES, Archive

pytestmark = [
    pytest.mark.browser,
    pytest.mark.timeout(600),
    pytest.mark.skipif(not os.environ.get("SCREENSHOTS"), reason="SCREENSHOTS names no folder for the pictures"),
]

WINDOW: dict[str, Any] = {"viewport": {"width": 1440, "height": 900}}
PLACE = (24.9167, 60.1922)
"""Longitude and latitude of the middle of the landscape, degrees."""

ABOVE_THE_STRIP = (24.9167, 60.1889, 13.75)
"""A middle of the map, degrees, and its zoom. The landscape is then above the strip."""


@pytest.fixture
def shown(opened: OpenPage, archive: Archive) -> Callable[..., ExplorerPage]:
    """Open pages that show another address of the store. Pictures shall not name the folders of this machine."""

    def rename(route: Route) -> None:
        answer = route.fetch()
        route.fulfill(response=answer, body=answer.text().replace(str(archive.root), "/data/archive"))

    def open_page(**options: Any) -> ExplorerPage:
        explored = opened(**options)
        explored.page.route("**/api/store", rename)
        return explored

    return open_page


def _keep(explored: ExplorerPage, name: str) -> None:
    explored.picture(Path(os.environ["SCREENSHOTS"]) / f"explorer-{name}.webp")


def test_light(shown: Callable[..., ExplorerPage]) -> None:
    explored = shown(color_scheme="light", **WINDOW)
    explored.open(
        "datasets/landscape", at=ABOVE_THE_STRIP, tile="landscape/r000008_c000006", colour="none", outlines="0"
    )
    expect(explored.hits.first).to_be_visible()
    explored.hits.nth(1).hover()
    _keep(explored, "light")


def test_dark_with_the_similarity_of_all_tiles(shown: Callable[..., ExplorerPage]) -> None:
    explored = shown(color_scheme="dark", **WINDOW)
    explored.open("datasets/landscape", at=ABOVE_THE_STRIP, tile="landscape/r000004_c000009")
    expect(explored.hits.first).to_be_visible()
    explored.page.get_by_role("switch", name="Similarity of all tiles").check()
    expect(explored.page.get_by_role("figure", name="Legend")).to_contain_text("imilar")
    _keep(explored, "dark")


def test_two_dates(shown: Callable[..., ExplorerPage]) -> None:
    explored = shown(color_scheme="light", **WINDOW)
    explored.open("collections/survey", at=(*PLACE, 14.3), colour="none", outlines="0", swipe=f"{DATES[0]}..{DATES[1]}")
    explored.page.wait_for_load_state("networkidle")
    _keep(explored, "dates")


def test_the_list_of_a_store(shown: Callable[..., ExplorerPage]) -> None:
    explored = shown(color_scheme="light", **WINDOW)
    explored.open()
    expect(explored.card("survey")).to_be_visible()
    _keep(explored, "store")


def test_phone(shown: Callable[..., ExplorerPage]) -> None:
    explored = shown(color_scheme="dark", **ON_A_PHONE)
    explored.open(
        "datasets/landscape", at=(24.9167, 60.183, 12.8), tile="landscape/r000008_c000006", colour="none", outlines="0"
    )
    expect(explored.hits.first).to_be_visible()
    _keep(explored, "phone")
