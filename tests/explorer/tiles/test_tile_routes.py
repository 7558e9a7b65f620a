"""The endpoints of the tiles, compared with the shards, shapely, NumPy and the library's own searches."""

from __future__ import annotations

import asyncio
import io
import math
import threading
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import matplotlib
import numpy as np
import pytest
import shapely
from numpy.typing import NDArray
from PIL import Image
from starlette.testclient import TestClient

from rasterembed.collection.collection import Collection
from rasterembed.collection_upkeep import check_collection, rebuild_collection
from rasterembed.dataset.dataset import Dataset
from rasterembed.errors import RasterEmbedError
from rasterembed.explorer.app import create_app
from rasterembed.explorer.map_tile import SIDE
from rasterembed.explorer.settings import ExplorerSettings
from rasterembed.explorer.tiles.colouring import Colouring
from rasterembed.explorer.tiles.layers import TileLayers
from rasterembed.model.choice import Dinov3
from rasterembed.raster.grid import Grid
from rasterembed.search.collection_searcher import CollectionSearcher
from rasterembed.search.query import Query, Where
from rasterembed.search.searcher import Searcher
from rasterembed.store.object_store import ObjectStore
from tests.explorer.tiles.conftest import COLS, DIMENSIONS, ROWS, SCENES, SKIPPED, World
from tests.support.search_world import ANCHORED, Scene, Tiles, tiles_of, write_scene_and_dataset
from tests.support.vectors import checkpoint, write_dataset

NAMES = [scene.name for scene in SCENES]
GREY = (154, 154, 154)


def picture(client: TestClient, view: str, at: tuple[int, int, int], **parameters: Any) -> NDArray[np.uint8]:
    """Return a map tile as red, green, blue and opacity of each pixel."""
    answer = client.get(f"/api/{view}/tiles/{at[0]}/{at[1]}/{at[2]}.png", params=parameters)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "image/png"
    return np.asarray(Image.open(io.BytesIO(answer.content)).convert("RGBA"))


def pixel_at(lon: float, lat: float, z: int) -> tuple[tuple[int, int, int], int, int]:
    """Return the map tile, the column and the row of a place."""
    x = (lon + 180) / 360 * 2**z
    y = (0.5 - math.asinh(math.tan(math.radians(lat))) / (2 * math.pi)) * 2**z
    return (z, int(x), int(y)), int(x % 1 * SIDE), int(y % 1 * SIDE)


def middle(footprint: shapely.Geometry) -> tuple[float, float]:
    """Return a place inside a footprint, which may cross the antimeridian."""
    part = max(shapely.get_parts(footprint), key=lambda part: part.area)
    point = part.representative_point()
    return point.x, point.y


def colours_of(
    client: TestClient, view: str, tiles: Tiles, numbers: Sequence[int], z: int, **parameters: Any
) -> NDArray[np.uint8]:
    """Return the colour of the map at the middle of some tiles."""
    found = []
    known: dict[tuple[int, int, int], NDArray[np.uint8]] = {}
    for number in numbers:
        at, col, row = pixel_at(*middle(tiles.footprint[number]), z)
        if at not in known:
            known[at] = picture(client, view, at, **parameters)
        found.append(known[at][min(row, len(known[at]) - 1), min(col, len(known[at]) - 1)])
    return np.array(found)


@pytest.fixture(scope="module")
def town(world: World) -> Tiles:
    return tiles_of(world.store, ["town"])


@pytest.mark.parametrize(
    ("name", "z"), [("town", 13), ("rotated", 13), ("polar", 3), ("dateline", 11), ("town", 8), ("dateline", 6)]
)
def test_the_colour_at_a_tile_is_that_of_its_valid_fraction(
    client: TestClient, world: World, name: str, z: int
) -> None:
    tiles = tiles_of(world.store, [name])
    seen = [i for i, footprint in enumerate(tiles.footprint) if middle(footprint)[1] < 84]
    numbers = np.random.default_rng(1).permutation(seen)[:60]
    found = colours_of(client, f"datasets/{name}", tiles, numbers.tolist(), z, colour="validity")
    assert (found[:, 3] == 255).all()
    expected = matplotlib.colormaps["cividis"](tiles.valid[numbers])[:, :3] * 255
    if z not in (8, 6):
        assert np.abs(found[:, :3] - expected).max() < 3
    else:
        # A pixel shows one of several tiles. Its colour is on the ramp.
        ramp = matplotlib.colormaps["cividis"](np.linspace(0, 1, 1000))[:, :3] * 255
        assert max(np.abs(ramp - rgb).max(axis=1).min() for rgb in found[:, :3].astype(float)) < 3


