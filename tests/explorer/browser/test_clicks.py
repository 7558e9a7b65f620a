"""Clicks on the map: one request, the answer of the library, and a map that stays where it is under the strip."""

from __future__ import annotations

import io
import json
from urllib.parse import urlsplit

import numpy as np
import pytest
import shapely
from numpy.typing import NDArray
from PIL import Image
from playwright.sync_api import Request, Route, expect

from rasterembed.search.answer import Hit
from rasterembed.search.query import Query
from rasterembed.search.searcher import Searcher
from tests.explorer.browser.conftest import TILE, OpenPage
from tests.explorer.browser.explorer_page import ExplorerPage, name_of, place_of
from tests.explorer.browser.test_access import ON_A_PHONE
from tests.support.explorer_stores import Archive

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]

VIEW = "datasets/landscape"
K = 24
"""Number of tiles that the page asks for at first."""


@pytest.fixture
def shown(opened: OpenPage, tile: Hit) -> ExplorerPage:
    """A page with the tile in the middle of the map. Nothing was clicked yet."""
    explored = opened()
    explored.open(VIEW, at=(*place_of(tile), 13.0))
    return explored


def _pixels(picture: bytes) -> NDArray[np.uint8]:
    """Return the pixels of a PNG file, shape (rows, columns, 3)."""
    with Image.open(io.BytesIO(picture)) as image:
        return np.asarray(image.convert("RGB"))


