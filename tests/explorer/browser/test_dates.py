"""A collection of several dates: the timeline, filters of dates and clouds, and two dates side by side."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator

import pytest
from playwright.sync_api import expect

from rasterembed.search.answer import Hit
from rasterembed.search.collection_searcher import CollectionSearcher
from rasterembed.search.query import Query, Where
from tests.explorer.browser.conftest import TILE, OpenPage
from tests.explorer.browser.explorer_page import ExplorerPage, name_of
from tests.support.explorer_stores import CLOUDS, DATES, Archive

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]

VIEW = "collections/survey"
K = 24


@pytest.fixture(scope="module")
def searcher(archive: Archive) -> Iterator[CollectionSearcher]:
    with CollectionSearcher(archive.store, "survey") as opened:
        yield opened


@pytest.fixture(scope="module")
def tile(searcher: CollectionSearcher, archive: Archive) -> Hit:
    """A tile of the second date, whose ground the other dates show too."""
    (scene,) = (row for row in archive.collection().catalogue.rows() if row.item == "scene-2025")
    dataset = archive.dataset(scene.id)
    row = dataset.tiles().to_pylist()[30]
    (hit,) = searcher.ask(Query(tile=f"{scene.id}/{row['tile_id']}", include_query=True), k=1).hits
    return hit


@pytest.fixture
def asked(opened: OpenPage, searcher: CollectionSearcher, tile: Hit) -> ExplorerPage:
    """A page with the neighbours of the tile."""
    assert tile.lon is not None
    assert tile.lat is not None
    explored = opened()
    explored.open(VIEW, at=(tile.lon, tile.lat, 13.5), tile=name_of(tile))
    explored.expect_hits(searcher.ask(Query(tile=name_of(tile)), k=K))
    return explored


def _expect(asked: ExplorerPage, searcher: CollectionSearcher, tile: Hit, **where: object) -> None:
    asked.expect_hits(searcher.ask(Query(tile=name_of(tile)), Where.model_validate(where), k=K))


def test_a_click_takes_a_scene_of_the_place_and_shows_the_neighbours_of_all_dates(
    opened: OpenPage, searcher: CollectionSearcher, tile: Hit
) -> None:
    assert tile.lon is not None
    assert tile.lat is not None
    explored = opened()
    explored.open(VIEW, at=(tile.lon, tile.lat, 14.0))
    explored.click_place(tile.lon, tile.lat)
    expect(explored.hits).to_have_count(K)
    expect(explored.page).to_have_url(re.compile("[?&]tile="))
    (name,) = explored.url_state["tile"]
    assert name.rpartition("/")[2] == tile.tile_id
    answer = searcher.ask(Query(tile=name), k=K)
    explored.expect_hits(answer)
    assert len({hit.dataset_id for hit in answer.hits}) > 1
    scenes = explored.page.get_by_role("combobox", name="Scene of the tile")
    count = scenes.locator("option").count()
    assert count > 1
    explored.page.reload()
    expect(scenes.locator("option")).to_have_count(count)


def test_a_tile_without_its_scene_gets_its_name_and_its_picture(
    opened: OpenPage, searcher: CollectionSearcher, archive: Archive
) -> None:
    scenes = [archive.dataset(row.id) for row in archive.collection().catalogue.rows()]
    embedded = [
        (row["tile_id"], one.id) for one in scenes for row in one.tiles().to_pylist() if row["status"] == "embedded"
    ]
    counts = Counter(tile_id for tile_id, _ in embedded)
    tile_id, scene = next(pair for pair in embedded if counts[pair[0]] == 1)
    explored = opened()
    explored.open(VIEW)
    explored.page.get_by_role("textbox", name="Tile id").fill(tile_id)
    explored.page.keyboard.press("Enter")
    explored.expect_hits(searcher.ask(Query(tile=tile_id), k=K))
    expect(explored.page).to_have_url(re.compile(f"tile={scene}/"))
    picture = explored.page.locator(".start img")
    assert picture.evaluate("image => image.decode().then(() => image.naturalWidth)") == 160


def test_a_tile_of_several_scenes_is_refused_in_words_of_the_page_and_they_help(
    opened: OpenPage, searcher: CollectionSearcher, tile: Hit
) -> None:
    explored = opened()
    explored.open(VIEW)
    explored.watch.expect("/search", "status of 422")
    explored.page.get_by_role("textbox", name="Tile id").fill(tile.tile_id)
    explored.page.keyboard.press("Enter")
    notice = explored.page.locator(".query-notice")
    expect(notice).to_contain_text("or choose the scene with “Only the latest scene of each tile”")
    expect(notice).not_to_contain_text("pick")
    filters = explored.page.get_by_role("combobox", name="Where several scenes show a tile")
    filters.select_option("Only the latest scene of each tile")
    explored.expect_hits(searcher.ask(Query(tile=tile.tile_id), Where(pick="latest"), k=K))


def test_a_pick_in_the_address_of_a_view_without_this_choice_is_taken_back(opened: OpenPage) -> None:
    explored = opened()
    explored.open("datasets/landscape", tile=TILE, pick="latest")
    expect(explored.hits).to_have_count(K)
    explored.expect_url(pick=None)


def test_the_timeline_limits_the_search_and_the_map_to_a_date(
    asked: ExplorerPage, searcher: CollectionSearcher, tile: Hit
) -> None:
    timeline = asked.page.get_by_role("region", name="Timeline")
    with asked.page.expect_response(lambda answer: "/imagery/" in answer.url and f"since={DATES[0]}" in answer.url):
        timeline.get_by_role("button", name="Later date").click()
    _expect(asked, searcher, tile, since=DATES[0], until=DATES[0])
    timeline.get_by_role("slider", name="Date", exact=True).press("ArrowRight")
    _expect(asked, searcher, tile, since=DATES[1], until=DATES[1])
    asked.expect_url(since=DATES[1], until=DATES[1])
    timeline.get_by_role("button", name="All dates").click()
    _expect(asked, searcher, tile)


def test_filters_of_dates_clouds_and_scenes_change_the_answer(
    asked: ExplorerPage, searcher: CollectionSearcher, tile: Hit
) -> None:
    asked.page.get_by_role("slider", name="First date").fill("1")
    _expect(asked, searcher, tile, since=DATES[1])
    asked.page.get_by_role("slider", name="Clouds").fill(str(int(CLOUDS[1])))
    _expect(asked, searcher, tile, since=DATES[1], max_cloud_cover=int(CLOUDS[1]))
    asked.page.get_by_role("slider", name="First date").fill("0")
    asked.page.get_by_role("combobox", name="Where several scenes show a tile").select_option("latest")
    _expect(asked, searcher, tile, max_cloud_cover=int(CLOUDS[1]), pick="latest")
    asked.page.get_by_role("button", name="Clear 2").click()
    _expect(asked, searcher, tile)


def test_two_dates_lie_side_by_side(asked: ExplorerPage) -> None:
    page = asked.page
    asked.wait_until_drawn()
    with page.expect_response(lambda answer: "/imagery/" in answer.url and f"since={DATES[2]}" in answer.url):
        page.get_by_role("button", name="Compare").click()
    asked.expect_url(swipe=f"{DATES[0]}..{DATES[2]}")
    timeline = page.get_by_role("region", name="Timeline")
    expect(timeline.get_by_role("status")).to_have_text(f"{DATES[0]} and {DATES[2]}")
    divider = page.get_by_role("slider", name="Divider between the two dates")
    page.wait_for_load_state("networkidle")
    divider.press("End")
    expect(divider).to_have_attribute("aria-valuenow", "100")
    asked.wait_until_drawn()
    first_date = asked.map_picture()
    divider.press("Home")
    # The clouds of the third date are on one side only.
    asked.expect_other_map(first_date)
    box = divider.bounding_box()
    frame = asked.map.bounding_box()
    assert box is not None
    assert frame is not None
    page.mouse.move(box["x"] + box["width"] / 2, frame["y"] + frame["height"] / 2)
    page.mouse.down()
    page.mouse.move(frame["x"] + frame["width"] * 0.25, frame["y"] + frame["height"] / 2, steps=4)
    page.mouse.up()
    expect(divider).to_have_attribute("aria-valuenow", "25")
    page.get_by_role("combobox", name="Date on the right").select_option(DATES[1])
    asked.expect_url(swipe=f"{DATES[0]}..{DATES[1]}")
    page.reload()
    expect(divider).to_be_visible()
    page.get_by_role("button", name="Compare").click()
    expect(divider).to_have_count(0)
