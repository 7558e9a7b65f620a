"""Texts from files, Items and documents are shown as text, and never become a part of the page."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, expect

from tests.explorer.browser.conftest import OpenPage
from tests.support.explorer import Explorer
from tests.support.explorer_stores import HOSTILE, Archive, write_hostile_store

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def hostile(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Explorer]:
    archive: Archive = write_hostile_store(tmp_path_factory.mktemp("hostile"))
    with Explorer(str(archive.root), archive.folder / "service") as running:
        yield running


@pytest.mark.parametrize("view", ["datasets/named", "datasets/named-2", "collections/hostile"])
def test_hostile_texts_stay_texts(opened: OpenPage, hostile: Explorer, view: str) -> None:
    explored = opened(hostile)
    explored.open()
    expect(explored.card(view.rpartition("/")[2])).to_be_visible()
    explored.open(view)
    for name in ("Details", "Quality"):
        explored.page.get_by_role("button", name=name, exact=True).click()
    details = hostile.get(f"/api/{view}").json()
    lon, lat = explored.centre
    tile = hostile.get(f"/api/{view}/at", lon=lon, lat=lat).json()[0]
    explored.open(view, tile=f"{tile['dataset_id']}/{tile['tile_id']}")
    expect(explored.hits.first).to_be_visible()
    explored.page.get_by_role("button", name="Details of tile 1", exact=True).click()
    if details["raster"]:
        explored.page.keyboard.press("Escape")
        explored.page.get_by_role("button", name="Details", exact=True).click()
        shown = explored.page.locator("body").inner_text()
        assert HOSTILE["image"] in shown or "onerror" not in details["raster"]
    assert explored.page.evaluate("window.attacked") is None
    # No element of the page comes from these texts.
    assert explored.page.locator("img[onerror], svg[onload], a[href^='javascript'], b, strong > script").count() == 0


def test_a_hostile_url_is_only_a_wrong_value(opened: OpenPage, hostile: Explorer) -> None:
    explored = opened(hostile)
    explored.watch.expect(r"status (of )?4\d\d")
    text = HOSTILE["image"]
    explored.open(f"datasets/{text}", wait=False, tile=text, like=text, colour=text, image=text, bbox=text, swipe=text)
    expect(explored.page.get_by_role("alert").first).to_be_visible()
    assert explored.page.evaluate("window.attacked") is None
    assert explored.page.locator("img[onerror]").count() == 0