def test_skipped_tiles_and_the_ground_around_are_transparent(client: TestClient, world: World) -> None:
    tiles = Dataset.open(world.store, "town").tiles()
    footprints = shapely.from_wkb(tiles["geometry"].to_numpy())
    for number in np.flatnonzero(tiles["status"].to_numpy() == "skipped"):
        at, col, row = pixel_at(*middle(footprints[number]), 13)
        assert picture(client, "datasets/town", at, colour="validity")[row, col, 3] == 0
    assert picture(client, "datasets/town", (5, 0, 0), colour="validity").shape == (1, 1, 4)


def test_the_dateline_is_crossed_without_a_gap(client: TestClient, world: World) -> None:
    tiles = tiles_of(world.store, ["dateline"])
    crossing = [i for i, footprint in enumerate(tiles.footprint) if footprint.geom_type == "MultiPolygon"]
    assert crossing
    for number in crossing:
        for part in shapely.get_parts(tiles.footprint[number]):
            # Beside the antimeridian, not in the middle: a narrow part has its middle there.
            at, col, row = pixel_at(part.representative_point().x, part.representative_point().y, 13)
            found = picture(client, "datasets/dateline", at, colour="validity")[row, col]
            expected = matplotlib.colormaps["cividis"](tiles.valid[number])[:3]
            assert np.abs(found[:3] - np.array(expected) * 255).max() < 3


def test_principal_components_are_those_of_numpy(client: TestClient, town: Tiles) -> None:
    unit = town.vector / np.linalg.norm(town.vector, axis=1, keepdims=True)
    centred = unit - unit.mean(axis=0)
    _, values, axes = np.linalg.svd(centred, full_matrices=False)
    axes = axes[:3] * np.sign(np.take_along_axis(axes[:3], np.abs(axes[:3]).argmax(axis=1)[:, None], axis=1))
    projected = centred @ axes.T
    low, high = np.percentile(projected, (2, 98), axis=0)
    expected = np.clip((projected - low) / (high - low), 0, 1) * 255
    numbers = list(range(0, len(town), 7))
    found = colours_of(client, "datasets/town", town, numbers, 13, colour="pca")
    assert np.abs(found[:, :3] - expected[numbers]).max() < 1
    legend = client.get("/api/datasets/town/legend", params={"colour": "pca"}).json()
    share = values[0] ** 2 / np.sum(values**2)
    assert legend["type"] == "rgb"
    assert legend["channels"][0] == f"Red: component 1, {share:.0%} of the variance"


def test_similarity_is_the_cosine_of_numpy(client: TestClient, town: Tiles) -> None:
    query = town.number("town", "r000004_c000006")
    answer = client.post("/api/datasets/town/similarity", json={"query": {"tile": "town/r000004_c000006"}})
    assert answer.status_code == 200, answer.text
    cosine = 1 - town.distances(town.vector[query])
    found = answer.json()
    assert found["high"] == pytest.approx(1.0, abs=1e-6)
    assert found["low"] == pytest.approx(float(np.median(cosine)), abs=1e-6)
    numbers = [query, *range(0, len(town), 9)]
    colours = colours_of(
        client, "datasets/town", town, numbers, 13, colour="similarity", similarity=found["similarity"]
    )
    share = np.clip((cosine - found["low"]) / (1 - found["low"]), 0, 1)
    expected = matplotlib.colormaps["inferno"](share[numbers])[:, :3] * 255
    assert np.abs(colours[:, :3] - expected).max() < 5
    legend = client.get(
        "/api/datasets/town/legend", params={"colour": "similarity", "similarity": found["similarity"]}
    ).json()
    assert (legend["low"], legend["high"]) == (found["low"], found["high"])


