"""Search by looking: click, refine, drop an image, draw, filter, export. The library's searcher gives the answers."""

from __future__ import annotations

import io
import json
import re
import runpy
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import rasterio
import shapely
from PIL import Image
from playwright.sync_api import Route, expect

from rasterembed.search.answer import Answer, Hit
from rasterembed.search.query import Query, Where
from rasterembed.search.searcher import Searcher
from tests.explorer.browser.conftest import TILE, OpenPage
from tests.explorer.browser.explorer_page import ExplorerPage, name_of, place_of
from tests.support.explorer_stores import Archive

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]

VIEW = "datasets/landscape"
K = 24
"""Number of tiles that the page asks for at first."""


@pytest.fixture
def asked(opened: OpenPage, searcher: Searcher, tile: Hit) -> ExplorerPage:
    """A page with the neighbours of the tile, which was clicked."""
    explored = opened()
    explored.open(VIEW, at=(*place_of(tile), 13.0))
    explored.click_place(*place_of(tile))
    explored.expect_hits(searcher.ask(Query(tile=TILE), k=K))
    return explored


def test_a_click_names_the_tile_in_the_url_and_shows_distance_place_and_date(
    asked: ExplorerPage, searcher: Searcher
) -> None:
    asked.expect_url(tile=TILE)
    first = searcher.ask(Query(tile=TILE), k=1).hits[0]
    card = asked.hits.first
    expect(card).to_contain_text(f"{1 - first.distance:.4f}")
    expect(card).to_contain_text(f"{first.lat:.3f}° N, {first.lon:.3f}° E")
    expect(card).to_contain_text("2024-07-03")
    picture = card.locator("img")
    assert picture.evaluate("image => image.decode().then(() => image.naturalWidth)") == 160


def _visible_hits(asked: ExplorerPage, searcher: Searcher) -> list[Hit]:
    """Return the hits of the tile that the map shows beside the strip, the nearest first."""
    return [hit for hit in searcher.ask(Query(tile=TILE), k=K).hits if asked.is_visible(*place_of(hit), margin=50)]


def test_a_click_on_another_tile_of_the_map_replaces_the_query(asked: ExplorerPage, searcher: Searcher) -> None:
    other = _visible_hits(asked, searcher)[-1]
    asked.click_place(*place_of(other))
    asked.expect_hits(searcher.ask(Query(tile=name_of(other)), k=K))
    asked.page.go_back()
    asked.expect_hits(searcher.ask(Query(tile=TILE), k=K))


def test_a_search_leaves_the_size_of_the_map(asked: ExplorerPage, searcher: Searcher) -> None:
    # Another size would draw the whole map anew, which takes longer than the search.
    asked.wait_until_drawn()

    held: list[Route] = []
    asked.page.route("**/click", lambda route: held.append(route))
    asked.map.evaluate(
        """map => {
            window.sizes = [];
            new ResizeObserver(([entry]) => window.sizes.push(entry.contentRect.height)).observe(map);
        }"""
    )
    other = _visible_hits(asked, searcher)[-1]
    asked.click_place(*place_of(other))
    expect(asked.page.get_by_role("heading", name="Searching")).to_be_visible()
    expect(asked.hits).to_have_count(0)
    (route,) = held
    route.continue_()
    asked.expect_hits(searcher.ask(Query(tile=name_of(other)), k=K))
    assert asked.page.evaluate("window.sizes.length") == 1


def test_hovering_links_the_strip_and_the_map(asked: ExplorerPage, searcher: Searcher) -> None:
    hit = _visible_hits(asked, searcher)[0]
    card = asked.hits.nth(hit.rank - 1)
    # The marks of the answer follow the strip.
    asked.wait_until_drawn()
    asked.page.mouse.move(*asked.on_screen(*place_of(hit)))
    expect(card).to_have_attribute("data-hovered", "true")
    asked.page.mouse.move(5, 5)
    expect(card).to_have_attribute("data-hovered", "false")
    asked.wait_until_drawn()
    before = asked.map_picture()
    card.hover()
    asked.expect_other_map(before)


def test_a_click_on_a_thumbnail_moves_the_map_there(asked: ExplorerPage, searcher: Searcher) -> None:
    third = searcher.ask(Query(tile=TILE), k=K).hits[2]
    asked.hits.nth(2).get_by_role("button", name="show on the map").click()
    asked.wait_until_drawn()
    assert asked.place_at(*asked.visible_middle) == pytest.approx(place_of(third), abs=1e-4)


