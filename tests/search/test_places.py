"""Places that people give: longitudes a turn apart, places outside of all datasets, and areas from hostile files."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import shapely
from affine import Affine

from rasterembed.dataset.dataset import Dataset
from rasterembed.errors import DataError
from rasterembed.model.choice import Dinov3
from rasterembed.search import areas
from rasterembed.search.areas import AreaFiles, hint_for_areas, interval_text, read_areas, read_polygons
from rasterembed.search.index.building import build_vector_index
from rasterembed.search.index_options import VectorIndexOptions
from rasterembed.search.query import Query, Where
from rasterembed.search.searcher import search
from rasterembed.search.vector_files import VectorFiles
from rasterembed.store.object_store import ObjectStore
from tests.support.vectors import SIDE, blank_raster, checkpoint, write_dataset


@pytest.fixture(scope="module")
def pacific(tmp_path_factory: pytest.TempPathFactory) -> ObjectStore:
    """Return a store with a dataset of four tiles side by side. The second ends at the antimeridian."""
    folder = tmp_path_factory.mktemp("pacific")
    store = ObjectStore(root=str(folder / "store"))
    model = Dinov3(model=str(checkpoint(folder / "model", 4)))
    pixel = 0.32 / (2 * SIDE)
    place = Affine(pixel, 0, 179.68, 0, -pixel, 10)
    raster = blank_raster(folder / "pacific.tif", 1, 4, crs="EPSG:4326", transform=place)
    write_dataset(store, "pacific", raster, model, np.eye(4, dtype=np.float32) + 0.1)
    return store


def tiles(columns: str) -> set[str]:
    return {f"r000000_c00000{column}" for column in columns}


@pytest.mark.parametrize(
    ("lon", "columns"),
    [
        (179.7, "0"), (-180.3, "0"), (179.9, "1"), (-179.9, "2"), (180.1, "2"), (-179.7, "3"), (180.3, "3"),
        (180.0, "12"), (-180.0, "12"),
    ],
)  # fmt: skip
def test_a_longitude_is_the_same_a_turn_on(pacific: ObjectStore, lon: float, columns: str) -> None:
    (example,) = search(pacific, ["pacific"], Query(lonlat=(lon, 9.9)), k=1).examples
    assert example.tile is not None
    assert example.tile.tile_id in tiles(columns)


def test_the_antimeridian_finds_one_tile_by_both_its_longitudes(pacific: ObjectStore) -> None:
    found = [search(pacific, ["pacific"], Query(lonlat=(lon, 9.9)), k=1).examples for lon in (-180.0, 180.0)]
    assert found[0][0].tile == found[1][0].tile


@pytest.mark.parametrize(
    ("west", "east", "columns"),
    [
        (179.7, 179.8, "0"), (180.1, 180.2, "23"), (-179.9, -179.8, "23"), (179.9, 180.1, "12"), (179.9, -179.9, "12"),
        (-180.1, -179.9, "12"), (179.9, 180.0, "12"), (-180.0, -179.9, "12"), (0.0, 360.0, "0123"),
        (-180.0, 180.0, "0123"), (-179.7, 179.7, "03"), (200.0, -179.9, "012"), (0.0, 90.0, ""),
    ],
)  # fmt: skip
def test_a_box_is_the_same_a_turn_on(
    pacific: ObjectStore, tmp_path: Path, west: float, east: float, columns: str
) -> None:
    query = Query(tile="r000000_c000000", include_query=True)
    by_box = search(pacific, ["pacific"], query, Where(bbox=(west, 9, east, 10)))
    # The tiles are 0.16 degrees wide and side by side from 179.68. Common edges count.
    last = east if west <= east else east + 360 * np.ceil((west - east) / 360)
    expected = {
        f"r000000_c00000{column}"
        for column in range(4)
        if any(
            west <= 179.68 + 0.16 * (column + 1) + turn + 1e-9 and last >= 179.68 + 0.16 * column + turn - 1e-9
            for turn in (-720, -360, 0, 360)
        )
    }
    assert expected == tiles(columns)
    assert {hit.tile_id for hit in by_box.hits} == expected
    if west <= east:
        file = tmp_path / "area.geojson"
        file.write_text(json.dumps(shapely.geometry.mapping(shapely.box(west, 9, east, 10))))
        by_file = search(pacific, ["pacific"], query, Where(within=str(file)))
        assert {hit.tile_id for hit in by_file.hits} == expected


def test_an_area_outside_the_rasters_gets_a_hint(tmp_path: Path) -> None:
    finland = [shapely.box(24.5, 60.0, 25.5, 60.5), shapely.box(26, 61, 26.25, 61.5)]

    def hint(where: Where, outlines: list[shapely.Geometry] = finland) -> str:
        return hint_for_areas(where, read_areas(where), outlines)

    swapped = Where(bbox=(60.1, 24.9, 60.3, 25.1))
    bounds = "the area is outside the searched rasters, which have longitudes 24.5 to 26.25 and latitudes 60 to 61.5"
    assert hint(swapped) == "The longitude comes first: did you mean the box 24.9 60.1 25.1 60.3?"
    assert not hint(swapped, [])
    assert not hint(Where(bbox=(24.9, 60.1, 25.1, 60.3)))
    assert hint(Where(bbox=(160.1, 24.9, 160.3, 25.1))) == bounds
    far = tmp_path / "far.geojson"
    far.write_text(json.dumps(shapely.geometry.mapping(shapely.box(-70, 10, -60, 20))))
    assert hint(Where(within=str(far))) == bounds
    assert hint(Where()) == ""


def test_an_answer_without_tiles_carries_the_hint(tmp_path: Path) -> None:
    store = ObjectStore(root=str(tmp_path / "store"))
    model = Dinov3(model=str(checkpoint(tmp_path / "model", 2)))
    place = Affine(0.01, 0, 24.5, 0, -0.01, 60.5)
    raster = blank_raster(tmp_path / "south.tif", 1, 2, crs="EPSG:4326", transform=place)
    write_dataset(store, "south", raster, model, np.eye(2, dtype=np.float32))
    query = Query(tile="r000000_c000000", include_query=True)
    swapped = search(store, ["south"], query, Where(bbox=(60.4, 24.4, 60.6, 24.6)))
    assert swapped.notes()[-1].endswith("did you mean the box 24.4 60.4 24.6 60.6?")
    assert "did you mean" not in str(search(store, ["south"], query, Where(bbox=(24.4, 60.4, 24.6, 60.6))))
    assert "did you mean" not in str(search(store, ["south"], query, Where(bbox=(0, 0, 1, 1))))


def test_the_ends_of_a_narrow_extent_differ() -> None:
    assert interval_text(-104.77512345, -104.77512001) == "-104.77512345 to -104.77512001"
    assert interval_text(1.0, 2.0) == "1 to 2"
    assert interval_text(5.0, 5.0) == "5 to 5"


def test_a_place_outside_names_the_extent(pacific: ObjectStore) -> None:
    extent = r"'pacific' has longitudes 179\.68 to -179\.68 and latitudes 9\.84 to 10"
    with pytest.raises(DataError, match=rf"contains longitude 24, latitude 60; {extent}$"):
        search(pacific, ["pacific"], Query(lonlat=(24, 60)))


def test_a_place_with_its_numbers_swapped_is_recognised(tmp_path: Path) -> None:
    store = ObjectStore(root=str(tmp_path / "store"))
    model = Dinov3(model=str(checkpoint(tmp_path / "model", 4)))
    write_dataset(store, "town", blank_raster(tmp_path / "t.tif", 2, 2), model, np.eye(4, dtype=np.float32))
    with pytest.raises(DataError, match=r"; 'town' has .*\. The longitude comes first: did you mean 24\.447 60\.59\?"):
        search(store, ["town"], Query(lonlat=(60.59, 24.447)))


def star(points: int) -> dict[str, Any]:
    """Return a polygon whose edges go between random points of a circle: they cross each other everywhere."""
    turns = np.random.default_rng(1).uniform(0, 2 * np.pi, points)
    ring = np.round(np.stack([20 * np.cos(turns), 20 * np.sin(turns)], axis=1), 12).tolist()
    return {"type": "Polygon", "coordinates": [[*ring, ring[0]]]}


def nested(depth: int) -> str:
    head = '{"type": "GeometryCollection", "geometries": ['
    return head * depth + json.dumps(star(3)) + "]}" * depth


def square_with(coordinate: str) -> str:
    return f'{{"type": "Polygon", "coordinates": [[[0, 0], [1, 0], [1, {coordinate}], [0, 0]]]}}'


HOSTILE: dict[str, tuple[str, str]] = {
    "brackets": ("[" * 200_000, "not GeoJSON: it is nested too deeply"),
    "collections in collections": (nested(5000), "not GeoJSON: it is nested too deeply"),
    "NaN": (square_with("NaN"), "not GeoJSON: NaN is not a number in JSON"),
    "1e999": (square_with("1e999"), "coordinates are not degrees"),
    "a whole number of 400 digits": (square_with("9" * 400), "not GeoJSON"),
    "a whole number of 5000 digits": (square_with("9" * 5000), "not GeoJSON"),
    "an empty ring": ('{"type": "Polygon", "coordinates": [[]]}', "not GeoJSON|polygons are needed"),
    "a polygon that crosses itself millions of times": (
        json.dumps(star(3000)),
        "cross themselves more than 1000 times",
    ),
    "a ring that goes round 2000 times": (
        json.dumps({"type": "Polygon", "coordinates": [[[0, 0], [1, 0], [1, 1], [0, 1]] * 2000 + [[0, 0]]]}),
        "cross themselves more than 1000 times",
    ),
    "too large": (" " * (32 * 2**20) + "[]", "it has more than 32 MiB"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_area_is_refused_in_seconds(tmp_path: Path, name: str) -> None:
    content, message = HOSTILE[name]
    file = tmp_path / "area.geojson"
    file.write_text(content)
    started = time.thread_time()  # Other processes may use the processor too.
    with pytest.raises(DataError, match=message) as error:
        read_polygons(file)
    assert time.thread_time() - started < 30
    assert str(error.value).startswith(str(file))
    assert "\n" not in str(error.value)


ODD = (None, True, 0, 1.5, "x", [], ["x"], {}, {"name": None}, {"type": 1}, [[0, 0]], [[[0, 0], [1, 1]]])
"""JSON values for a member that holds something else in a valid file."""


def test_members_of_any_shape_end_in_one_line_or_in_an_area(tmp_path: Path) -> None:
    """Replace each member of a valid file, one after the other, by each odd value."""
    square = shapely.geometry.mapping(shapely.box(0, 0, 1, 1))
    crs = {"type": "name", "properties": {"name": "urn:ogc:def:crs:OGC:1.3:CRS84"}}
    valid = {
        "type": "FeatureCollection",
        "crs": crs,
        "features": [
            {"type": "Feature", "properties": {}, "geometry": square},
            {"type": "Feature", "properties": {}, "geometry": {"type": "GeometryCollection", "geometries": [square]}},
        ],
    }
    text = json.dumps(valid)
    parts = {json.dumps(part) for part in (valid, crs, crs["properties"], *crs.values(), *square.values(), square)}
    parts |= {json.dumps(part) for part in (valid["features"], *valid["features"], [square], "Feature")}
    parts |= {json.dumps(value) for value in crs["properties"].values()}
    file = tmp_path / "area.geojson"
    refused: list[str] = []
    for part in sorted(parts):
        assert part in text
        for odd in ODD:
            file.write_text(text.replace(part, json.dumps(odd), 1))
            try:
                area = read_polygons(file)
            except DataError as error:
                refused.append(str(error))
            else:
                assert len(area.parts)
    assert len(refused) > 100
    assert all(error.startswith(f"{file}: ") and "\n" not in error for error in refused)


@pytest.mark.parametrize("crs", [{"properties": None}, {"properties": ["x"]}, {"properties": {}}, ["x"], "EPSG:3067"])
def test_a_crs_without_a_name_is_refused(tmp_path: Path, crs: object) -> None:
    file = tmp_path / "area.geojson"
    file.write_text(json.dumps(shapely.geometry.mapping(shapely.box(0, 0, 1, 1)) | {"crs": crs}))
    with pytest.raises(DataError, match=r"area\.geojson: it is not GeoJSON: its member crs names no CRS: remove"):
        read_polygons(file)


def test_an_area_of_bars_that_cross_each_other_takes_little_memory(tmp_path: Path) -> None:
    """750 x 750 bars have half a million crossings. Their union took gigabytes; now no union is made."""
    ends = np.linspace(0, 20, 750)
    bars = [shapely.box(x, 0, x + 0.005, 20) for x in ends] + [shapely.box(0, y, 20, y + 0.005) for y in ends]
    file = tmp_path / "bars.geojson"
    file.write_text(shapely.to_geojson(shapely.GeometryCollection(bars)))
    code = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_AS, (2 * 2**30,) * 2)\n"
        "import numpy as np, shapely\n"
        "from pathlib import Path\n"
        "from rasterembed.search.areas import read_polygons\n"
        "places = shapely.box([0.01, 5, 30], [0.01, 5, 30], [0.012, 5.1, 31], [0.012, 5.1, 31])\n"
        "print(read_polygons(Path(sys.argv[1])).meets(places).tolist())\n"
    )
    environment = os.environ | {"OPENBLAS_NUM_THREADS": "1"}
    found = subprocess.run(
        [sys.executable, "-c", code, str(file)],
        capture_output=True,
        text=True,
        timeout=240,
        check=True,
        env=environment,
    )
    assert found.stdout.strip() == "[False, True, False]"


def test_a_valid_polygon_with_many_points_is_no_problem(tmp_path: Path) -> None:
    turns = np.linspace(0, 2 * np.pi, 50_000, endpoint=False)
    circle = shapely.Polygon(np.stack([10 * np.cos(turns), 10 * np.sin(turns)], axis=1))
    file = tmp_path / "circle.geojson"
    file.write_text(shapely.to_geojson(circle))
    (area,) = read_areas(Where(within=str(file)))
    assert area.meets(shapely.points([0, 9.9, 11], [0, 0, 0])).tolist() == [True, True, False]


def test_many_positions_have_the_places_of_each_alone(pacific: ObjectStore) -> None:
    dataset, pixel = Dataset.open(pacific, "pacific"), 0.32 / (2 * SIDE)
    cols, rows = np.array([0.0, 32, 40, 64, 100, 5, -3]), np.array([0.0, 8, 16, 4, 2, -8001, 1.5])
    lon, lat = dataset.lonlats(cols, rows)
    # The sixth position is north of the pole.
    np.testing.assert_allclose(lat, [10 - row * pixel if row > -8000 else np.nan for row in rows], atol=1e-9)
    east = (179.68 + cols * pixel + 180) % 360 - 180
    np.testing.assert_allclose(lon, np.where(rows > -8000, east, np.nan), atol=1e-9)
    alone = [dataset.lonlat(col, row) for col, row in zip(cols.tolist(), rows.tolist(), strict=True)]
    assert alone == [None if np.isnan(x) else (x, y) for x, y in zip(lon.tolist(), lat.tolist(), strict=True)]


def test_an_answer_of_a_vector_index_in_a_folder_imports_only_what_it_needs(
    pacific: ObjectStore, tmp_path: Path
) -> None:
    shutil.copytree(pacific.root, tmp_path / "store")
    store = ObjectStore(root=str(tmp_path / "store"))
    options = VectorIndexOptions(index="always", index_engine="flat")
    build_vector_index(VectorFiles.of_dataset(Dataset.open(store, "pacific")), options)
    script = """
