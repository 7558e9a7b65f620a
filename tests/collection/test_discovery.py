"""Scenes are found in folders, by patterns, in lists and in STAC documents. Documents are data, and never trusted."""

from __future__ import annotations

import json
import shutil
import struct
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import geopandas
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import shapely

from rasterembed.collection import threaded
from rasterembed.collection.catalogue import Catalogue
from rasterembed.collection.discovery import discover
from rasterembed.collection.found_scene import FoundScene
from rasterembed.collection.scene_row import failed_row
from rasterembed.errors import DataError, ObjectMissingError, UsageError
from rasterembed.store.object_store import ObjectStore
from tests.support.scenes import write_scene


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return ObjectStore(root=str(tmp_path / "scenes"))


@pytest.fixture
def scenes(tmp_path: Path) -> Path:
    """A folder with rasters, with other files, and with files that runs wrote. It is also the root of the store."""
    folder = tmp_path / "scenes"
    for name in ("b.tif", "a b.TIFF", "2026/06/c.jp2", "2026/d.tif", "2026/note.md", "embeddings/x/part.tif"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    return folder


def found(store: ObjectStore, address: str | Path, *assets: str) -> list[str]:
    root = Path(store.root)
    return [str(Path(scene.uri).relative_to(root)) for scene in discover(store, str(address), assets).scenes]


def test_a_folder_gives_its_rasters_and_no_output_of_a_run(store: ObjectStore, scenes: Path) -> None:
    assert found(store, scenes) == ["2026/06/c.jp2", "2026/d.tif", "a b.TIFF", "b.tif"]
    listing = discover(store, f"{scenes}/")
    status = (scenes / "b.tif").stat()
    assert listing.scenes[-1] == FoundScene(
        str(scenes / "b.tif"), size=5, version=str(status.st_mtime_ns), modified=status.st_mtime
    )
    assert listing.address == str(scenes)


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("*.tif", ["b.tif"]),
        ("**/*.tif", ["2026/d.tif", "b.tif"]),
        ("2026/*/?.jp2", ["2026/06/c.jp2"]),
        ("202[0-9]/**", ["2026/06/c.jp2", "2026/d.tif", "2026/note.md"]),
        ("**/**/**/**/**/**/**/**/**/c.*", ["2026/06/c.jp2"]),
    ],
)
def test_a_pattern_gives_what_fits(pattern: str, names: list[str], store: ObjectStore, scenes: Path) -> None:
    assert found(store, scenes / pattern) == names


def test_a_single_raster_is_a_listing(store: ObjectStore, scenes: Path) -> None:
    assert found(store, scenes / "b.tif") == ["b.tif"]


def test_a_list_without_its_ending_is_refused_with_the_ending_that_it_needs(store: ObjectStore, scenes: Path) -> None:
    for name in ("list.csv", "list"):
        (scenes / name).write_text("b.tif\n")
        with pytest.raises(DataError, match=rf"{name}: not a raster.*a list of scenes ends in \.txt"):
            discover(store, str(scenes / name))
    # A raster may have any ending. One that is damaged is a scene that fails.
    write_scene(scenes / "scene.tif").rename(scenes / "b.dat")
    assert found(store, scenes / "b.dat") == ["b.dat"]
    (scenes / "damaged.tif").write_text("b.tif\n")
    assert found(store, scenes / "damaged.tif") == ["damaged.tif"]


def test_a_comment_may_follow_a_path(store: ObjectStore, scenes: Path) -> None:
    shutil.copy(scenes / "b.tif", scenes / "b#1.tif")
    (scenes / "list.txt").write_text("  # scenes\nb.tif  # the first\nb#1.tif\t# no comment begins inside a name\n#\n")
    assert found(store, scenes / "list.txt") == ["b#1.tif", "b.tif"]


def test_a_list_names_paths_and_missing_files_are_recorded(store: ObjectStore, scenes: Path) -> None:
    lines = ["# scenes", "b.tif", "", "a b.TIFF", str(scenes / "b.tif"), "none.tif", "https://host/x.tif"]
    (scenes / "list.txt").write_text("\n".join(lines))
    listing = discover(store, str(scenes / "list.txt"))
    assert listing.repeated == (str(scenes / "b.tif"),)
    assert {Path(scene.uri).name: scene.problem for scene in listing.scenes} == {
        "a b.TIFF": None,
        "b.tif": None,
        "none.tif": f"{scenes}/none.tif: there is no such file",
        "x.tif": "https://host/x.tif: the host host is not one of those that may be read: if you trust it, add it to "
        "`source_store.https_hosts`",
    }