def test_more_and_less_like_this_refine_the_query(asked: ExplorerPage, searcher: Searcher) -> None:
    first = searcher.ask(Query(tile=TILE), k=K)
    liked = name_of(first.hits[1])
    asked.page.get_by_role("button", name="More like tile 2", exact=True).click()
    second = searcher.ask(Query(tile=TILE, like=(liked,)), k=K)
    asked.expect_hits(second)
    unliked = name_of(second.hits[4])
    asked.page.get_by_role("button", name="Less like tile 5", exact=True).click()
    asked.expect_hits(searcher.ask(Query(tile=TILE, like=(liked,), unlike=(unliked,)), k=K))
    asked.expect_url(like=liked, unlike=unliked)
    asked.page.go_back()
    asked.expect_hits(second)


def test_a_dropped_image_is_the_query(
    opened: OpenPage, archive: Archive, searcher: Searcher, tile: Hit, tmp_path: Path
) -> None:
    with rasterio.open(archive.folder / "scenes/scene.tif") as scene:
        pixels = scene.read(window=((tile.row_off, tile.row_off + 112), (tile.col_off, tile.col_off + 112)))
    file = io.BytesIO()
    Image.fromarray(pixels.transpose(1, 2, 0)).save(file, "PNG")
    path = tmp_path / "example.png"
    path.write_bytes(file.getvalue())
    explored = opened()
    explored.open(VIEW)
    # The first search by an image loads PyTorch and the model into the service. On a busy machine, this takes longer
    # than everything else that the tests wait for.
    with explored.page.expect_response("**/search", timeout=150_000):
        explored.drop_file(path)
    answer = searcher.ask(Query(image=str(path)), k=K)
    assert name_of(answer.hits[0]) == TILE
    explored.expect_hits(answer)
    # The address of the page holds the digest of the image, so the view can be opened again.
    explored.page.reload()
    explored.expect_hits(answer)


def test_a_file_that_is_no_image_is_refused_with_a_reason(opened: OpenPage, tmp_path: Path) -> None:
    path = tmp_path / "no.png"
    path.write_text("<script>window.attacked = 1</script>")
    explored = opened()
    explored.watch.expect("/images", "status of 4")
    explored.open(VIEW)
    explored.drop_file(path)
    expect(explored.page.get_by_role("alert")).to_contain_text("image")
    assert explored.page.evaluate("window.attacked") is None


def test_a_box_and_a_polygon_limit_the_answer(asked: ExplorerPage, searcher: Searcher, tile: Hit) -> None:
    assert tile.lon is not None
    assert tile.lat is not None
    west, south, east, north = tile.lon - 0.003, tile.lat - 0.0015, tile.lon + 0.003, tile.lat + 0.0015
    asked.page.get_by_role("button", name="Draw a box").click()
    asked.drag((west, north), (east, south))
    left, bottom, right, top = (float(number) for number in _one(asked, "bbox").split(","))
    assert (left, bottom, right, top) == pytest.approx((west, south, east, north), abs=1e-4)
    answer = searcher.ask(Query(tile=TILE), Where(bbox=(left, bottom, right, top)), k=K)
    assert 0 < len(answer.hits) < K
    asked.expect_hits(answer)
    asked.page.get_by_role("button", name="Polygon").click()
    corners = [(west, south), (east, south), (tile.lon, north)]
    for corner in [*corners, corners[0]]:
        asked.click_place(*corner)
    drawn = [tuple(map(float, pair.split(","))) for pair in _one(asked, "polygon").split(";")]
    area = shapely.Polygon(drawn)
    assert area.symmetric_difference(shapely.Polygon(corners)).area < 0.1 * area.area
    everything = searcher.ask(Query(tile=TILE), k=400)
    inside = [hit for hit in everything.hits if shapely.from_wkb(hit.geometry).intersects(area)]
    asked.expect_hits(everything.model_copy(update={"hits": tuple(inside[:K])}))
    asked.expect_url(bbox=None)


