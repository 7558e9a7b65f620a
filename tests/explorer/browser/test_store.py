"""The first page: cards of all states, and the views behind them."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import expect

from rasterembed.qa.report import CAPTIONS
from rasterembed.search.query import Query
from rasterembed.search.searcher import Searcher
from tests.explorer.browser.conftest import OpenPage
from tests.support.explorer_stores import Archive

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]

CARDS = {
    "landscape": "Ready",
    "plain": "Ready",
    "polar": "Ready",
    "dateline": "Ready",
    "degrees": "Ready",
    "nowhere": "Ready",
    "rejected": "Failed checks",
    "broken": "Cannot be read",
    "survey": "Ready",
}
"""Text of the state on each card."""


def test_the_first_page_has_a_card_for_each_dataset_and_collection(opened: OpenPage) -> None:
    explored = opened()
    explored.open()
    for name, state in CARDS.items():
        card = explored.card(name)
        expect(card).to_be_visible()
        expect(card).to_contain_text(state)
    expect(explored.card("survey")).to_contain_text("3 scenes")
    expect(explored.card("rejected")).to_contain_text(re.compile("effective", re.IGNORECASE))
    expect(explored.card("broken")).to_contain_text("manifest")


def test_a_card_opens_its_view_and_the_back_button_returns(opened: OpenPage) -> None:
    explored = opened()
    explored.open()
    explored.card("landscape").click()
    expect(explored.page.get_by_role("heading", name="landscape")).to_be_visible()
    explored.wait_until_open()
    explored.wait_until_drawn()
    explored.expect_url(view="datasets/landscape")
    # The map shows the place of the dataset: the generated landscape lies near 24.9 E, 60.2 N.
    lon, lat, zoom = explored.position
    assert (round(lon, 1), round(lat, 1)) == (24.9, 60.2)
    assert zoom > 12
    explored.page.go_back()
    expect(explored.card("landscape")).to_be_visible()
    explored.expect_url(view=None)
    explored.wait_until_drawn()
    assert explored.position[2] < 2  # The whole Earth.


def test_the_quality_report_shows_its_verdict_and_pictures(opened: OpenPage) -> None:
    explored = opened()
    explored.open("datasets/landscape")
    explored.page.get_by_role("button", name="Quality").click()
    expect(explored.page.get_by_text(re.compile(r"The quality checks passed\. Metrics: \d+ passed"))).to_be_visible()
    picture = explored.page.get_by_role("button", name=CAPTIONS["pca.png"]).locator("img")
    expect(picture).to_be_visible()
    assert picture.evaluate("image => image.decode().then(() => image.naturalWidth)") > 100
    explored.page.get_by_role("button", name=CAPTIONS["pca.png"]).click()
    dialog = explored.page.get_by_role("dialog")
    expect(dialog.get_by_role("heading")).to_have_text(CAPTIONS["pca.png"])
    explored.page.keyboard.press("ArrowRight")
    expect(dialog.get_by_role("heading")).not_to_have_text(CAPTIONS["pca.png"])
    explored.page.keyboard.press("Escape")
    expect(dialog).not_to_be_visible()


def test_a_dataset_without_an_index_is_searched_by_the_scan(opened: OpenPage, archive: Archive) -> None:
    explored = opened()
    explored.open("datasets/plain", tile="plain/r000002_c000002")
    with Searcher(archive.store, ["plain"]) as searcher:
        answer = searcher.ask(Query(tile="r000002_c000002"), k=24)
    assert [used.name for used in answer.engines] == ["scan"]
    explored.expect_hits(answer)


def test_a_broken_dataset_says_what_is_wrong(opened: OpenPage) -> None:
    explored = opened()
    explored.watch.expect("datasets/broken", "status of 50")
    explored.open("datasets/broken", wait=False)
    alert = explored.page.get_by_role("alert")
    expect(alert).to_contain_text("datasets/broken/manifest.json")
    expect(alert.get_by_role("button", name="Try again")).to_be_visible()
    explored.page.get_by_role("button", name="All datasets and collections").click()
    expect(explored.card("landscape")).to_be_visible()


def test_a_dataset_that_failed_its_checks_is_shown_and_says_why_it_is_not_searched(opened: OpenPage) -> None:
    explored = opened()
    explored.watch.expect("/search", "status of 409")
    explored.open("datasets/rejected", tile="rejected/r000002_c000002", colour="validity")
    expect(explored.page.get_by_role("alert")).to_contain_text("quality checks")
    # Its tiles are shown, with a clear word that they are not searched.
    expect(explored.page.get_by_text("did not pass its quality checks. Its tiles are shown")).to_be_visible()
    expect(explored.page.get_by_role("figure", name="Legend")).to_contain_text("Valid pixels")
    expect(explored.page.get_by_role("switch", name="Similarity of all tiles")).to_have_count(0)


def test_a_view_that_does_not_exist_is_a_clear_problem(opened: OpenPage) -> None:
    explored = opened()
    explored.watch.expect("datasets/none", "status of 404")
    explored.open("datasets/none", wait=False)
    alert = explored.page.get_by_role("alert")
    expect(alert).to_contain_text("none")
    alert.get_by_role("button", name="Go to the list").click()
    expect(explored.card("landscape")).to_be_visible()


def test_a_dataset_without_a_place_is_searched_by_tile(opened: OpenPage, archive: Archive) -> None:
    explored = opened()
    explored.open("datasets/nowhere", wait=False, tile="nowhere/r000002_c000002")
    expect(explored.page.get_by_text("no place on Earth")).to_be_visible()
    with Searcher(archive.store, ["nowhere"]) as searcher:
        explored.expect_hits(searcher.ask(Query(tile="r000002_c000002"), k=24))
