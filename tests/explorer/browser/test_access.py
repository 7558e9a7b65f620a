"""People who use a keyboard, a screen reader, dark colours or a phone. axe-core looks for barriers."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageStat
from playwright.sync_api import Page, expect

from rasterembed.search.query import Query
from rasterembed.search.searcher import Searcher
from tests.explorer.browser.conftest import TILE, OpenPage
from tests.explorer.browser.explorer_page import ExplorerPage, name_of, place_of
from tests.support.browsing import PHONE
from tests.support.explorer import PROJECT, Explorer
from tests.support.explorer_stores import DATES

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]

AXE = PROJECT / "rasterembed/explorer/page/node_modules/axe-core/axe.min.js"
VIEW = "datasets/landscape"

ON_A_PHONE = {"viewport": PHONE, "has_touch": True, "is_mobile": True, "device_scale_factor": 2}


def barriers(page: Page) -> list[str]:
    """Return the serious and critical violations that axe-core finds, with the elements."""
    page.evaluate(AXE.read_text())
    found: list[dict[str, Any]] = page.evaluate("async () => (await axe.run()).violations")
    return [
        f"{one['id']} ({one['impact']}): {one['help']}: {[node['html'][:200] for node in one['nodes'][:3]]}"
        for one in found
        if one["impact"] in ("serious", "critical")
    ]


@pytest.mark.parametrize("colours", ["light", "dark"])
def test_no_state_has_a_serious_barrier(opened: OpenPage, searcher: Searcher, colours: str) -> None:
    explored = opened(color_scheme=colours)
    page = explored.page
    found: dict[str, list[str]] = {}
    explored.open()
    found["store"] = barriers(page)
    explored.open(VIEW, tile=TILE, colour="pca", valid="0.5")
    explored.expect_hits(searcher.ask(Query(tile=TILE), k=24))
    for section in ("Details", "Quality"):
        page.get_by_role("button", name=section, exact=True).click()
    found["answer"] = barriers(page)
    page.get_by_role("button", name="Details of tile 1", exact=True).click()
    found["details"] = barriers(page)
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Export").click()
    found["export"] = barriers(page)
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Draw a box").click()
    found["drawing"] = barriers(page)
    page.keyboard.press("Escape")
    explored.open("collections/survey", swipe=f"{DATES[0]}..{DATES[1]}")
    found["swipe"] = barriers(page)
    explored.watch.expect("datasets/none", "status of 404")
    explored.open("datasets/none", wait=False)
    expect(page.get_by_role("alert")).to_be_visible()
    found["problem"] = barriers(page)
    assert {state: texts for state, texts in found.items() if texts} == {}


@pytest.mark.parametrize("colours", ["light", "dark"])
def test_the_sign_in_page_and_an_empty_store_have_no_serious_barrier(
    opened: OpenPage, tmp_path: Path, colours: str
) -> None:
    (tmp_path / "store").mkdir()
    token = "a-token-that-nobody-guesses"
    environment = {"EXPLORER_TOKEN": token, "XDG_CACHE_HOME": str(tmp_path)}
    with Explorer(str(tmp_path / "store"), tmp_path, environment=environment, token=token) as service:
        explored = opened(service, color_scheme=colours)
        explored.watch.expect("status of 401", r"status 40[13]")
        page = explored.page
        explored.open(wait=False)
        expect(page.get_by_label("Token")).to_be_visible()
        found = {"sign-in": barriers(page)}
        page.get_by_label("Token").fill("a wrong token, which is refused")
        page.get_by_role("button", name="Sign in").click()
        expect(page.get_by_role("alert")).to_be_visible()
        found["refused"] = barriers(page)
        page.get_by_label("Token").fill(token)
        page.get_by_role("button", name="Sign in").click()
        expect(page.get_by_text("rasterembed embed")).to_be_visible()
        found["empty store"] = barriers(page)
        page.close()
    assert {state: texts for state, texts in found.items() if texts} == {}


def test_the_keyboard_alone_is_enough(opened: OpenPage, searcher: Searcher) -> None:
    explored = opened()
    page = explored.page
    explored.open()
    card = explored.card("landscape")
    _tab_to(explored, card)
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="landscape")).to_be_visible()
    explored.wait_until_drawn()
    field = page.get_by_role("textbox", name="Tile id, or latitude and longitude")
    _tab_to(explored, field)
    page.keyboard.type("r000008_c000006")
    page.keyboard.press("Enter")
    answer = searcher.ask(Query(tile=TILE), k=24)
    explored.expect_hits(answer)
    _tab_to(explored, explored.hits.first.get_by_role("button").first)
    page.keyboard.press("ArrowRight")
    expect(explored.hits.nth(1).get_by_role("button").first).to_be_focused()
    expect(explored.hits.nth(1)).to_have_attribute("data-hovered", "true")
    page.keyboard.press("Enter")
    explored.wait_until_drawn()
    assert explored.place_at(*explored.visible_middle) == pytest.approx(place_of(answer.hits[1]), abs=1e-4)


def _tab_to(explored: ExplorerPage, target: Any) -> None:
    """Press the Tab key until an element has the focus. The focus must be visible on each element."""
    for _ in range(80):
        explored.page.keyboard.press("Tab")
        if target.evaluate("element => element === document.activeElement"):
            return
    raise AssertionError("the Tab key does not reach the element")


def test_a_phone_shows_everything_without_scrolling_sideways(opened: OpenPage, searcher: Searcher) -> None:
    explored = opened(**ON_A_PHONE)
    page = explored.page
    explored.open()
    assert _width(page) <= PHONE["width"]
    explored.card("landscape").tap()
    expect(page.get_by_role("heading", name="landscape")).to_be_visible()
    answer = searcher.ask(Query(tile=TILE), k=24)
    explored.open(VIEW, tile=TILE)
    explored.expect_hits(answer)
    assert _width(page) <= PHONE["width"]
    assert barriers(page) == []
    page.get_by_role("button", name="More like tile 2", exact=True).tap()
    liked = name_of(answer.hits[1])
    explored.expect_hits(searcher.ask(Query(tile=TILE, like=(liked,)), k=24))


def _width(page: Page) -> int:
    width: int = page.evaluate("document.documentElement.scrollWidth")
    return width


def test_the_switch_of_the_colours_stays_after_a_reload(opened: OpenPage) -> None:
    explored = opened(color_scheme="light")
    explored.open()
    page = explored.page
    light = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert _brightness(explored) > 180
    page.get_by_role("button", name="Switch to light").click()
    page.get_by_role("button", name="Switch to dark").click()
    expect(page.locator("body")).not_to_have_css("background-color", light)
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor")
    explored.wait_until_drawn()
    assert _brightness(explored) < 60
    # The colours are right before anything is painted, and not only when the page's program runs.
    page.add_init_script(
        """new MutationObserver((_, watch) => {
            if (!document.body) return;
            window.firstTheme = document.documentElement.dataset.theme;
            watch.disconnect();
        }).observe(document, {childList: true, subtree: true});"""
    )
    page.reload()
    expect(page.get_by_role("button", name="Dark colours")).to_be_visible()
    assert page.evaluate("window.firstTheme") == "dark"
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == dark


def _brightness(explored: ExplorerPage) -> float:
    """Return the mean brightness of the map, from 0 (black) to 255 (white)."""
    with Image.open(io.BytesIO(explored.map_picture())) as picture:
        return float(ImageStat.Stat(picture.convert("L")).mean[0])


def test_the_map_has_its_colours_also_with_reduced_motion(opened: OpenPage) -> None:
    explored = opened(color_scheme="light", reduced_motion="reduce")
    explored.open(at=(10.0, 35.0, 2.0))
    expect(explored.card("landscape")).to_be_visible()
    explored.wait_until_drawn()
    with Image.open(io.BytesIO(explored.page.screenshot())) as picture:
        pixels = np.asarray(picture.convert("RGB"), np.int64)
    places = [explored.on_screen(lon, lat) for lon, lat in ((3.0, 25.0), (-35.0, 25.0), (24.9167, 60.1922))]
    sahara, atlantic, landscape = (pixels[round(y), round(x)] for x, y in places)
    # Land is brighter than the sea, and the dot of a dataset is blue.
    assert sahara.sum() > atlantic.sum() + 20
    assert landscape[2] > landscape[0] + 80