def test_a_box_across_the_antimeridian_in_a_url_and_an_empty_answer_have_hints(
    opened: OpenPage, searcher: Searcher
) -> None:
    explored = opened()
    explored.open(VIEW, tile=TILE, bbox="20,60,10,61")
    answer = searcher.ask(Query(tile=TILE), Where(bbox=(20, 60, 10, 61)), k=K)
    explored.expect_hits(answer)
    assert answer.hint.endswith("it covers 350 degrees of longitude; did you mean the box 10 60 20 61?")
    expect(explored.page.get_by_text(answer.hint[1:])).to_be_visible()
    explored.open(VIEW, tile=TILE, bbox="25.5,60,24.5,61")
    message = explored.page.get_by_role("region", name="Similar tiles")
    expect(message).to_contain_text("did you mean the box 24.5 60 25.5 61?")
    expect(message).to_contain_text("The area is outside the searched rasters, which have longitudes 24.9")
    expect(message.get_by_role("button", name=re.compile("Box of"))).to_be_visible()


def _one(asked: ExplorerPage, name: str) -> str:
    """Wait until the URL has a parameter, and return its value."""
    expect(asked.page).to_have_url(re.compile(rf"[?&]{name}="))
    return asked.url_state[name][0]


def test_sliders_change_the_number_of_tiles_and_the_validity(asked: ExplorerPage, searcher: Searcher) -> None:
    asked.page.get_by_role("slider", name="Tiles").press("Home")
    asked.expect_hits(searcher.ask(Query(tile=TILE), k=1))
    asked.page.get_by_role("slider", name="Tiles").press("End")
    expect(asked.hits).not_to_have_count(1)
    asked.page.get_by_role("slider", name="Valid pixels").press("End")
    expect(asked.page).to_have_url(re.compile("valid=1"))
    count = int(_one(asked, "k"))
    answer = searcher.ask(Query(tile=TILE), Where(min_valid_fraction=1.0), k=count)
    asked.expect_hits(answer)
    assert all(hit.valid_fraction == 1.0 for hit in answer.hits)


def test_a_pull_of_a_slider_is_one_choice_of_the_history(asked: ExplorerPage, searcher: Searcher) -> None:
    asked.page.get_by_role("slider", name="Valid pixels").evaluate(
        """slider => {
            for (const value of [20, 45, 70, 100]) {
                slider.value = value;
                slider.dispatchEvent(new Event("input", {bubbles: true}));
            }
        }"""
    )
    asked.expect_hits(searcher.ask(Query(tile=TILE), Where(min_valid_fraction=1.0), k=K))
    expect(asked.page).to_have_url(re.compile("valid=1"))
    asked.page.go_back()
    asked.expect_url(valid=None)
    asked.expect_hits(searcher.ask(Query(tile=TILE), k=K))


def test_a_place_without_a_tile_leaves_the_map(asked: ExplorerPage) -> None:
    before = asked.position
    asked.page.get_by_role("textbox", name="Tile id").fill("-33.9, 18.4")
    asked.page.keyboard.press("Enter")
    expect(asked.page.get_by_text("No tile lies at latitude -33.9, longitude 18.4.").first).to_be_visible()
    asked.wait_until_drawn()
    assert asked.position == before


def test_a_text_that_finds_nothing_leaves_the_query_as_it_was(asked: ExplorerPage, searcher: Searcher) -> None:
    asked.watch.expect("/search", "status of 422")
    field, first = asked.page.get_by_role("textbox", name="Tile id"), searcher.ask(Query(tile=TILE), k=K)
    for text, reason in (
        ("nonsense", "“nonsense” is no tile id, such as r000012_c000034, and no place, such as 60.19, 24.92"),
        ("r000099_c000006", "has no tile r000099_c000006: .* the nearest one is r000015_c000006"),
    ):
        field.fill(text)
        field.press("Enter")
        expect(asked.page.locator(".query-notice")).to_contain_text(re.compile(reason))
        expect(asked.page.locator(".query-notice")).not_to_contain_text("--")
        expect(field).to_have_value(text)  # The person mends it there.
        asked.expect_url(tile=TILE)
        asked.expect_hits(first)
    asked.page.get_by_role("slider", name="Tiles").press("ArrowRight")
    asked.expect_hits(searcher.ask(Query(tile=TILE), k=36))
    field.fill(name_of(first.hits[0]))
    field.press("Enter")
    asked.expect_hits(searcher.ask(Query(tile=name_of(first.hits[0])), k=36))
    expect(field).to_have_value("")
    expect(asked.page.locator(".query-notice")).to_have_count(0)