def item(name: str, **assets: Any) -> dict[str, Any]:
    return {
        "type": "Feature",
        "stac_version": "1.1.0",
        "id": name,
        "geometry": shapely.geometry.mapping(shapely.box(24, 60, 25, 61)),
        "bbox": [24, 60, 25, 61],
        "properties": {"datetime": "2026-06-21T09:30:15.5Z", "eo:cloud_cover": 12},
        "links": [],
        "assets": assets,
    }


def asset(href: str, *roles: str) -> dict[str, Any]:
    return {"href": href, "roles": list(roles)}


def test_an_item_gives_the_scene_its_date_clouds_and_place(store: ObjectStore, scenes: Path) -> None:
    document = item("one", thumbnail=asset("t.png", "thumbnail"), pixels=asset("./a b.TIFF", "data"))
    (scenes / "item.json").write_text(json.dumps(document))
    (scene,) = discover(store, str(scenes / "item.json")).scenes
    assert scene.uri == str(scenes / "a b.TIFF")
    assert (scene.item, scene.cloud_cover, scene.problem) == ("one", 12.0, None)
    assert scene.datetime == datetime(2026, 6, 21, 9, 30, 15, 500_000, UTC)
    assert shapely.from_wkb(scene.geometry).equals(shapely.box(24, 60, 25, 61))


def test_a_dead_link_is_told_with_the_document_that_has_it(store: ObjectStore, scenes: Path) -> None:
    (scenes / "catalog.json").write_text(
        json.dumps({"type": "Catalog", "links": [{"rel": "item", "href": "none.json"}]})
    )
    dead = rf"{scenes}/none\.json: there is no such file; {scenes}/catalog\.json names it$"
    with pytest.raises(ObjectMissingError, match=dead):
        discover(store, str(scenes / "catalog.json"))


def test_a_static_catalog_is_followed_once_even_in_a_circle(store: ObjectStore, scenes: Path) -> None:
    links = [{"rel": "child", "href": "2026/collection.json"}, {"rel": "item", "href": "item.json"}]
    (scenes / "catalog.json").write_text(json.dumps({"type": "Catalog", "links": links}))
    back = [{"rel": "child", "href": "../catalog.json"}, {"rel": "item", "href": "d.json"}, {"rel": "item", "href": 3}]
    (scenes / "2026/collection.json").write_text(json.dumps({"type": "Collection", "links": back}))
    (scenes / "2026/d.json").write_text(json.dumps(item("d", image=asset("d.tif"))))
    (scenes / "item.json").write_text(json.dumps(item("b", image=asset("b.tif"))))
    assert found(store, scenes / "catalog.json") == ["2026/d.tif", "b.tif"]


def test_an_item_collection_and_the_same_items_as_parquet_give_the_same_scenes(
    store: ObjectStore, scenes: Path
) -> None:
    items = [item("b", visual=asset("b.tif")), item("d", visual=asset("2026/d.tif")), item("no", other=asset("x.tif"))]
    items[1]["properties"] = {"datetime": "2026-06-22T00:00:00Z"}
    (scenes / "items.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": items}))
    # geopandas, and not this library, writes the columns as stac-geoparquet has them.
    columns = {
        "id": [each["id"] for each in items],
        "datetime": [datetime.fromisoformat(each["properties"]["datetime"]) for each in items],
        "eo:cloud_cover": [each["properties"].get("eo:cloud_cover") for each in items],
        "assets": [each["assets"] for each in items],
    }
    geometry = [shapely.geometry.shape(each["geometry"]) for each in items]
    geopandas.GeoDataFrame(columns, geometry=geometry, crs="OGC:CRS84").to_parquet(scenes / "items.parquet")
    one = discover(store, str(scenes / "items.geojson"))
    two = discover(store, str(scenes / "items.parquet"))
    assert [scene.uri for scene in one.scenes] == [scene.uri for scene in two.scenes]
    assert [scene.cloud_cover for scene in one.scenes] == [None, 12.0, 12.0]
    for own, other in zip(one.scenes, two.scenes, strict=True):
        assert (own.item, own.size, own.datetime, own.problem) == (
            other.item,
            other.size,
            other.datetime,
            other.problem,
        )
        assert shapely.from_wkb(own.geometry).equals(shapely.from_wkb(other.geometry))