def test_similarities_of_a_notebook_are_those_of_numpy(world: World, town: Tiles) -> None:
    dataset, collection = Dataset.open(world.store, "town"), Collection.open(world.store, "survey")
    table = dataset.similarities(Query(tile="r000001_c000002", unlike=("r000008_c000001",)))
    with Searcher(world.store, ["town"]) as searcher:
        vector = searcher.resolve(Query(tile="r000001_c000002", unlike=("r000008_c000001",))).vector
    order = [town.number("town", name) for name in table["tile_id"].to_pylist()]
    assert np.abs(table["similarity"].to_numpy() - (1 - town.distances(vector))[order]).max() < 1e-6
    survey = tiles_of(world.store, NAMES)
    own = collection.similarities(vector=survey.vector[3])
    names = zip(own["dataset_id"].to_pylist(), own["tile_id"].to_pylist(), strict=True)
    order = [survey.number(*name) for name in names]
    assert sorted(order) == list(range(len(survey)))
    assert np.abs(own["similarity"].to_numpy() - (1 - survey.distances(survey.vector[3]))[order]).max() < 1e-6


def test_an_unknown_similarity_is_a_problem_of_its_own(client: TestClient) -> None:
    for path in ("legend", "tiles/0/0/0.png"):
        answer = client.get(f"/api/datasets/town/{path}", params={"colour": "similarity", "similarity": "0" * 32})
        assert (answer.status_code, answer.json()["type"]) == (404, "unknown-similarity")
        answer = client.get(f"/api/datasets/town/{path}", params={"colour": "similarity"})
        assert answer.status_code == 422


def test_the_quality_shows_skipped_tiles_by_their_reason(client: TestClient, world: World, town: Tiles) -> None:
    legend = client.get("/api/datasets/town/legend", params={"colour": "qa"}).json()
    classes = {one["label"]: one for one in legend["classes"]}
    assert {label: one["tiles"] for label, one in classes.items()} == {
        "Embedded": ROWS * COLS - len(SKIPPED),
        "Skipped, no valid pixel": len(SKIPPED),
    }
    rows = Dataset.open(world.store, "town").tiles()
    footprints = shapely.from_wkb(rows["geometry"].to_numpy())
    for status, label in (("embedded", "Embedded"), ("skipped", "Skipped, no valid pixel")):
        number = int(np.flatnonzero(rows["status"].to_numpy() == status)[1])
        at, col, row = pixel_at(*middle(footprints[number]), 13)
        rgb = picture(client, "datasets/town", at, colour="qa")[row, col]
        assert "#{:02x}{:02x}{:02x}".format(*rgb[:3]) == classes[label]["colour"]