def test_a_newer_search_ends_a_click_without_an_answer(asked: ExplorerPage, searcher: Searcher, tile: Hit) -> None:
    first, second, *_ = _visible_hits(asked, searcher)
    waiting: list[Route] = []
    asked.page.route("**/click", lambda route: waiting.append(route))
    with asked.page.expect_request("**/click"):
        asked.click_place(*place_of(first))
    asked.page.get_by_role("textbox", name="Tile id").fill(second.tile_id)
    asked.page.keyboard.press("Enter")
    expected = searcher.ask(Query(tile=name_of(second)), k=K)
    asked.expect_hits(expected)
    for route in waiting:
        route.continue_()
    asked.wait_until_drawn()
    asked.expect_hits(expected)


def test_details_show_the_rank_in_the_answer_on_the_page(asked: ExplorerPage) -> None:
    asked.page.get_by_role("button", name="Details of tile 2", exact=True).click()
    details = asked.page.get_by_role("dialog")
    expect(details.get_by_role("term").first).to_have_text("Rank")
    # The tile becomes an example, so the next answer lacks it.
    details.get_by_role("button", name="More like this").click()
    expect(details.get_by_role("term").first).not_to_have_text("Rank")


def test_the_similarity_of_all_tiles_is_a_layer(asked: ExplorerPage) -> None:
    before = asked.map_picture()
    asked.page.get_by_role("switch", name="Similarity of all tiles").check()
    expect(asked.page.get_by_role("figure", name="Legend")).to_contain_text("imilar")
    asked.wait_until_drawn()
    assert asked.map_picture() != before


def test_each_colour_has_a_legend_and_draws(opened: OpenPage) -> None:
    explored = opened()
    explored.open(VIEW)
    legend = explored.page.get_by_role("figure", name="Legend")
    pictures = set()
    for colour in ("pca", "validity", "qa", "cluster", "date"):
        explored.page.get_by_role("combobox", name="Colour of tiles").select_option(colour)
        expect(legend).to_be_visible()
        explored.wait_until_drawn()
        pictures.add(explored.map_picture())
    assert len(pictures) == 5
    explored.page.get_by_role("combobox", name="Colour of tiles").select_option("cluster")
    explored.page.get_by_role("combobox", name="Number of classes").select_option("3")
    expect(legend.get_by_role("listitem")).to_have_count(3)
    explored.expect_url(classes="3")
    # The layers are the first part of the side bar, so that nobody has to scroll to the legend.
    expect(legend).to_be_in_viewport(ratio=1)


def test_downloads_equal_the_view(asked: ExplorerPage, searcher: Searcher, tmp_path: Path) -> None:
    asked.page.get_by_role("slider", name="Valid pixels").press("End")
    expected = searcher.ask(Query(tile=TILE), Where(min_valid_fraction=1.0), k=K)
    asked.expect_hits(expected)
    names = [name_of(hit) for hit in expected.hits]
    files = {kind: asked.download(kind, tmp_path) for kind in ("GeoJSON", "GeoParquet", "Python")}
    features = json.loads(files["GeoJSON"].read_text())["features"]
    assert [f"{one['properties']['dataset_id']}/{one['properties']['tile_id']}" for one in features] == names
    rows = pq.read_table(files["GeoParquet"]).to_pylist()
    assert [f"{row['dataset_id']}/{row['tile_id']}" for row in rows] == names
    answer: Answer = runpy.run_path(str(files["Python"]))["answer"]
    assert [name_of(hit) for hit in answer.hits] == names


def test_a_url_restores_the_view_on_another_page(asked: ExplorerPage, opened: OpenPage, searcher: Searcher) -> None:
    asked.page.get_by_role("button", name="More like tile 2", exact=True).click()
    asked.page.get_by_role("combobox", name="Colour of tiles").select_option("validity")
    asked.page.get_by_role("slider", name="Valid pixels").press("End")
    liked = name_of(searcher.ask(Query(tile=TILE), k=2).hits[1])
    answer = searcher.ask(Query(tile=TILE, like=(liked,)), Where(min_valid_fraction=1.0), k=K)
    asked.expect_hits(answer)
    asked.wait_until_drawn()
    other = opened()
    other.page.goto(asked.page.url)
    other.expect_hits(answer)
    expect(other.page.get_by_role("combobox", name="Colour of tiles")).to_have_value("validity")
    expect(other.page.get_by_role("slider", name="Valid pixels")).to_have_value(
        asked.page.get_by_role("slider", name="Valid pixels").input_value()
    )
    other.expect_url(**{name: value for name, (value,) in asked.url_state.items()})
    assert other.url_state.keys() == asked.url_state.keys()