import sys
from rasterembed import ObjectStore, Query, Searcher, Where
with Searcher(ObjectStore(root=sys.argv[1]), ["pacific"], engine="flat") as searcher:
    for where in (Where(), Where(min_valid_fraction=0.5, bbox=(170, 0, -170, 20))):
        answer = searcher.ask(Query(tile="r000000_c000000"), where, k=2)
        assert len(answer.hits) == 2 and answer.engines[0].name == "flat", answer
"""
    command = """
from rasterembed.command_line.run import run
from rasterembed.commands.search import app
run(app, ["pacific", "--root", sys.argv[1], "--tile", "r000000_c000000"])
"""
    others = [
        "affine",
        "boto3",
        "botocore",
        "duckdb",
        "fsspec",
        "pandas",
        "PIL",
        "pyarrow.parquet",
        "rasterio",
        "torch",
    ]
    report = f"\nprint('imported', *(name for name in {others} if name in sys.modules), file=sys.stderr)"
    for program in (script, f"import sys{command}"):
        found = subprocess.run(
            [sys.executable, "-c", f"{program}{report}", store.root], capture_output=True, text=True, check=True
        )
        assert found.stderr.splitlines()[-1] == "imported", found.stderr


def test_a_kept_file_is_parsed_once_and_read_again_after_a_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, places = tmp_path / "area.geojson", shapely.points([5, 25], [5, 5])
    parsed, parse = [], json.loads

    def count(text: bytes, **options: Any) -> Any:
        parsed.append(text)
        return parse(text, **options)

    monkeypatch.setattr(json, "loads", count)
    # A busy machine may need long between two of these reads.
    monkeypatch.setattr(areas, "_SETTLED_NS", 30 * 10**9)
    files = AreaFiles()
    for number, (west, seconds_ago) in enumerate([(0, 60), (20, 60), (0, 0)], start=1):
        file.write_text(shapely.to_geojson(shapely.box(west, 0, west + 10, 10).segmentize(3)))
        os.utime(file, (time.time() - seconds_ago,) * 2)
        for _ in range(3):
            (area,) = files.read(Where(within=str(file)))
            assert area.meets(places).tolist() == [west == 0, west == 20]
            assert area.key == hashlib.sha256(file.read_bytes()).hexdigest()
        # A file that changed a moment ago may change again within the same tick of the file system's clock.
        assert len(parsed) == (number if seconds_ago else 5)


@pytest.mark.parametrize("name", ["col_off", "shard"])
def test_a_missing_number_in_a_tile_index_ends_in_one_line(name: str, pacific: ObjectStore, tmp_path: Path) -> None:
    shutil.copytree(pacific.root, tmp_path / "store")
    store = ObjectStore(root=str(tmp_path / "store"))
    path = Path(store.uri("tiles/pacific/index.parquet"))
    table = pq.read_table(path)
    number = table.column_names.index(name)
    pq.write_table(table.set_column(number, name, pa.nulls(len(table), table.schema.field(name).type)), path)
    for query in (Query(tile="r000000_c000000"), Query(lonlat=(179.7, 9.9))):
        with pytest.raises(
            DataError, match=r"dataset 'pacific': .*rasterembed datasets verify pacific --root"
        ) as error:
            search(store, ["pacific"], query)
        assert "\n" not in str(error.value)


def test_a_missing_number_in_a_shard_ends_in_one_line(pacific: ObjectStore, tmp_path: Path) -> None:
    shutil.copytree(pacific.root, tmp_path / "store")
    (path,) = (tmp_path / "store").glob("embeddings/pacific/*.parquet")
    table = pq.read_table(path)
    number = table.column_names.index("width")
    pq.write_table(table.set_column(number, "width", pa.nulls(len(table), pa.int32())), path)
    manifest = tmp_path / "store/datasets/pacific/manifest.json"
    content = json.loads(manifest.read_text())
    content["bytes"] = content["shards"][0]["bytes"] = path.stat().st_size
    manifest.write_text(json.dumps(content))
    with pytest.raises(DataError, match="a row of its shards has an impossible value"):
        search(ObjectStore(root=str(tmp_path / "store")), ["pacific"], Query(tile="r000000_c000000"))
