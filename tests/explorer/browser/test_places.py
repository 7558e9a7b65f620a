"""Rasters in unusual places: across the antimeridian, in degrees, and around a pole."""

from __future__ import annotations

import pytest

from rasterembed.search.query import Query
from rasterembed.search.searcher import Searcher
from tests.explorer.browser.conftest import OpenPage
from tests.support.explorer_stores import Archive

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]


@pytest.mark.parametrize(
    ("dataset", "tile", "zoom"),
    [
        ("dateline", "r000003_c000002", 6.5),
        ("dateline", "r000005_c000008", 6.5),
        ("degrees", "r000003_c000005", 2.0),
        ("polar", "r000001_c000002", 3.0),
        ("polar", "r000006_c000005", 3.0),
    ],
)
def test_a_click_on_a_tile_shows_its_neighbours(
    opened: OpenPage, archive: Archive, dataset: str, tile: str, zoom: float
) -> None:
    with Searcher(archive.store, [dataset]) as searcher:
        itself = searcher.ask(Query(tile=tile, include_query=True), k=1).hits[0]
        assert itself.tile_id == tile
        answer = searcher.ask(Query(tile=tile), k=24)
    assert itself.lon is not None
    assert itself.lat is not None
    explored = opened()
    # The centre of the map is beside the tile, so that the tile may lie on the other side of the antimeridian.
    centre = ((itself.lon + 181) % 360 - 180, max(-80.0, min(80.0, itself.lat - 1)), zoom)
    explored.open(f"datasets/{dataset}", at=centre)
    explored.click_place(itself.lon, itself.lat)
    explored.expect_hits(answer)
    explored.expect_url(tile=f"{dataset}/{tile}")


@pytest.mark.parametrize(("dataset", "lon"), [("dateline", 180.0), ("degrees", 0.0), ("polar", None)])
def test_the_map_shows_the_whole_of_a_view(opened: OpenPage, dataset: str, lon: float | None) -> None:
    explored = opened()
    explored.open(f"datasets/{dataset}")
    centre, lat, zoom = explored.position
    if lon is not None:
        assert abs((centre - lon + 180) % 360 - 180) < 3
    # The raster across the antimeridian is a few hundred kilometres wide: its map is not that of the world.
    assert zoom > (5 if dataset == "dateline" else 0)
    assert abs(lat) < 85.06
