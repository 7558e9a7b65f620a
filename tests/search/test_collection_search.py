"""A collection is searched as one table: by tile, place, vector and image, with filters, and with one scene a tile."""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, Literal

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import rasterio
import shapely
from PIL import Image
from rasterio.transform import Affine
from rasterio.warp import transform_bounds

from rasterembed.collection.collection import Collection
from rasterembed.collection.members import member_id
from rasterembed.collection.scene_row import SceneState
from rasterembed.collection.table_writing import write_table
from rasterembed.collection_pipeline import embed_collection
from rasterembed.command_line.run import run
from rasterembed.commands.main import app
from rasterembed.dataset.dataset import Dataset
from rasterembed.dataset.plan import PlanSettings
from rasterembed.errors import DataError, UsageError
from rasterembed.model.choice import Dinov3
from rasterembed.raster.grid import Grid
from rasterembed.search.collection_searcher import CollectionSearcher
from rasterembed.search.contact_sheet import write_sheet
from rasterembed.search.engines.flat import FlatEngine
from rasterembed.search.engines.ivf import IvfEngine
from rasterembed.search.index.building import build_vector_index
from rasterembed.search.index_options import TableIndexOptions
from rasterembed.search.output import write_answer
from rasterembed.search.query import Pick, Query, Where
from rasterembed.search.vector_files import VectorFiles
from rasterembed.store.layout import CollectionLayout
from rasterembed.store.object_store import ObjectStore
from tests.support.pictures import plain_pictures
from tests.support.scenes import collection_options

NAME = "survey"
LAYOUT = CollectionLayout(NAME)
SIDE, TILE = 96, 32
WEST, NORTH = 500_160, 6_700_160
"""Upper left corner of the first scene. It is half a tile off the grid, so tiles at its edges are partly valid."""

SCENES: dict[str, tuple[int, str, float | None]] = {
    "old": (0, "2025-06-01T10:00:00Z", 3.0),
    "same-day": (0, "2026-06-01T10:00:00Z", 40.0),
    "cloudy": (10, "2026-06-01T10:00:00Z", 20.0),
    "unknown": (20, "2026-05-01T10:00:00Z", None),
    "far": (3000, "2026-07-01T10:00:00Z", 5.0),
}
"""Of each scene: distance to the east in px, time, and cloud cover."""