def test_classes_keep_equal_vectors_together(client: TestClient, town: Tiles) -> None:
    legend = client.get("/api/datasets/town/legend", params={"colour": "cluster", "classes": 4}).json()
    colours = [one["colour"] for one in legend["classes"]]
    assert sum(one["tiles"] for one in legend["classes"]) == len(town)
    assert [one["tiles"] for one in legend["classes"]] == sorted(one["tiles"] for one in legend["classes"])[::-1]
    # `cluster` and the searches of its file number the classes in the same way.
    assert [one["label"] for one in legend["classes"]] == ["Class 0", "Class 1", "Class 2", "Class 3"]
    found = colours_of(client, "datasets/town", town, range(len(town)), 13, colour="cluster", classes=4)
    number = np.array([colours.index("#{:02x}{:02x}{:02x}".format(*rgb[:3])) for rgb in found])
    # The vectors were made in four groups of rows of the grid.
    group = np.array([int(name[1:7]) * 4 // ROWS for name in town.tile])
    for one in range(4):
        assert len(set(number[group == one].tolist())) == 1
    assert client.get("/api/datasets/town/legend?colour=cluster&classes=13").status_code == 422


def test_dates_are_shown_with_the_latest_scene_on_top(client: TestClient, world: World) -> None:
    legend = client.get("/api/collections/survey/legend", params={"colour": "date"}).json()
    assert (legend["low_text"], legend["high_text"]) == ("2024-07-03", "2025-08-20")
    times = np.array([scene.when.timestamp() for scene in SCENES if scene.when])
    ramp = matplotlib.colormaps["plasma"]((times - times[0]) / (times[2] - times[0]))[:, :3] * 255
    survey = tiles_of(world.store, NAMES)
    number = np.array([NAMES.index(name) for name in survey.dataset])
    numbers = np.random.default_rng(2).permutation(len(survey))[:40]
    found = colours_of(client, "collections/survey", survey, numbers.tolist(), 13, colour="date")
    points = shapely.points([middle(footprint) for footprint in survey.footprint[numbers]])
    for point, rgb in zip(points, found, strict=True):
        latest = number[shapely.covers(survey.footprint, point)].max()
        assert np.abs(rgb[:3] - ramp[latest]).max() < 3
    assert client.get("/api/datasets/town/legend", params={"colour": "date"}).json()["low"] is None
    assert (
        tuple(colours_of(client, "datasets/town", tiles_of(world.store, ["town"]), [0], 13, colour="date")[0][:3])
        == GREY
    )


def test_the_time_of_a_file_is_not_shown_as_a_time_of_acquisition(tmp_path: Path) -> None:
    store, random = ObjectStore(root=str(tmp_path / "store")), np.random.default_rng(3)
    model = Dinov3(model=str(checkpoint(tmp_path / "model", 8)), device="cpu")
    scenes = Scene("dated", 3, 3, 0, datetime(2024, 7, 3, 10, tzinfo=UTC)), Scene("undated", 3, 3, 4)
    for scene in scenes:
        vectors = random.standard_normal((scene.count, 8)).astype(np.float32)
        write_scene_and_dataset(tmp_path, store, scene, model, vectors, grid=ANCHORED)
    rebuild_collection(store, "set", datasets=[scene.name for scene in scenes])
    tiles = tiles_of(store, ["undated"])
    lon, lat = middle(tiles.footprint[0])
    later = {"since": "2024-07-04"}
    with TestClient(create_app(ExplorerSettings(store=store)), base_url="http://127.0.0.1") as client:
        (found,) = client.get("/api/collections/set/at", params={"lon": lon, "lat": lat}).json()
        assert (found["dataset_id"], found["acquired"]) == ("undated", None)
        days = client.get("/api/collections/set").json()["dates"]
        assert [(day["date"], day["scenes"]) for day in days] == [("2024-07-03", 1)]
        legend = client.get("/api/collections/set/legend", params={"colour": "date"}).json()
        assert (legend["low_text"], legend["high_text"]) == ("2024-07-03", "2024-07-03")
        # The filters of a collection still use the time of the file, as those of a search do.
        colour = colours_of(client, "collections/set", tiles, [0], 13, colour="date", **later)[0]
        assert (*colour[:3],) == GREY
        assert colour[3] > 0
        assert not colours_of(client, "collections/set", tiles_of(store, ["dated"]), [0], 13, **later)[0][3]


FILTERS: list[dict[str, Any]] = [
    {"min_valid_fraction": 0.6},
    {"since": "2025-07-01"},
    {"until": "2025-07-01"},
    {"max_cloud_cover": 10},
    {"pick": "latest"},
    {"pick": "clearest", "min_valid_fraction": 0.5},
    {"pick": "latest", "until": "2025-07-31", "max_cloud_cover": 8},
    {"since": "2030-01-01"},
]


@pytest.mark.parametrize("filters", FILTERS, ids=str)
def test_filters_leave_the_tiles_that_a_search_finds(client: TestClient, world: World, filters: dict[str, Any]) -> None:
    with CollectionSearcher(world.store, "survey") as searcher:
        answer = searcher.ask_vector(np.ones(DIMENSIONS), Where(**filters), k=1000)
    expected = sorted(f"{hit.dataset_id}/{hit.tile_id}" for hit in answer.hits)
    shown = client.get("/api/collections/survey/footprints", params={"bbox": "20,55,30,65", **filters}).json()
    assert sorted(feature["id"] for feature in shown["features"]) == expected
    survey = tiles_of(world.store, NAMES)
    names = zip(survey.dataset, survey.tile, strict=True)
    allowed = np.isin([f"{dataset}/{tile}" for dataset, tile in names], expected)
    numbers = range(0, len(survey), 3)
    opacity = colours_of(client, "collections/survey", survey, numbers, 13, colour="validity", **filters)[:, 3]
    points = shapely.points([middle(survey.footprint[number]) for number in numbers])
    covered = [bool(shapely.covers(survey.footprint[allowed], point).any()) for point in points]
    assert (opacity == 255).tolist() == covered


def test_filters_that_do_not_fit_are_refused(client: TestClient) -> None:
    for filters in (
        {"pick": "latest"},
        {"since": "yesterday"},
        {"min_valid_fraction": 2},
        {"min_valid_fraction": "nan"},
    ):
        answer = client.get("/api/datasets/town/tiles/0/0/0.png", params=filters)
        assert answer.status_code == 422, answer.text
        assert answer.json()["detail"]


@pytest.mark.parametrize(
    ("view", "names"),
    [
        ("datasets/town", ["town"]),
        ("datasets/polar", ["polar"]),
        ("datasets/dateline", ["dateline"]),
        ("collections/survey", NAMES),
    ],
)
def test_the_tiles_at_a_place_are_the_examples_of_the_library(
    client: TestClient, world: World, view: str, names: list[str]
) -> None:
    tiles = tiles_of(world.store, names)
    random = np.random.default_rng(4)
    collection = view.startswith("collections")
    places = [middle(tiles.footprint[number]) for number in random.permutation(len(tiles))[:12]]
    bounds = shapely.total_bounds(tiles.footprint)
    places += random.uniform(bounds[:2], bounds[2:], (6, 2)).tolist()
    if names == ["polar"]:
        places += [(33.0, 89.9), (180.0, 89.0), (-180.0, 75.0), (0.0, 90.0)]
    with CollectionSearcher(world.store, "survey") if collection else Searcher(world.store, names) as searcher:
        for lon, lat in places:
            try:
                examples = searcher.resolve(Query(lonlat=(lon, lat))).examples
                expected = {(one.tile.dataset_id, one.tile.tile_id) for one in examples if one.tile}
            except RasterEmbedError:
                expected = set()
            found = client.get(f"/api/{view}/at", params={"lon": lon, "lat": lat}).json()
            assert {(one["dataset_id"], one["tile_id"]) for one in found} == expected
            for one in found:
                number = tiles.number(one["dataset_id"], one["tile_id"])
                assert one["valid_fraction"] == pytest.approx(float(tiles.valid[number]))
                assert shapely.equals_exact(shapely.geometry.shape(one["geometry"]), tiles.footprint[number], 1e-9)
            dates = [one["acquired"] for one in found if collection]
            assert dates == sorted(dates, reverse=True)


def test_a_raster_without_a_place_lies_around_the_middle_of_the_map(client: TestClient) -> None:
    shown = client.get("/api/datasets/nowhere/footprints", params={"bbox": "-1,-1,1,1"}).json()["features"]
    assert len(shown) == ROWS * COLS
    boxes = shapely.union_all([shapely.geometry.shape(one["geometry"]) for one in shown])
    west, south, east, north = boxes.bounds
    assert (west, south) == pytest.approx((-east, -north))
    assert (east - west) / (north - south) == pytest.approx(COLS / ROWS, rel=1e-3)
    for one in shown[::25]:
        point = shapely.geometry.shape(one["geometry"]).centroid
        (found,) = client.get("/api/datasets/nowhere/at", params={"lon": point.x, "lat": point.y}).json()
        assert found["tile_id"] == one["properties"]["tile_id"]
        at, col, row = pixel_at(point.x, point.y, 14)
        rgb = picture(client, "datasets/nowhere", at, colour="validity")[row, col, :3]
        assert np.abs(rgb - np.array(matplotlib.colormaps["cividis"](found["valid_fraction"])[:3]) * 255).max() < 3
    first = next(one for one in shown if one["properties"]["tile_id"] == "r000000_c000000")
    assert shapely.geometry.shape(first["geometry"]).bounds[0] == pytest.approx(west)
    assert shapely.geometry.shape(first["geometry"]).bounds[3] == pytest.approx(north)


def test_outlines_are_those_in_the_box(client: TestClient, world: World) -> None:
    tiles = tiles_of(world.store, ["dateline"])
    for west, east, south, north in ((179.9, -179.9, 0.7, 0.9), (179.97, 180, -1, 2), (-180, -179.95, 0, 0.85)):
        parts = [(west, 180), (-180, east)] if west > east else [(west, east)]
        box = shapely.union_all([shapely.box(low, south, high, north) for low, high in parts])
        expected = {str(tile) for tile in tiles.tile[shapely.intersects(tiles.footprint, box)]}
        answer = client.get("/api/datasets/dateline/footprints", params={"bbox": f"{west},{south},{east},{north}"})
        found = {one["properties"]["tile_id"]: one for one in answer.json()["features"]}
        # The outlines of a box are those whose bounds meet it.
        assert expected <= set(found)
        assert all(shapely.geometry.shape(one["geometry"]).envelope.intersects(box) for one in found.values())
    for bbox in ("1,2,3", "a,b,c,d", "0,50,1,40", "nan,0,1,1", "-200,0,1,1"):
        assert client.get("/api/datasets/town/footprints", params={"bbox": bbox}).status_code == 422


def test_too_many_outlines_are_not_given(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    from rasterembed.explorer.tiles import places

    monkeypatch.setattr(places, "MAX_FOOTPRINTS", 50)
    answer = client.get("/api/datasets/town/footprints", params={"bbox": "20,55,30,65"}).json()
    assert answer == {"type": "FeatureCollection", "features": [], "truncated": True}


def test_a_map_tile_is_kept_by_its_version(client: TestClient) -> None:
    path = "/api/datasets/town/tiles/0/0/0.png?colour=validity"
    first = client.get(path)
    again = client.get(path, headers={"If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert client.get(f"{path}&min_valid_fraction=0.5").headers["etag"] != first.headers["etag"]
    for address in ("25/0/0", "0/1/0", "3/8/0", "2/0/-1", "a/0/0"):
        assert client.get(f"/api/datasets/town/tiles/{address}.png").status_code in (404, 422)
    assert client.get("/api/datasets/town/tiles/0/0/0.png?colour=mood").status_code == 422
    assert client.get("/api/datasets/unknown/tiles/0/0/0.png").status_code == 404


def test_a_real_raster_across_the_antimeridian_is_shown_on_both_sides(rasters: Path, tmp_path: Path) -> None:
    store, grid = ObjectStore(root=str(tmp_path / "store")), Grid(size=224)
    model = Dinov3(model=str(checkpoint(tmp_path / "model", 8)), device="cpu")
    write_dataset(
        store, "real", rasters / "cog_dateline.tif", model, lambda numbers: np.ones((len(numbers), 8), np.float32),
        valid_fraction=np.random.default_rng(0).uniform(size=10_000).astype(np.float32), grid=grid,
    )  # fmt: skip
    tiles = tiles_of(store, ["real"])
    with TestClient(create_app(ExplorerSettings(store=store)), base_url="http://127.0.0.1") as client:
        found = colours_of(client, "datasets/real", tiles, range(len(tiles)), 7, colour="validity")
        sides = [middle(footprint)[0] > 0 for footprint in tiles.footprint]
        assert 0 < sum(sides) < len(sides)
        expected = matplotlib.colormaps["cividis"](tiles.valid)[:, :3] * 255
        assert np.abs(found[:, :3] - expected).max() < 3
        # All vectors are equal, so no component has a range. The colour is the middle one.
        grey = colours_of(client, "datasets/real", tiles, range(len(tiles)), 7, colour="pca")
        assert np.abs(grey[:, :3].astype(int) - 128).max() <= 1


def test_hits_without_a_place_on_earth_lie_where_their_tiles_are_drawn(client: TestClient) -> None:
    body = {"query": {"tile": "nowhere/r000003_c000004", "include_query": True}, "k": 5}
    hits = client.post("/api/datasets/nowhere/search", json=body).json()["features"]
    assert len(hits) == 5
    for hit in hits:
        place = {"lon": hit["properties"]["lon"], "lat": hit["properties"]["lat"]}
        (tile,) = client.get("/api/datasets/nowhere/at", params=place).json()
        assert tile["tile_id"] == hit["properties"]["tile_id"]
        outlines = [shapely.geometry.shape(one["geometry"]) for one in (tile, hit)]
        assert shapely.normalize(outlines[0]) == shapely.normalize(outlines[1])


def test_the_quality_of_a_collection_shows_outliers_and_repetitions(tmp_path: Path) -> None:
    store, random = ObjectStore(root=str(tmp_path / "store")), np.random.default_rng(9)
    model = Dinov3(model=str(checkpoint(tmp_path / "model", 8)), device="cpu")
    names = [f"scene-{number:02}" for number in range(12)]
    vectors = [random.normal(3, 1, (9, 8)).astype(np.float32) for _ in names]
    vectors[4] *= 50
    vectors[7] = vectors[2]
    for number, name in enumerate(names):
        scene = Scene(name, 3, 3, 4 * number)
        skip = frozenset({8}) if number == 10 else frozenset()
        write_scene_and_dataset(tmp_path, store, scene, model, vectors[number], grid=ANCHORED, skip=skip)
    rebuild_collection(store, "set", datasets=names)
    report = check_collection(store, "set")
    assert "scene-04" in {one.id for one in report.outliers}
    assert [one.id for one in report.duplicates] == ["scene-07"]
    outliers = {one.id for one in report.outliers}
    with TestClient(create_app(ExplorerSettings(store=store)), base_url="http://127.0.0.1") as client:
        legend = client.get("/api/collections/set/legend", params={"colour": "qa"}).json()
        classes = {one["label"]: (one["colour"], one["tiles"]) for one in legend["classes"]}
        assert legend["note"] == ""
        assert [tiles for _, tiles in classes.values()] == [9 * (11 - len(outliers)) - 1, 9 * len(outliers), 9, 1]
        tiles = tiles_of(store, names)
        colours = list(classes.values())
        found = colours_of(client, "collections/set", tiles, range(len(tiles)), 12, colour="qa")
        for name, rgb in zip(tiles.dataset, found, strict=True):
            kind = 1 if name in outliers else 2 if name == "scene-07" else 0
            assert "#{:02x}{:02x}{:02x}".format(*rgb[:3]) == colours[kind][0]


def test_requests_that_wait_for_colours_do_not_stop_others(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    finished = threading.Event()
    compute = TileLayers.colouring

    def wait(layers: TileLayers, *arguments: Any) -> Colouring:
        assert finished.wait(240)
        return compute(layers, *arguments)

    monkeypatch.setattr(TileLayers, "colouring", wait)
    app = create_app(ExplorerSettings(store=world.store))

    async def ask() -> None:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1", timeout=240) as client:
            # More requests than FastAPI has threads.
            paths = ["tiles/0/0/0.png?colour=validity", "legend?colour=validity"] * 30
            waiting = [asyncio.create_task(client.get(f"/api/datasets/town/{path}")) for path in paths]
            try:
                await asyncio.sleep(0.5)
                async with asyncio.timeout(60):
                    assert (await client.get("/api/datasets/town")).status_code == 200
            finally:
                finished.set()
            assert [answer.status_code for answer in await asyncio.gather(*waiting)] == [200] * len(paths)

    asyncio.run(ask())