def test_files_of_an_item_are_one_scene_and_its_state_covers_all_of_them(store: ObjectStore, scenes: Path) -> None:
    colours = {
        name: {"href": f"{file}", "roles": ["data"], "bands": [{"eo:common_name": name}]}
        for name, file in (("red", "b.tif"), ("green", "2026/d.tif"), ("blue", "a b.TIFF"))
    }
    (scenes / "item.json").write_text(json.dumps(item("one", **colours)))
    (scene,) = discover(store, str(scenes / "item.json")).scenes
    assert scene.uri == str(scenes / "b.tif")
    assert scene.source is not None
    assert [Path(file.uri).name for file in scene.source.files] == ["b.tif", "d.tif", "a b.TIFF"]
    assert scene.size == sum(file.size for file in scene.source.files)
    (chosen,) = discover(store, str(scenes / "item.json"), ("green",)).scenes
    assert chosen.uri == str(scenes / "2026/d.tif")
    versions = {scene.version}
    (scenes / "2026/d.tif").write_text("2026/e.tif")
    versions |= {each.version for each in discover(store, str(scenes / "item.json")).scenes}
    colours["blue"]["raster:offset"] = -0.1
    (scenes / "item.json").write_text(json.dumps(item("one", **colours)))
    versions |= {each.version for each in discover(store, str(scenes / "item.json")).scenes}
    assert len(versions) == 3


def test_an_item_whose_file_is_missing_or_elsewhere_is_recorded(store: ObjectStore, scenes: Path) -> None:
    items = [item("gone", image=asset("none.tif")), item("web", image=asset("https://host/x.tif")), item("none")]
    (scenes / "items.json").write_text(json.dumps({"type": "FeatureCollection", "features": [*items, {"type": 3}]}))
    problems = {scene.uri: scene.problem or "" for scene in discover(store, str(scenes / "items.json")).scenes}
    assert "there is no such file" in problems[f"{scenes}/none.tif"]
    assert "the host host is not one of those that may be read" in problems[f"{scenes}/items.json#web"]
    assert "0 data assets" in problems[f"{scenes}/items.json#none"]
    assert "it is not a STAC Item" in problems[f"{scenes}/items.json#None"]


def test_texts_that_utf8_cannot_hold_do_not_stop_the_run(store: ObjectStore, scenes: Path) -> None:
    image = {**asset("b.tif"), "bands": [{"name": "\ud800"}]}
    missing = asset("none\ud800.tif")
    items = [item("\ud800", **{"a\udc00": image}), item("x\ud800", image=missing)]
    # JSON can hold half of a pair of surrogates as an escape.
    (scenes / "items.json").write_text(json.dumps({"type": "FeatureCollection", "features": items}))
    listing = discover(store, str(scenes / "items.json"))
    assert [(scene.item, scene.uri) for scene in listing.scenes] == [
        ("?", f"{scenes}/b.tif"),
        ("x?", f"{scenes}/items.json#x?"),
    ]
    assert "is not UTF-8" in (listing.scenes[1].problem or "")
    rows = [failed_row("survey", scene, listing.address, "no") for scene in listing.scenes]
    assert Catalogue.of(rows).count == 2


def nested(depth: int) -> bytes:
    """Return a point in a geometry collection in a geometry collection and so on, as WKB."""
    return struct.pack("<BII", 1, 7, 1) * depth + struct.pack("<BIdd", 1, 1, 24.0, 60.0)


@pytest.mark.parametrize(
    "geometry",
    [
        {"type": "Polygon", "coordinates": []},
        {"type": "Point", "coordinates": [1e308, 60]},
        {"type": "Point", "coordinates": [24, 91]},
        {"type": "Point", "coordinates": ["a", None]},
        b"\1\1",
        nested(100_000),
    ],
    ids=["empty", "no longitude", "no latitude", "no number", "no WKB", "nested"],
)
def test_a_footprint_that_is_no_place_on_earth_is_left_out(
    geometry: Any, store: ObjectStore, scenes: Path, tmp_path: Path
) -> None:
    document = item("one", image=asset("b.tif"))
    if isinstance(geometry, bytes):
        name = "items.parquet"
        columns = {"id": ["one"], "geometry": [geometry], "assets": [document["assets"]]}
        pq.write_table(pa.table(columns), scenes / name)
    else:
        name = "item.json"
        (scenes / name).write_text(json.dumps(document | {"geometry": geometry}))
    (scene,) = discover(store, str(scenes / name)).scenes
    assert (scene.uri, scene.problem, scene.geometry) == (f"{scenes}/b.tif", None, None)


def test_a_geometry_of_another_type_in_parquet_is_left_out(store: ObjectStore, scenes: Path) -> None:
    columns = {"id": ["one"], "geometry": [{"type": b"Point"}], "assets": [{"image": asset("b.tif")}]}
    pq.write_table(pa.table(columns), scenes / "items.parquet")
    (scene,) = discover(store, str(scenes / "items.parquet")).scenes
    assert (scene.uri, scene.geometry) == (f"{scenes}/b.tif", None)