def write(path: Path, number: int, east: int) -> dict[str, Any]:
    """Write a scene with some pixels without data, and return its STAC Item."""
    rng = np.random.default_rng(number)
    pixels = rng.integers(1, 256, (3, SIDE, SIDE), dtype=np.uint8)
    pixels[:, rng.integers(SIDE) :, rng.integers(SIDE // 2) : SIDE // 2] = 0
    place = Affine(10, 0, WEST + 10 * east, 0, -10, NORTH)
    profile = {"crs": "EPSG:32635", "transform": place, "nodata": 0, "dtype": "uint8"}
    with rasterio.open(path, "w", driver="GTiff", width=SIDE, height=SIDE, count=3, **profile) as file:
        file.write(pixels)
        bounds = transform_bounds("EPSG:32635", "OGC:CRS84", *file.bounds)
    _, time, cloud = SCENES[path.stem]
    return {
        "type": "Feature",
        "stac_version": "1.1.0",
        "id": path.stem,
        "bbox": bounds,
        "geometry": shapely.geometry.mapping(shapely.box(*bounds)),
        "properties": {"datetime": time} | ({} if cloud is None else {"eo:cloud_cover": cloud}),
        "links": [],
        "assets": {"visual": {"href": path.name}},
    }


@dataclass(frozen=True)
class Embedded:
    folder: Path

    @property
    def store(self) -> ObjectStore:
        return ObjectStore(root=str(self.folder / "store"))

    @property
    def collection(self) -> Collection:
        return Collection.open(self.store, NAME)

    def id(self, scene: str) -> str:
        return member_id(NAME, str(self.folder / f"{scene}.tif"))


@pytest.fixture(scope="module")
def embedded(tmp_path_factory: pytest.TempPathFactory, tiny_vit: Path) -> Embedded:
    """A collection in an anchored grid: four scenes of one place, one far away, and one that is damaged."""
    folder = tmp_path_factory.mktemp("collection")
    items = [write(folder / f"{name}.tif", number, SCENES[name][0]) for number, name in enumerate(SCENES)]
    (folder / "bad.tif").write_text("bad")
    items.append(items[0] | {"id": "bad", "assets": {"visual": {"href": "bad.tif"}}})
    (folder / "items.json").write_text(json.dumps({"type": "FeatureCollection", "features": items}))
    settings = PlanSettings(grid=Grid(size=TILE, anchor="crs"), model=Dinov3(model=str(tiny_vit), device="cpu"))
    index = TableIndexOptions(index="always", index_engine="vss", index_ef_search=512)
    options = collection_options(tiny_vit, settings=settings, quality_checks=True, vector_index=index)
    with plain_pictures():
        embed_collection(ObjectStore(root=str(folder / "store")), NAME, str(folder / "items.json"), options)
    return Embedded(folder)


@pytest.fixture
def searcher(embedded: Embedded) -> Iterator[CollectionSearcher]:
    with CollectionSearcher(embedded.store, NAME, engine="scan") as searcher:
        yield searcher


@pytest.fixture
def changed(embedded: Embedded, tmp_path: Path) -> ObjectStore:
    """A copy of the store, which a test may change."""
    shutil.copytree(embedded.folder / "store", tmp_path / "store")
    return ObjectStore(root=str(tmp_path / "store"))


def by_sql(
    embedded: Embedded, vector: np.ndarray[Any, Any], k: int, order: str | None = None, where: str = "true"
) -> list[tuple[str, str]]:
    """The nearest tiles by SQL over the catalogue and the table. `order` is the order of the scenes of a tile."""
    folder = embedded.folder / "store/collections" / NAME
    pick = "" if order is None else f"QUALIFY row_number() OVER (PARTITION BY tile_id ORDER BY {order}) = 1"
    query = f"""
        WITH rows AS (
            SELECT dataset_id, tile_id, valid_fraction, t.bbox AS box, i.source, i.datetime AS time,
                i."eo:cloud_cover" AS cloud, list_cosine_distance(embedding::DOUBLE[], $vector::DOUBLE[]) AS distance
            FROM read_parquet('{folder}/table/*.parquet') t JOIN read_parquet('{folder}/items.parquet') i
            ON i.id = t.dataset_id WHERE i.state = 'ready'
        ), picked AS (SELECT * FROM rows WHERE {where} {pick})
        SELECT dataset_id, tile_id FROM picked ORDER BY round(distance, 7), tile_id, dataset_id LIMIT {k}
    """
    return duckdb.execute(query, {"vector": vector.tolist()}).fetchall()


ORDERS: dict[Pick, str | None] = {
    "all": None,
    "latest": "time DESC, dataset_id",
    "clearest": "valid_fraction DESC, cloud ASC NULLS LAST, time DESC, dataset_id",
}
VECTORS = [np.random.default_rng(seed).standard_normal(64) for seed in range(3)]


@pytest.mark.parametrize("pick", ORDERS)
@pytest.mark.parametrize("engine", ["scan", "vss"])
def test_nearest_tiles_are_those_of_sql_over_catalogue_and_table(pick: Pick, engine: str, embedded: Embedded) -> None:
    filters: list[tuple[Where, str]] = [
        (Where(pick=pick), "true"),
        (Where(pick=pick, until=date(2026, 5, 31)), "time < '2026-06-01T00:00:00Z'"),
        (Where(pick=pick, since=date(2026, 1, 1), max_cloud_cover=30), "time >= '2026-01-01' AND cloud <= 30"),
        (Where(pick=pick, min_valid_fraction=0.7), "valid_fraction >= 0.7::FLOAT"),
        (Where(pick=pick, scenes=("*cloudy*", embedded.id("old"))), "source LIKE '%cloudy%' OR source LIKE '%old%'"),
        (Where(pick=pick, bbox=(0, 0, 27.02, 90)), "box.xmin <= 27.02"),
    ]
    with CollectionSearcher(embedded.store, NAME, engine="scan" if engine == "scan" else "auto") as searcher:
        for where, condition in filters:
            for vector, k in zip(VECTORS, (1, 7, 1000), strict=True):
                answer = searcher.ask_vector(vector, where, k)
                found = [(hit.dataset_id, hit.tile_id) for hit in answer.hits]
                assert found == by_sql(embedded, vector, k, ORDERS[pick], condition)
                assert found
        names = {searcher.ask_vector(VECTORS[0], Where(pick=pick), 3).engines[0].name}
    assert names == {engine}


@pytest.mark.parametrize("engine", ["scan", "auto"])
def test_a_polygon_keeps_the_tiles_that_it_meets(engine: Any, embedded: Embedded, tmp_path: Path) -> None:
    rows = pa.Table.from_batches(embedded.collection.vectors(["dataset_id", "tile_id", "geometry"])).to_pylist()
    footprints = np.array([shapely.from_wkb(row["geometry"]) for row in rows])
    west, south, east, north = shapely.unary_union(
        [place for row, place in zip(rows, footprints, strict=True) if row["dataset_id"] == embedded.id("old")]
    ).bounds
    # Half of the first scene, cut along its diagonal.
    area = shapely.Polygon([(west, south), (east, south), (west, north)])
    (tmp_path / "area.geojson").write_text(json.dumps(shapely.geometry.mapping(area)))
    meets = shapely.intersects(footprints, area)
    assert 0 < meets.sum() < shapely.intersects(footprints, shapely.box(*area.bounds)).sum() < len(rows)
    names = [f"'{row['dataset_id']}/{row['tile_id']}'" for row, met in zip(rows, meets, strict=True) if met]
    inside = f"dataset_id || '/' || tile_id IN ({', '.join(names)})"
    with CollectionSearcher(embedded.store, NAME, engine=engine) as searcher:
        for pick, order in ORDERS.items():
            for k in (3, 1000):
                where = Where(within=str(tmp_path / "area.geojson"), max_cloud_cover=30, pick=pick)
                answer = searcher.ask_vector(VECTORS[1], where, k)
                found = [(hit.dataset_id, hit.tile_id) for hit in answer.hits]
                assert found == by_sql(embedded, VECTORS[1], k, order, f"cloud <= 30 AND {inside}")
                assert found


def test_pick_gives_each_tile_once_and_all_gives_each_scene(searcher: CollectionSearcher) -> None:
    every = searcher.ask_vector(VECTORS[0], k=1000).hits
    picked = searcher.ask_vector(VECTORS[0], Where(pick="latest"), 1000).hits
    tiles = [hit.tile_id for hit in picked]
    assert len(tiles) == len(set(tiles)) == len({hit.tile_id for hit in every}) < len(every)


def test_hits_have_scene_date_clouds_and_place(embedded: Embedded, searcher: CollectionSearcher) -> None:
    hits = searcher.ask_vector(VECTORS[0], k=1000).hits
    rows = {row.id: row for row in embedded.collection.catalogue.rows()}
    assert {hit.dataset_id for hit in hits} == {embedded.id(name) for name in SCENES}
    for hit in hits:
        row = rows[hit.dataset_id]
        assert (hit.scene, hit.acquired, hit.cloud_cover) == (row.source, row.datetime, row.cloud_cover)
        assert hit.lon is not None
        lon, lat = shapely.from_wkb(hit.geometry).centroid.coords[0]
        assert (hit.lon, hit.lat) == pytest.approx((lon, lat), abs=1e-9)


def test_a_collection_opens_without_reading_a_manifest(embedded: Embedded, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(Dataset, "open")
    with CollectionSearcher(embedded.store, NAME) as searcher:
        tile = f"{embedded.id('old')}/{searcher.ask_vector(VECTORS[0], Where(scenes=('*old*',)), 1).hits[0].tile_id}"
        assert len(searcher.ask(Query(tile=tile), k=5).hits) == 5
        assert len(searcher.ask(Query(lonlat=(27.01, 60.433)), k=5).hits) == 5


def test_a_place_is_the_tile_of_each_scene_or_of_the_picked_one(
    embedded: Embedded, searcher: CollectionSearcher
) -> None:
    lonlat = (27.01, 60.433)
    answer = searcher.ask(Query(lonlat=lonlat), k=1000)
    tiles = [example.tile for example in answer.examples]
    assert [tile.dataset_id for tile in tiles if tile] == sorted(
        embedded.id(name) for name in ("old", "same-day", "cloudy", "unknown")
    )
    (tile_id,) = {tile.tile_id for tile in tiles if tile}
    hits = {(hit.dataset_id, hit.tile_id) for hit in answer.hits}
    assert not hits & {(tile.dataset_id, tile.tile_id) for tile in tiles if tile}
    # The vector is the mean of the examples' unit vectors.
    rows = pa.Table.from_batches(embedded.collection.vectors(["tile_id", "embedding"]))
    own = np.stack(rows.filter(pa.compute.equal(rows["tile_id"], tile_id))["embedding"].to_pylist())
    mean = (own / np.linalg.norm(own, axis=1, keepdims=True)).mean(axis=0)
    expected = by_sql(embedded, mean, 1000, where=f"tile_id <> '{tile_id}'")
    assert [(hit.dataset_id, hit.tile_id) for hit in answer.hits] == expected
    # With pick, one scene gives the example, and all scenes of its ground are left out.
    picked = searcher.ask(Query(lonlat=lonlat), Where(pick="latest"), k=1000)
    (example,) = picked.examples
    assert example.tile is not None
    assert example.tile.dataset_id == min(embedded.id(name) for name in ("same-day", "cloudy"))
    assert tile_id not in {hit.tile_id for hit in picked.hits}
    assert "is in tile x+" in picked.notes()[0]
    assert searcher.ask(Query(lonlat=lonlat, include_query=True), k=1).hits[0].tile_id == tile_id


def test_an_example_is_of_the_scenes_that_may_answer_if_one_of_them_has_it(
    embedded: Embedded, searcher: CollectionSearcher
) -> None:
    def scenes_of(query: Query, where: Where) -> list[str]:
        return [example.tile.dataset_id for example in searcher.ask(query, where).examples if example.tile]

    place = Query(lonlat=(27.01, 60.433))
    old = [embedded.id("old")]
    assert scenes_of(place, Where(scenes=("*old.tif",))) == old
    assert scenes_of(place, Where(pick="latest", until=date(2025, 12, 31))) == old
    tile = searcher.ask(place).examples[0].label
    assert scenes_of(Query(tile=tile), Where(scenes=("*old.tif",))) == old
    every = scenes_of(place, Where())
    assert len(every) == 4
    assert scenes_of(place, Where(scenes=("*far.tif",))) == every  # It does not have the place.
    assert scenes_of(place, Where(scenes=("none",))) == every


def test_a_tile_without_its_scene_is_taken_if_it_is_clear_which(
    embedded: Embedded, searcher: CollectionSearcher
) -> None:
    far = searcher.ask_vector(VECTORS[0], Where(scenes=("*far.tif",)), 1).hits[0].tile_id
    (example,) = searcher.ask(Query(tile=far)).examples
    assert example.tile is not None
    assert example.tile.dataset_id == embedded.id("far")
    near = searcher.ask(Query(lonlat=(27.01, 60.433))).examples[0].label
    said = r"tile x.* is in 4 scenes of collection 'survey' \(survey--.*\): .* such as survey--.*, or .* `pick=latest`"
    with pytest.raises(UsageError, match=said):
        searcher.ask(Query(tile=near))
    assert len(searcher.ask(Query(tile=near), Where(pick="clearest")).examples) == 1


def test_an_image_is_read_like_the_first_scene(embedded: Embedded, searcher: CollectionSearcher) -> None:
    hit = searcher.ask_vector(VECTORS[0], Where(min_valid_fraction=1.0), 1).hits[0]
    assert hit.scene is not None
    with rasterio.open(hit.scene) as raster:
        window = rasterio.windows.Window(hit.col_off, hit.row_off, TILE, TILE)
        pixels = np.moveaxis(raster.read(window=window), 0, -1)
    image = embedded.folder / "image.png"
    Image.fromarray(pixels).save(image)
    best = searcher.ask(Query(image=str(image)), k=1).hits[0]
    assert (best.dataset_id, best.tile_id) == (hit.dataset_id, hit.tile_id)
    assert best.distance < 1e-5


def test_wrong_questions_are_refused(embedded: Embedded, searcher: CollectionSearcher) -> None:
    old = embedded.id("old")
    for query, error, match in [
        (Query(tile="other/x+001563_y+020937"), UsageError, "collection 'survey' has no scene 'other'"),
        (Query(tile=f"{old}/x+000001_y+000001"), UsageError, "its tiles are x"),
        (Query(tile="x+000001_y+000001"), UsageError, "has an embedded tile .*: give another tile"),
        (Query(lonlat=(0, 0)), DataError, "its 6 scenes lie elsewhere, in longitudes 27"),
        (Query(lonlat=(60.433, 27.01)), DataError, "did you mean 27.01 60.433"),
    ]:
        with pytest.raises(error, match=match):
            searcher.ask(query)
    with pytest.raises(UsageError, match="give 64 numbers"):
        searcher.ask_vector(np.ones(3))
    with pytest.raises(UsageError, match="no collection 'surveys'"):
        CollectionSearcher(embedded.store, "surveys")


def test_the_answer_says_which_scenes_were_searched(embedded: Embedded, searcher: CollectionSearcher) -> None:
    answer = searcher.ask_vector(VECTORS[0], Where(max_cloud_cover=10), 3)
    assert answer.collection is not None
    assert (answer.collection.scenes, answer.collection.searched) == (6, 2)
    text = str(answer)
    assert "searched 2 of 6 scenes of collection survey" in text
    assert "not searched: 3 (left out by the filters), 1 (failed to embed)" in text
    assert "survey: answered by the exact scan (as requested)" in text
    assert {"date", "cloud", "2025-06-01", "3%"} <= set(text.split())
    assert f"{answer.hits[0].scene}" not in text
    nothing = searcher.ask_vector(VECTORS[0], Where(bbox=(60.4, 26.9, 60.5, 27.1)))
    assert nothing.hint == "The longitude comes first: did you mean the box 26.9 60.4 27.1 60.5?"


@pytest.mark.parametrize("engine", ["scan", "vss"])
def test_an_empty_answer_says_which_filter_left_no_tile(engine: str, embedded: Embedded) -> None:
    far = Where(scenes=("*far*",))
    with CollectionSearcher(embedded.store, NAME, engine="scan" if engine == "scan" else "auto") as searcher:

        def why(**values: Any) -> str:
            answer = searcher.ask_vector(VECTORS[0], Where(**values))
            assert answer.hits == ()
            return answer.hint

        dates = "none of the 5 scenes passes `until`: the dates are from 2025-06-01 to 2026-07-01"
        assert why(pick="latest", until="2001-01-01") == dates
        assert why(scenes=("zzz",), until="2001-01-01").splitlines()[1] == dates
        assert why(scenes=("cloud",)).startswith(
            "none of the 5 scenes passes `scenes`: did you mean '*cloud*'? It finds "
        )
        assert why(max_cloud_cover=1) == (
            "none of the 5 scenes passes `max_cloud_cover`: the smallest cloud cover is 3 %; 1 of 5 scenes has no "
            "known cloud cover"
        )
        assert why(scenes=("*far*",), until="2026-05-31") == (
            "no scene passes all filters together: of 5 scenes, 1 passes `scenes`, 2 pass `until`"
        )
        assert why(scenes=("*far*",), bbox=(26.9, 60.4, 27.02, 60.5)) == "no tile with a vector intersects `bbox`"
        partly = [hit for hit in searcher.ask_vector(VECTORS[0], far, 100).hits if hit.valid_fraction < 1]
        west, south, east, north = shapely.from_wkb(partly[0].geometry).buffer(-0.0005).bounds
        answer = searcher.ask(
            Query(tile=f"{partly[0].dataset_id}/{partly[0].tile_id}"),
            Where(scenes=("*far*",), bbox=(west, south, east, north), pick="latest"),
        )
        assert (answer.hits, answer.hint) == (
            (), "no tile passes but those of the query: they may be in the answer with `include_query`",
        )  # fmt: skip
        assert why(scenes=("*far*",), bbox=(west, south, east, north), min_valid_fraction=1) == (
            "tiles pass each of the filters `bbox` and `min_valid_fraction`, but no tile passes all of them"
        )
        note = searcher.ask_vector(VECTORS[0], Where(bbox=(27.9, 60, 26.9, 61))).hint.splitlines()[0]
        assert note.endswith("it covers 359 degrees of longitude; did you mean the box 26.9 60 27.9 61?")


def test_files_sheets_and_frames_have_the_scenes(
    embedded: Embedded, searcher: CollectionSearcher, tmp_path: Path
) -> None:
    answer = searcher.ask(Query(lonlat=(27.01, 60.433)), k=4)
    for ending in ("csv", "geojson", "parquet"):
        write_answer(answer, tmp_path / f"answer.{ending}")
    table = pq.read_table(tmp_path / "answer.parquet")
    assert table["scene"].to_pylist() == [hit.scene for hit in answer.hits]
    assert table["cloud_cover"].to_pylist() == [hit.cloud_cover for hit in answer.hits]
    properties = json.loads((tmp_path / "answer.geojson").read_text())["features"][0]["properties"]
    assert {"scene", "cloud_cover", "acquired", "dataset_id"} <= properties.keys()
    assert "scene,cloud_cover" in (tmp_path / "answer.csv").read_text().splitlines()[0]
    assert list(answer.to_dataframe()["scene"]) == [hit.scene for hit in answer.hits]
    write_sheet(answer, searcher.datasets_of(answer), tmp_path / "sheet.png")
    assert Image.open(tmp_path / "sheet.png").width > 500
    assert answer._repr_html_().count("<img") == 4


def test_pick_needs_an_anchored_grid(changed: ObjectStore) -> None:
    key = LAYOUT.stac_collection
    content = json.loads(changed.read(key) or b"")
    del content["rasterembed:configuration"]["grid"]["anchor"]
    changed.write(key, json.dumps(content).encode())
    match = "`pick=latest` needs scenes that give the same ground the same tile id"
    with CollectionSearcher(changed, NAME) as searcher, pytest.raises(UsageError, match=match):
        searcher.ask_vector(VECTORS[0], Where(pick="latest"))


def test_a_table_that_is_older_than_the_catalogue_answers_with_a_warning(changed: ObjectStore) -> None:
    collection = Collection.open(changed, NAME)
    ready = collection.catalogue.filter(states=[SceneState.READY]).table["id"].to_pylist()
    fewer = collection.catalogue.updated([], without=ready[:1])
    write_table(changed, LAYOUT, collection.configuration, fewer)
    with CollectionSearcher(changed, NAME) as searcher:
        answer = searcher.ask_vector(VECTORS[0], k=1000)
        assert "warning: the table of the collection is older than its catalogue" in str(answer)
        assert "the exact scan (the index is stale: it was built from other vectors)" in str(answer)
        assert {hit.dataset_id for hit in answer.hits} == set(ready[1:])
        tile = next(iter(Dataset.open(changed, ready[0]).batches(["tile_id"])))["tile_id"][0].as_py()
        with pytest.raises(DataError, match="is not in the table of collection 'survey', which is older"):
            searcher.ask(Query(tile=f"{ready[0]}/{tile}"))


def test_a_table_that_a_run_replaces_while_it_is_opened_is_searched_as_it_is_now(
    changed: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    collection = Collection.open(changed, NAME)
    ready = collection.catalogue.filter(states=[SceneState.READY]).table["id"].to_pylist()
    sizes, replaced = ObjectStore.sizes, list[bool]()

    def replace_and_list(store: ObjectStore, folder: str) -> dict[str, int]:
        if folder == LAYOUT.table_folder and not replaced:
            replaced.append(True)
            fewer = collection.catalogue.updated([], without=ready[:1])
            write_table(changed, LAYOUT, collection.configuration, fewer)
        return sizes(store, folder)

    monkeypatch.setattr(ObjectStore, "sizes", replace_and_list)
    with CollectionSearcher(changed, NAME) as searcher:
        answer = searcher.ask_vector(VECTORS[0], k=1000)
    assert replaced
    assert {hit.dataset_id for hit in answer.hits} == set(ready[1:])


def test_without_a_table_the_error_says_what_to_do(changed: ObjectStore) -> None:
    for name in list(changed.sizes(LAYOUT.table_folder)):
        changed.delete(LAYOUT.table_file(name))
    with pytest.raises(DataError, match="no table, and 5 of its scenes are ready: run `rasterembed collection rebuild"):
        CollectionSearcher(changed, NAME)


def damaged_column(name: str, values: pa.Array) -> Any:
    def damage(store: ObjectStore) -> None:
        table = Collection.open(store, NAME).table
        assert table is not None
        path = Path(store.uri(table.parts[0].path))
        rows = pq.read_table(path)
        column = pa.array([values[0].as_py()] * len(rows), values.type)
        pq.write_table(rows.set_column(rows.column_names.index(name), name, column), path)
        description = json.loads(store.read(LAYOUT.table) or b"")
        description["parts"][0]["bytes"] = path.stat().st_size
        store.write(LAYOUT.table, json.dumps(description).encode())

    return damage


def described(**values: Any) -> Any:
    def damage(store: ObjectStore) -> None:
        description = json.loads(store.read(LAYOUT.table) or b"")
        part = {key: value for key, value in values.items() if key in description["parts"][0]}
        description["parts"][0] |= part
        description |= {key: value for key, value in values.items() if key not in part}
        store.write(LAYOUT.table, json.dumps(description).encode())

    return damage


NESTED = struct.pack("<BII", 1, 7, 1) * 30_000 + struct.pack("<BIdd", 1, 1, 24.0, 60.0)
"""A footprint that would end the process if GEOS read it."""

DAMAGES = {
    "null number": (damaged_column("col_off", pa.array([None], pa.int32())), "impossible value"),
    "text as number": (damaged_column("width", pa.array(["wide"])), "impossible value"),
    "other vectors": (damaged_column("embedding", pa.array([[1.0]])), "collection 'survey': "),
    "other names": (damaged_column("dataset_id", pa.array([1])), "collection 'survey': "),
    "nested": (damaged_column("geometry", pa.array([NESTED])), "impossible value .*nested too deeply"),
    "no WKB": (damaged_column("geometry", pa.array([b"no"])), "collection 'survey': |impossible value"),
    "path": (described(path="datasets/x/manifest.json"), "the path of file 0 is not the one"),
    "cell": (described(first=3, level=1), "the cell of file 0 is impossible"),
    "huge": (described(rows=10**30), "parts.0.rows"),
    "sum": (described(rows=7), "it is not the sum"),
    "missing file": (described(bytes=5), "table.json says 5"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_table_of_a_stranger_ends_in_one_line(name: str, changed: ObjectStore) -> None:
    damage, match = DAMAGES[name]
    damage(changed)
    with pytest.raises(DataError, match=match) as error, CollectionSearcher(changed, NAME) as searcher:
        searcher.ask_vector(VECTORS[0], k=1000)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("engine", ["scan", "auto"])
def test_a_nested_footprint_in_a_table_is_refused_in_an_area(engine: Any, changed: ObjectStore) -> None:
    damaged_column("geometry", pa.array([NESTED]))(changed)
    with CollectionSearcher(changed, NAME, engine=engine) as searcher:
        with pytest.raises(DataError, match=r"footprint of .* cannot be read .*nested too deeply"):
            searcher.ask(Query(lonlat=(27.01, 60.433)))
        with pytest.raises(DataError, match=r"footprint of .* cannot be read .*nested too deeply"):
            searcher.ask_vector(VECTORS[0], Where(bbox=(26, 60, 28, 61)))


def test_the_command_searches_a_collection(
    embedded: Embedded, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    def command(*arguments: str) -> str:
        return str(run(app, ["search", *arguments, "--root", embedded.store.root]))

    place = ("--lonlat", "27.01", "60.433")
    out = tmp_path / "found.csv"
    answer = command("--collection", NAME, *place, "-k", "4", "--pick", "latest", "--out", str(out))
    assert "searched 5 of 6 scenes of collection survey" in answer
    assert len(out.read_text().splitlines()) == 5
    for arguments, match in [
        (["--collection", NAME, "scene", *place], "give a collection, or datasets, but not both"),
        (["--collection", "surveys", *place], "there is no collection 'surveys'"),
        (["--collection", NAME, *place, "--pick", "best"], "--pick: give 'all', 'latest' or 'clearest', not 'best'"),
        (["--all", *place, "--pick", "latest"], "--pick latest chooses between the scenes of a collection"),
    ]:
        capfd.readouterr()
        with pytest.raises(SystemExit) as end:
            command(*arguments)
        errors = capfd.readouterr().err
        assert (end.value.code, len(errors.splitlines())) == (2, 1)
        assert match in errors


@pytest.mark.parametrize("engine", ["flat", "ivf"])
def test_an_index_gives_the_answers_of_the_scan_also_to_several_threads(
    embedded: Embedded, changed: ObjectStore, engine: Literal["flat", "ivf"], monkeypatch: pytest.MonkeyPatch
) -> None:
    # The table is small. Without this, the query would be compared with all rows, and no engine would be asked.
    for codes in (FlatEngine, IvfEngine):
        monkeypatch.setattr(codes, "direct_rows", 0)
    collection = Collection.open(changed, NAME)
    assert collection.table is not None
    options = TableIndexOptions(index="always", index_engine=engine, index_lists=2)
    build_vector_index(VectorFiles.of_table(collection, collection.table), options)
    west, south, east, north = transform_bounds("EPSG:32635", "OGC:CRS84", WEST, NORTH - 640, WEST + 700, NORTH)
    old, cloudy = embedded.id("old"), embedded.id("cloudy")
    rows = pq.read_table(
        [str(path) for path in (Path(changed.root) / "collections" / NAME / "table").glob("*.parquet")]
    )
    tiles = [
        name
        for name, own in zip(rows["tile_id"].to_pylist(), rows["dataset_id"].to_pylist(), strict=True)
        if own == old
    ]
    clusters = rows.select(["dataset_id", "tile_id"]).append_column("class", pa.array(range(len(rows))))
    clusters = clusters.set_column(2, "class", pc.bit_wise_and(clusters["class"], 1))
    sink = pa.BufferOutputStream()
    pq.write_table(clusters, sink)
    changed.write("clusters.parquet", sink.getvalue().to_pybytes())
    changed.write("other.csv", b"dataset_id,tile_id,class\nanother,r000000_c000000,1")
    filters = [
        Where(),
        Where(min_valid_fraction=0.7, scenes=("*old*", "*cloudy*")),
        Where(bbox=(west, south, east, north), pick="latest"),
        Where(max_cloud_cover=30, pick="clearest"),
        Where(class_file="store:clusters.parquet", classes=("1",)),
        Where(since=date(2026, 1, 1), bbox=(west, south, east, north), min_valid_fraction=0.2),
    ]
    questions = [
        (Query(tile=f"{old}/{tile}", include_query=number % 3 == 0), where, 1 + number)
        for number, (tile, where) in enumerate(zip(tiles, filters, strict=False))
    ]
    questions += [(Query(like=(f"{cloudy}/{tiles[0]}",)), where, 7) for where in filters]

    with CollectionSearcher(changed, NAME, engine="scan") as scan:
        expected = [scan.ask(*question).hits for question in questions]
    assert sum(map(len, expected)) > 40
    with CollectionSearcher(changed, NAME) as searcher:
        answers = [searcher.ask(*question) for question in questions]
        with ThreadPoolExecutor(8) as threads:
            together = list(threads.map(lambda question: searcher.ask(*question).hits, questions * 2))
    assert {answer.engines[0].name for answer in answers} == {engine}
    assert [answer.hits for answer in answers] == expected
    assert together == expected * 2
    other = collection.search(Query(tile=f"{old}/{tiles[0]}"), Where(class_file="store:other.csv", classes=("1",)))
    assert (other.hits, other.hint) == (
        (), "store:other.csv has tiles of these classes only in other datasets: another",
    )  # fmt: skip