def _equal_share(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> float:
    """Return the share of equal pixels of two pictures, in the rows and columns that both have.

    The lowest rows are left out: the place and the scale are written there, and the sheet throws its shadow on them.
    """
    rows, columns = (min(first.shape[axis], second.shape[axis]) for axis in (0, 1))
    rows = round(0.85 * rows)
    return float((first[:rows, :columns] == second[:rows, :columns]).all(axis=2).mean())


def test_a_click_is_one_request(shown: ExplorerPage, searcher: Searcher, tile: Hit) -> None:
    paths: list[str] = []

    def note(request: Request) -> None:
        # The page also asks for the progress of runs from time to time.
        _, of_view, path = urlsplit(request.url).path.partition(f"/api/{VIEW}")
        if of_view and not path.startswith("/thumbnails/"):
            paths.append(f"{request.method} {path}")

    shown.page.on("request", note)
    shown.click_place(*place_of(tile))
    shown.expect_hits(searcher.ask(Query(tile=TILE), k=K))
    shown.wait_until_drawn()
    assert paths == ["POST /click"]
    shown.expect_url(tile=TILE)


def test_the_map_is_not_drawn_before_the_click_is_answered(shown: ExplorerPage, searcher: Searcher, tile: Hit) -> None:
    shown.page.mouse.move(*shown.on_screen(*place_of(tile)))
    shown.wait_until_drawn()
    shown.page.evaluate(
        """() => {
            window.drawn = window.drawnEarly = 0;
            const clear = WebGL2RenderingContext.prototype.clear;
            WebGL2RenderingContext.prototype.clear = function (...bits) {
                window.drawn += 1;
                // The strip opens with the answer, or with empty cards if the answer takes long.
                if (!document.querySelector(".strip")) window.drawnEarly += 1;
                return clear.apply(this, bits);
            };
        }"""
    )
    held: list[Route] = []
    shown.page.route("**/click", lambda route: held.append(route))
    with shown.page.expect_request("**/click"):
        shown.click_place(*place_of(tile))
    shown.wait_for_frames()
    (route,) = held
    route.continue_()
    shown.expect_hits(searcher.ask(Query(tile=TILE), k=K))
    shown.page.wait_for_function("window.drawn > 0")
    assert shown.page.evaluate("window.drawnEarly") == 0


@pytest.mark.parametrize("is_phone", [False, True], ids=["desktop", "phone"])
def test_the_map_stays_where_it_is_when_the_strip_opens_and_closes(
    opened: OpenPage, searcher: Searcher, tile: Hit, is_phone: bool
) -> None:
    shown = opened(**(ON_A_PHONE if is_phone else {}))
    shown.open(VIEW, at=(*place_of(tile), 14.0), outlines="0")
    before, height = _pixels(shown.map_picture()), shown.visible["height"]
    # On a phone, the sheet covers the lower half of the map at first. It makes room for the strip.
    x, y = shown.visible_middle
    place = shown.place_at(x, y)
    if is_phone:
        shown.page.touchscreen.tap(x, y)
    else:
        shown.page.mouse.click(x, y)
    answer = searcher.ask(Query(lonlat=place), k=K)
    (clicked,) = (example.tile for example in answer.examples)
    assert clicked is not None
    answer = searcher.ask(Query(tile=f"{clicked.dataset_id}/{clicked.tile_id}"), k=K)
    shown.expect_hits(answer)
    shown.page.mouse.move(5, 5)
    shown.wait_until_drawn()
    assert shown.place_at(x, y) == pytest.approx(place, abs=1e-9)
    assert is_phone or shown.visible["height"] < 0.8 * height
    # Only the marks of the answer are new.
    assert 0.6 < _equal_share(before, _pixels(shown.map_picture())) < 1
    shown.page.get_by_role("button", name="Close the answer").click()
    expect(shown.hits).to_have_count(0)
    shown.wait_until_drawn()
    after = _pixels(shown.map_picture())
    assert shown.place_at(x, y) == pytest.approx(place, abs=1e-9)
    assert _equal_share(before, after) > 0.97


def test_the_strip_never_hides_the_clicked_tile(shown: ExplorerPage, searcher: Searcher, tile: Hit) -> None:
    lon, _, zoom = shown.position
    box = shown.visible
    # The tile lies where the strip will be.
    _, north = shown.place_at(box["x"] + box["width"] / 2, box["y"] + 0.1 * box["height"])
    shown.open(VIEW, at=(lon, north, zoom))
    x, y = shown.on_screen(*place_of(tile))
    assert y > box["y"] + 0.85 * box["height"]
    with shown.moving():
        shown.click_place(*place_of(tile))
        shown.expect_hits(searcher.ask(Query(tile=TILE), k=K))
    assert shown.is_visible(*place_of(tile), margin=20)
    assert shown.on_screen(*place_of(tile))[0] == pytest.approx(x, abs=1)


def test_a_drag_moves_the_map_with_the_pointer(shown: ExplorerPage, tile: Hit) -> None:
    x, y = shown.on_screen(*place_of(tile))
    with shown.moving():
        shown.page.mouse.move(x, y)
        shown.page.mouse.down()
        shown.page.mouse.move(x + 120, y - 80, steps=6)
        shown.page.mouse.up()
    # The map begins to move with the second step of the pointer.
    assert shown.on_screen(*place_of(tile)) == pytest.approx((x + 120, y - 80), abs=25)
    expect(shown.hits).to_have_count(0)


def test_a_newer_click_alone_is_answered(shown: ExplorerPage, searcher: Searcher, tile: Hit) -> None:
    held: list[Route] = []

    def hold_first(route: Route) -> None:
        if held:
            route.continue_()
        else:
            held.append(route)

    shown.page.route("**/click", hold_first)
    lon, lat = place_of(tile)
    with shown.page.expect_event("requestfailed", lambda request: request.url.endswith("/click")):
        with shown.page.expect_request("**/click"):
            shown.click_place(lon, lat - 0.003)
        shown.click_place(lon, lat)
    expected = searcher.ask(Query(tile=TILE), k=K)
    shown.expect_hits(expected)
    (first,) = held
    assert json.loads(first.request.post_data or "")["lonlat"][1] < lat - 0.002
    # An answer that comes nevertheless is not shown.
    first.continue_()
    shown.wait_until_drawn()
    shown.expect_hits(expected)
    shown.expect_url(tile=TILE)


def test_a_click_on_no_tile_keeps_the_answer(shown: ExplorerPage, searcher: Searcher, tile: Hit) -> None:
    expected = searcher.ask(Query(tile=TILE), k=K)
    shown.click_place(*place_of(tile))
    shown.expect_hits(expected)
    # From far away, the map shows the ground around the dataset too.
    for _ in range(4):
        shown.page.get_by_role("button", name="Zoom out").click()
        shown.wait_until_drawn()
    box = shown.visible
    shown.page.mouse.click(box["x"] + 100, box["y"] + 60)
    expect(shown.page.get_by_text("No tile lies at this place.").first).to_be_visible()
    shown.expect_hits(expected)


def test_the_whole_view_fits_above_the_strip_also_in_another_window(
    shown: ExplorerPage, searcher: Searcher, archive: Archive, tile: Hit
) -> None:
    shown.click_place(*place_of(tile))
    shown.expect_hits(searcher.ask(Query(tile=TILE), k=K))
    outlines = shapely.from_wkb([row["geometry"] for row in archive.dataset("landscape").tiles().to_pylist()])
    west, south, east, north = shapely.total_bounds(outlines)
    for window in ({"width": 1280, "height": 720}, {"width": 1100, "height": 640}):
        shown.page.set_viewport_size(window)  # type: ignore[arg-type]
        with shown.moving():
            shown.page.get_by_role("button", name="Show all of it").click()
        assert shown.is_visible(west, north, margin=20)
        assert shown.is_visible(east, south, margin=20)
        assert not shown.is_visible(east, south, margin=0.4 * shown.visible["height"])


def test_the_keyboard_and_the_visible_part_know_where_the_strip_begins(
    shown: ExplorerPage, searcher: Searcher, tile: Hit
) -> None:
    shown.click_place(*place_of(tile))
    shown.expect_hits(searcher.ask(Query(tile=TILE), k=K))
    middle = shown.visible_middle
    place = shown.place_at(*middle)
    shown.map.locator("canvas").focus()
    with shown.moving():
        shown.page.keyboard.press("+")
    assert shown.position[2] == pytest.approx(14.0, abs=0.01)
    assert shown.place_at(*middle) == pytest.approx(place, abs=2e-5)
    shown.page.keyboard.press("Enter")
    (example,) = searcher.ask(Query(lonlat=place), k=K).examples
    assert example.tile is not None
    name = f"{example.tile.dataset_id}/{example.tile.tile_id}"
    assert name != TILE
    shown.expect_hits(searcher.ask(Query(tile=name), k=K))
    with shown.page.expect_request("**/search") as asked:
        shown.page.get_by_role("button", name="Visible part").click()
    west, south, east, north = json.loads(asked.value.post_data or "")["where"]["bbox"]
    box = shown.visible
    assert (west, north) == pytest.approx(shown.place_at(box["x"], box["y"]), abs=2e-5)
    assert (east, south) == pytest.approx(shown.place_at(box["x"] + box["width"], box["y"] + box["height"]), abs=2e-5)


def test_a_tile_under_the_pointer_is_marked_also_if_the_pointer_does_not_enter_its_card(
    shown: ExplorerPage, searcher: Searcher, tile: Hit
) -> None:
    shown.click_place(*place_of(tile))
    answer = searcher.ask(Query(tile=TILE), k=K)
    shown.expect_hits(answer)
    like = shown.page.get_by_role("button", name="More like tile 2", exact=True)
    like.click()
    shown.expect_hits(searcher.ask(Query(tile=TILE, like=(name_of(answer.hits[1]),)), k=K))
    box = like.bounding_box()
    assert box is not None
    shown.page.mouse.move(box["x"] + 8, box["y"] + 8)
    expect(shown.hits.nth(1)).to_have_attribute("data-hovered", "true")