DAMAGED: dict[str, pa.Array | bytes] = {
    "footer": b"PAR1" + bytes(range(100)) + (100).to_bytes(4, "little") + b"PAR1",
    "a time after the year 9999": pa.array([2**62], pa.timestamp("us", "UTC")),
    "an unknown time zone": pa.array([0], pa.timestamp("us", "No/Where")),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_parquet_file_is_refused_in_one_line(name: str, store: ObjectStore, scenes: Path) -> None:
    damaged = DAMAGED[name]
    if isinstance(damaged, bytes):
        (scenes / "items.parquet").write_bytes(damaged)
    else:
        columns = {"id": ["one"], "assets": [{"image": asset("b.tif")}], "datetime": damaged}
        pq.write_table(pa.table(columns), scenes / "items.parquet")
    with pytest.raises(DataError, match=r"items\.parquet: it cannot be read as Parquet") as caught:
        discover(store, str(scenes / "items.parquet"))
    assert "\n" not in str(caught.value)


def test_a_secret_in_a_list_reaches_no_catalogue(store: ObjectStore, scenes: Path) -> None:
    lines = [
        "https://user:TOKEN@host/a.tif",
        "https://host/b.tif?sig=TOKEN",
        "https://host/b.tif?sig=TOKEN2",
        "https://host/b.tif",
        "ftp://host/c.tif#TOKEN",
        "b.tif",
    ]
    (scenes / "list.txt").write_text("\n".join(lines))
    listing = discover(store, str(scenes / "list.txt"))
    assert [scene.uri for scene in listing.scenes if scene.problem] == [
        "ftp://host/c.tif#1",
        "https://host/a.tif#1",
        "https://host/b.tif",
        "https://host/b.tif#1",
        "https://host/b.tif#2",
    ]
    assert listing.repeated == ()
    assert "TOKEN" not in repr(listing)


def test_addresses_without_scenes_are_refused(store: ObjectStore, scenes: Path) -> None:
    (scenes / "empty").mkdir()
    (scenes / "text.json").write_text("a photograph of a cat")
    (scenes / "list.json").write_text("[]")
    (scenes / "deep.json").write_text('{"a":' * 100_000)
    (scenes / "other.json").write_text('{"type": "Topology"}')
    (scenes / "no.parquet").write_text("no")
    (scenes / "items.json").write_text(json.dumps({"type": "FeatureCollection", "features": []}))
    (scenes / "list.txt").write_text("# no scene\n\n")
    for name, kind, said in (
        ("none", UsageError, "there is no such file or folder"),
        ("empty", DataError, rf"end in \.tif, \.tiff or \.jp2: .* such as {scenes}/empty/\*\.json"),
        ("*.png", DataError, "no file has such a path"),
        ("items.json", DataError, "leads to no STAC Item"),
        ("list.txt", DataError, "no line of the list has a path"),
        ("text.json", DataError, "it is no JSON: give"),
        ("deep.json", DataError, "it is no JSON: give"),
        ("list.json", DataError, "it is no JSON object"),
        ("other.json", DataError, "it is no STAC Item, ItemCollection, Catalog or Collection"),
        ("no.parquet", DataError, "it cannot be read as Parquet"),
    ):
        with pytest.raises(kind, match=said):
            discover(store, str(scenes / name))
    for address, said in (
        ("s3://", "names no bucket"),
        ("s3://*/x.tif", "the name of a bucket"),
        ("ftp://x", "neither"),
    ):
        with pytest.raises(UsageError, match=said):
            discover(store, address)


def test_an_item_collection_that_a_pattern_finds_is_to_be_embedded_by_itself(store: ObjectStore, scenes: Path) -> None:
    (scenes / "items.json").write_text(json.dumps({"type": "FeatureCollection", "features": []}))
    (scene,) = discover(store, str(scenes / "*.json")).scenes
    assert "embed this file by itself (`rasterembed collection embed FILE --collection NAME`)" in (scene.problem or "")


def test_items_are_taken_as_the_results_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threaded, "_WINDOW", 10)
    taken: list[int] = []
    items = (taken.append(number) or number for number in range(100))  # type: ignore[func-returns-value]
    results = threaded.map_threaded(lambda number: number**2, items)
    assert [next(results) for _ in range(5)] == [0, 1, 4, 9, 16]
    assert len(taken) == 10
    assert list(results) == [number**2 for number in range(5, 100)]
