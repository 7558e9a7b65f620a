"""The explorer answers exactly as the library does: the same tiles, distances and order."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import shapely
from starlette.testclient import TestClient
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rasterembed.collection.collection import Collection
from rasterembed.dataset.dataset import Dataset
from rasterembed.explorer.app import create_app
from rasterembed.explorer.asking.requests import MAX_CORNERS, MAX_EXAMPLES, MAX_K, MAX_SCENES
from rasterembed.explorer.settings import ExplorerSettings, Limits
from rasterembed.search.answer import Answer
from rasterembed.search.query import Query, Where
from rasterembed.store.object_store import ObjectStore
from tests.support.search_world import tiles_of

TRIANGLE = [[24.448, 60.5905], [24.458, 60.5905], [24.452, 60.584], [24.448, 60.5905]]
"""A ring that cuts through tiles of every scene."""

BOX = [24.45, 60.585, 24.46, 60.59]

DATELINE = [[179.6, 9.6], [180.3, 9.9], [180.3, 9.6], [179.6, 9.6]]
"""A ring that crosses the antimeridian."""


def tile_names(store: ObjectStore, dataset_id: str) -> list[str]:
    """Return the names of the tiles of a dataset whose vectors are not zero, with their dataset."""
    dataset = Dataset.open(store, dataset_id)
    tiles = dataset.tiles()["tile_id"].to_pylist()
    return [f"{dataset_id}/{tiles[number]}" for number in dataset.vectors().any(axis=1).nonzero()[0]]


def of_library(store: ObjectStore, folder: Path, kind: str, id: str, body: dict[str, Any]) -> Answer:
    """Return the answer of the library itself. A polygon is written to a file, as a person would do."""
    where = dict(body.get("where", {}))
    polygon = where.pop("polygon", None)
    if polygon is not None:
        where["within"] = folder / "area.geojson"
        where["within"].write_text(json.dumps(polygon))
    view = Dataset.open(store, id) if kind == "datasets" else Collection.open(store, id)
    return view.search(Query(**body["query"]), Where(**where), body.get("k"))


def assert_same(answer: dict[str, Any], wanted: Answer) -> None:
    """Compare an answer of the service with that of the library, field by field."""
    assert answer["type"] == "FeatureCollection"
    assert len(answer["features"]) == len(wanted.hits)
    for feature, hit in zip(answer["features"], wanted.hits, strict=True):
        assert feature["type"] == "Feature"
        assert feature["id"] == f"{hit.dataset_id}/{hit.tile_id}"
        expected = hit.model_dump(mode="json")
        for name, value in feature["properties"].items():
            assert value == (1.0 - hit.distance if name == "similarity" else expected[name]), name
        assert shapely.equals_exact(
            shapely.from_geojson(json.dumps(feature["geometry"])), shapely.from_wkb(hit.geometry), tolerance=0
        )
    assert (answer["query"], answer["notes"], answer["k"]) == (wanted.query, wanted.notes(), wanted.k)
    assert answer["hints"] == wanted.hint.splitlines()
    assert [engine["why"] for engine in answer["engines"]] == [engine.why for engine in wanted.engines]


CASES: dict[str, Callable[[list[str]], dict[str, Any]]] = {
    "a tile": lambda tiles: {"query": {"tile": tiles[3]}},
    "one hit": lambda tiles: {"query": {"tile": tiles[3]}, "k": 1},
    "all hits": lambda tiles: {"query": {"tile": tiles[3]}, "k": MAX_K},
    "the query's own tile": lambda tiles: {"query": {"tile": tiles[3], "include_query": True}},
    "a place": lambda tiles: {"query": {"lonlat": [24.4515, 60.587]}},
    "liked and unliked tiles": lambda tiles: {
        "query": {"tile": tiles[3], "like": tiles[4:6], "unlike": [tiles[7]]},
        "k": 20,
    },
    "liked tiles alone": lambda tiles: {"query": {"like": tiles[2:5]}},
    "a box": lambda tiles: {"query": {"tile": tiles[3]}, "where": {"bbox": BOX}, "k": 50},
    "a polygon": lambda tiles: {
        "query": {"tile": tiles[3]},
        "where": {"polygon": {"type": "Polygon", "coordinates": [TRIANGLE]}},
        "k": 50,
    },
    "two polygons and a box": lambda tiles: {
        "query": {"tile": tiles[3]},
        "where": {"polygon": {"type": "MultiPolygon", "coordinates": [[TRIANGLE], [TRIANGLE]]}, "bbox": BOX},
        "k": 50,
    },
    "valid pixels and dates": lambda tiles: {
        "query": {"tile": tiles[3]},
        "where": {"min_valid_fraction": 0.5, "since": "2025-01-01", "until": "2026-06-01T10:00:00Z"},
        "k": 50,
    },
    "clouds": lambda tiles: {"query": {"tile": tiles[3]}, "where": {"max_cloud_cover": 10}, "k": 50},
    "no tile passes": lambda tiles: {"query": {"tile": tiles[3]}, "where": {"bbox": [0, 0, 1, 1]}},
}


@pytest.mark.parametrize("kind", ["datasets", "collections"])
@pytest.mark.parametrize("case", CASES)
def test_an_answer_equals_that_of_the_library(
    service: TestClient, store: ObjectStore, tmp_path: Path, kind: str, case: str
) -> None:
    id = "first" if kind == "datasets" else "survey"
    body = CASES[case](tile_names(store, "first"))
    response = service.post(f"/api/{kind}/{id}/search", json=body)
    assert response.status_code == 200, response.text
    wanted = of_library(store, tmp_path, kind, id, body)
    assert_same(response.json(), wanted)
    assert bool(wanted.hits) == (case != "no tile passes")


@pytest.mark.parametrize("pick", ["latest", "clearest"])
@pytest.mark.parametrize("where", [{}, {"scenes": ["first", "th*"], "min_valid_fraction": 0.4}])
def test_one_scene_of_a_collection_is_picked_for_each_tile(
    service: TestClient, store: ObjectStore, tmp_path: Path, pick: str, where: dict[str, Any]
) -> None:
    tile = tile_names(store, "first")[3]
    body = {"query": {"tile": tile}, "where": {"pick": pick, **where}, "k": 100}
    response = service.post("/api/collections/survey/search", json=body)
    wanted = of_library(store, tmp_path, "collections", "survey", body)
    assert_same(response.json(), wanted)
    tiles = [hit.tile_id for hit in wanted.hits]
    assert len(tiles) == len(set(tiles)) > 10


PLACE = (24.4515, 60.587)


def name_at(store: ObjectStore, dataset_id: str) -> str:
    """Return the name of the tile that the library finds at `PLACE` in a dataset."""
    (example,) = Dataset.open(store, dataset_id).search(Query(lonlat=PLACE), k=1).examples
    assert example.tile is not None
    return f"{dataset_id}/{example.tile.tile_id}"


@pytest.mark.parametrize(
    ("change", "scenes"),
    [
        ({}, ["third", "second", "first"]),
        ({"where": {"until": "2026-06-30", "bbox": BOX}}, ["second", "first"]),
        ({"where": {"max_cloud_cover": 10, "pick": "clearest"}}, ["first"]),
        ({"where": {"scenes": ["f*"]}}, ["first"]),
        # The map shows two dates side by side. The answer has tiles of all dates.
        ({"date": "2026-06-01"}, ["second"]),
        ({"date": "2026-06-01", "where": {"since": "2026-07-01"}}, ["second"]),
        ({"date": "2020-01-01"}, []),
    ],
)
def test_a_click_gives_the_tiles_at_a_place_and_the_answer_for_the_latest(
    service: TestClient, store: ObjectStore, tmp_path: Path, change: dict[str, Any], scenes: list[str]
) -> None:
    response = service.post("/api/collections/survey/click", json={"lonlat": PLACE, "k": 30} | change)
    assert response.status_code == 200, response.text
    found = response.json()
    names = [name_at(store, scene) for scene in scenes]
    assert [f"{tile['dataset_id']}/{tile['tile_id']}" for tile in found["tiles"]] == names
    assert all(shapely.geometry.shape(tile["geometry"]).covers(shapely.Point(PLACE)) for tile in found["tiles"])
    if not names:
        assert found["answer"] is None
        return
    body = {"query": {"tile": names[0]}, "where": change.get("where", {}), "k": 30}
    assert_same(found["answer"], of_library(store, tmp_path, "collections", "survey", body))


def test_a_click_on_a_tile_without_a_direction_says_why_there_is_no_answer(
    service: TestClient, store: ObjectStore
) -> None:
    """The page then asks for the tiles at the place, and for the neighbours of the tile, which says why again."""
    first = tiles_of(store, ["first"])
    (number, *_) = np.flatnonzero(~first.vector.any(axis=1))
    name, middle = f"first/{first.tile[number]}", first.footprint[number].centroid
    place = [middle.x, middle.y]
    click = service.post("/api/datasets/first/click", json={"lonlat": place})
    search = service.post("/api/datasets/first/search", json={"query": {"tile": name}})
    assert click.status_code == search.status_code == 409
    for response in (click, search):
        assert first.tile[number] in response.json()["detail"]
        assert "its vector is zero" in response.json()["detail"]
    found = service.get("/api/datasets/first/at", params={"lon": middle.x, "lat": middle.y})
    assert [tile["tile_id"] for tile in found.json()] == [first.tile[number]]


def test_a_click_beside_all_tiles_and_a_wrong_click_are_no_search(service: TestClient) -> None:
    beside = service.post("/api/datasets/first/click", json={"lonlat": [0, 0]})
    assert beside.json() == {"tiles": [], "answer": None}
    wrong = [
        {},
        {"lonlat": [0, 91]},
        {"lonlat": PLACE, "date": "soon"},
        {"lonlat": PLACE, "tile": "first/r000001_c000001"},
    ]
    for body in wrong:
        assert service.post("/api/datasets/first/click", json=body).status_code in (400, 422)


def test_an_empty_answer_and_a_crossing_box_have_hints(service: TestClient) -> None:
    def hints(**where: Any) -> list[str]:
        body = {"query": {"lonlat": [24.4515, 60.587]}, "where": where}
        answer = service.post("/api/datasets/first/search", json=body).json()
        assert [note for note in answer["notes"] if note in answer["hints"]] == answer["hints"]
        return answer["hints"]

    (note,) = hints(bbox=[24, 50, 23, 70])
    assert note.endswith("it covers 359 degrees of longitude; did you mean the box 23 50 24 70?")
    (dates,) = hints(until="2001-01-01")
    assert dates.startswith("the scene does not pass `until`: ")


@pytest.mark.parametrize(
    "where",
    [
        {"bbox": [179.9, 9.6, -179.9, 9.8]},
        {"polygon": {"type": "Polygon", "coordinates": [DATELINE]}},
        {"polygon": {"type": "Polygon", "coordinates": [[[lon - 360, lat] for lon, lat in DATELINE]]}},
    ],
)
def test_an_area_across_the_antimeridian_has_tiles_on_both_sides(
    service: TestClient, store: ObjectStore, tmp_path: Path, where: dict[str, Any]
) -> None:
    body = {"query": {"tile": tile_names(store, "dateline")[0], "include_query": True}, "where": where, "k": 50}
    answer = service.post("/api/datasets/dateline/search", json=body).json()
    assert_same(answer, of_library(store, tmp_path, "datasets", "dateline", body))
    east = [feature["properties"]["lon"] > 0 for feature in answer["features"]]
    assert any(east)
    assert not all(east)
    assert len(east) < 18


def test_examples_are_named_with_their_datasets(service: TestClient, store: ObjectStore) -> None:
    first = tile_names(store, "first")
    body = {"query": {"lonlat": [24.4515, 60.587], "like": [first[0]], "unlike": [first[1]]}}
    answer = service.post("/api/collections/survey/search", json=body).json()
    roles = [(example["role"], example["tile"].split("/")[0]) for example in answer["examples"]]
    assert roles == [
        ("query", "first"),
        ("query", "second"),
        ("query", "third"),
        ("like", "first"),
        ("unlike", "first"),
    ]
    assert [example["tile"] for example in answer["examples"][3:]] == first[:2]
    assert answer["examples"][0]["lonlat"] == [24.4515, 60.587]


def test_many_clients_at_once_get_the_answers_of_one(service: TestClient, store: ObjectStore) -> None:
    bodies = [{"query": {"tile": tile}, "where": {"bbox": BOX}} for tile in tile_names(store, "first")[:20]]

    def ask(body: dict[str, Any]) -> Any:
        answer = service.post("/api/collections/survey/search", json=body).json()
        return [(feature["id"], feature["properties"]["distance"]) for feature in answer["features"]]

    alone = list(map(ask, bodies))
    with ThreadPoolExecutor(10) as threads:
        assert list(threads.map(ask, bodies)) == alone


def test_a_client_that_reads_slowly_does_not_stop_others(store: ObjectStore) -> None:
    app = create_app(ExplorerSettings.read(store=store, device="cpu", limits=Limits(searches=1, wait_s=5)))
    body = {"query": {"tile": tile_names(store, "first")[3]}}

    async def ask() -> list[int]:
        sends, reads = asyncio.Event(), asyncio.Event()

        async def slow(scope: Scope, receive: Receive, send: Send) -> None:
            async def send_slowly(message: Message) -> None:
                sends.set()
                await reads.wait()
                await send(message)

            await app(scope, receive, send_slowly)

        async def search(asgi: ASGIApp) -> int:
            transport = httpx.ASGITransport(asgi)
            async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1", timeout=60) as client:
                return (await client.post("/api/datasets/first/search", json=body)).status_code

        slow_search = asyncio.create_task(search(slow))
        await sends.wait()
        status = await search(app)
        reads.set()
        return [status, await slow_search]

    assert asyncio.run(ask()) == [200, 200]


WRONG: dict[str, tuple[Any, str]] = {
    "no query": ({}, "body.query: it is missing"),
    "no example": ({"query": {}}, "give an example"),
    "only an unliked tile": ({"query": {"unlike": ["r000000_c000000"]}}, "give an example"),
    "two examples": ({"query": {"tile": "r000000_c000000", "lonlat": [0, 0]}}, "only one of"),
    "no tile's name": ({"query": {"tile": "../../etc/passwd"}}, "is not a tile id"),
    "an unknown tile": ({"query": {"tile": "first/x+999999_y+999999"}}, "x+999999_y+999999"),
    "an unknown dataset": ({"query": {"tile": "other/r000000_c000000"}}, "other"),
    "a place elsewhere": ({"query": {"lonlat": [0, 0]}}, "no embedded tile"),
    "a place off Earth": ({"query": {"lonlat": [0, 91]}}, "give 90 or less"),
    "a path as image": ({"query": {"image": "/etc/passwd"}}, "64 letters and digits"),
    "an address as image": ({"query": {"image": "s3://bucket/key"}}, "64 letters and digits"),
    "an unknown image": ({"query": {"image": "0" * 64}}, "send the image again"),
    "too many examples": ({"query": {"like": ["r000000_c000000"] * (MAX_EXAMPLES + 1)}}, "give at most 100 values"),
    "k of zero": ({"k": 0}, "give 1 or more"),
    "k too large": ({"k": MAX_K + 1}, "give 500 or less"),
    "k as a fraction": ({"k": 1.5}, "body.k: give a whole number"),
    "a path as filter": ({"where": {"within": "/etc/passwd"}}, "body.where: there is no field 'within'"),
    "a key as filter": (
        {"where": {"class_file": "store:x.csv", "classes": ["1"]}},
        "body.where: there is no field 'class_file'",
    ),
    "an upside-down box": ({"where": {"bbox": [0, 10, 1, 0]}}, "south below north"),
    "a box with infinity": (
        '{"query": {"tile": "r000000_c000000"}, "where": {"bbox": [0, 0, 1, 1e999]}}',
        "give a finite number",
    ),
    "a date that does not exist": ({"where": {"since": "2024-13-01"}}, "since"),
    "words as date": ({"where": {"until": "yesterday"}}, "give a year, a month, a day or a time"),
    "too many scenes": ({"where": {"scenes": ["a"] * (MAX_SCENES + 1)}}, "give at most 100 values"),
    "a wrong pick": ({"where": {"pick": "best"}}, "pick"),
    "a point as polygon": ({"where": {"polygon": {"type": "Point", "coordinates": [0, 0]}}}, "polygon"),
    "a polygon of metres": (
        {"where": {"polygon": {"type": "Polygon", "coordinates": [[[5e5, 6e6], [6e5, 6e6], [6e5, 7e6], [5e5, 6e6]]]}}},
        "polygon",
    ),
    "a polygon of too many corners": (
        {
            "where": {
                "polygon": {
                    "type": "MultiPolygon",
                    "coordinates": [[[[0, 0], [1, 0], [1, 1], [0, 0]]]] * (MAX_CORNERS // 4 + 1),
                }
            }
        },
        f"give at most {MAX_CORNERS}",
    ),
    "a tangled polygon": (
        {
            "where": {
                "polygon": {
                    "type": "Polygon",
                    "coordinates": [[[n * 37 % 101, n * 61 % 79] for n in range(300)] + [[0, 0]]],
                }
            }
        },
        "the polygon: its polygons cross themselves",
    ),
    "an unknown field": ({"answer": 1}, "answer"),
    "a list": ([], "body"),
    "no JSON": ("{", "body"),
    "half a character": ('{"query": {"tile": "\\ud800"}}', "tile"),
}
"""Wrong bodies, and words that the problem has. A body without a query gets a valid one."""


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_body_is_one_clear_problem(service: TestClient, store: ObjectStore, case: str) -> None:
    body, words = WRONG[case]
    if isinstance(body, dict) and body and "query" not in body:
        body = {"query": {"tile": tile_names(store, "first")[3]}, **body}
    text = body if isinstance(body, str) else json.dumps(body)
    headers = {"Content-Type": "application/json"}
    response = service.post("/api/collections/survey/search", content=text, headers=headers)
    assert response.status_code in (404, 409, 422), response.text
    assert response.headers["content-type"] == "application/problem+json"
    problem = response.json()
    assert words in problem["detail"]
    assert "\n" not in problem["detail"]
    assert "/polygon-" not in problem["detail"]  # The service's own files are not named.
    assert len(problem["detail"]) < 600


def test_picking_scenes_of_a_dataset_is_a_problem(service: TestClient, store: ObjectStore) -> None:
    body = {"query": {"tile": tile_names(store, "first")[0]}, "where": {"pick": "latest"}}
    problem = service.post("/api/datasets/first/search", json=body).json()
    assert (problem["status"], problem["type"]) == (422, "wrong-request")


def test_no_file_of_a_polygon_stays(
    service: TestClient, store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    polygon = {"type": "Polygon", "coordinates": [TRIANGLE]}
    body = {"query": {"tile": tile_names(store, "first")[0]}, "where": {"polygon": polygon}}
    assert service.post("/api/datasets/first/search", json=body).json()["features"]
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
