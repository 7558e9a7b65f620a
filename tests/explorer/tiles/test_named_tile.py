"""One tile by its id, compared with the rows of the library's own GeoDataFrame."""

from __future__ import annotations

import shapely
from starlette.testclient import TestClient

from rasterembed.collection_upkeep import rebuild_collection
from rasterembed.dataset.dataset import Dataset
from rasterembed.explorer.app import create_app
from rasterembed.explorer.settings import ExplorerSettings
from tests.explorer.tiles.conftest import SCENES, World


def test_a_tile_of_a_dataset_has_its_outline(client: TestClient, world: World) -> None:
    rows = Dataset.open(world.store, "town").to_geodataframe()
    row = rows.iloc[17]
    answer = client.get(f"/api/datasets/town/tile/town/{row['tile_id']}")
    assert answer.status_code == 200
    tile = answer.json()
    assert (tile["dataset_id"], tile["tile_id"]) == ("town", row["tile_id"])
    assert shapely.geometry.shape(tile["geometry"]).equals_exact(row.geometry, 1e-9)


def test_tiles_of_a_collection_with_one_id_are_told_apart(client: TestClient, world: World) -> None:
    first, second = SCENES[0].name, SCENES[1].name
    ids = [set(Dataset.open(world.store, name).to_geodataframe()["tile_id"]) for name in (first, second)]
    shared = min(ids[0] & ids[1])
    found = [client.get(f"/api/collections/survey/tile/{name}/{shared}").json() for name in (first, second)]
    assert [tile["dataset_id"] for tile in found] == [first, second]
    assert found[0]["acquired"] != found[1]["acquired"]


def test_an_unknown_tile_is_a_clear_problem(client: TestClient) -> None:
    for path in ("town/r999999_c000000", "other/r000000_c000000", "town/%3Cscript%3E"):
        answer = client.get(f"/api/datasets/town/tile/{path}")
        assert answer.status_code == 404
        assert answer.json()["type"] == "unknown-tile"


def test_a_tile_of_a_scene_without_a_place_on_earth_has_no_place(world: World) -> None:
    rebuild_collection(world.store, "unplaced", datasets=["nowhere"])
    with TestClient(create_app(ExplorerSettings(store=world.store)), base_url="http://127.0.0.1") as service:
        answer = service.get("/api/collections/unplaced/tile/nowhere/r000001_c000002")
    assert answer.status_code == 200, answer.text
    tile = answer.json()
    assert (tile["dataset_id"], tile["tile_id"]) == ("nowhere", "r000001_c000002")
    assert tile["lon"] is tile["lat"] is tile["geometry"] is None
