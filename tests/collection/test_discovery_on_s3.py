"""Scenes are found in a bucket: below a prefix, by a pattern, in a list, and in STAC documents."""

from __future__ import annotations

import io
import json
from typing import Any

import geopandas
import pytest
import shapely

from rasterembed.collection.discovery import discover
from rasterembed.errors import DataError, StoreError
from rasterembed.store.object_store import ObjectStore
from tests.support.servers import S3Server
from tests.support.stores import at

KEYS = ("2026/06/c #1.tif", "2026/a.TIF", "2026/d.jp2", "2026/note.md", "2025/b.tif", "store/embeddings/x/part.tif")


@pytest.fixture
def store(moto: S3Server, bucket: str) -> ObjectStore:
    """A bucket with rasters, with other files, and with files that runs wrote into the store."""
    moto.create_bucket(bucket)
    put(moto, bucket, {key: key.encode() for key in KEYS})
    return at(moto, bucket, "store")


def put(server: S3Server, bucket: str, objects: dict[str, bytes]) -> None:
    client = server.client()
    for key, data in objects.items():
        client.put_object(Bucket=bucket, Key=key, Body=data)


def found(store: ObjectStore, bucket: str, address: str) -> dict[str, str | None]:
    """Return the problem of each scene at an address, by its key."""
    scenes = discover(store, f"s3://{bucket}/{address}").scenes
    return {scene.uri.removeprefix(f"s3://{bucket}/"): scene.problem for scene in scenes}


def item(name: str, href: str) -> dict[str, Any]:
    return {
        "type": "Feature",
        "stac_version": "1.1.0",
        "id": name,
        "geometry": shapely.geometry.mapping(shapely.box(24, 60, 25, 61)),
        "properties": {"datetime": "2026-06-21T09:30:00Z"},
        "links": [],
        "assets": {"visual": {"href": href, "type": "image/tiff", "roles": ["data"]}},
    }


@pytest.mark.parametrize(
    ("address", "keys"),
    [
        ("2026/", ["2026/06/c #1.tif", "2026/a.TIF", "2026/d.jp2"]),
        ("2026", ["2026/06/c #1.tif", "2026/a.TIF", "2026/d.jp2"]),
        ("", ["2025/b.tif", "2026/06/c #1.tif", "2026/a.TIF", "2026/d.jp2"]),
        ("202?/*.tif", ["2025/b.tif"]),
        ("**/*.[jt]*", ["2025/b.tif", "2026/06/c #1.tif", "2026/d.jp2"]),
        ("2025/b.tif", ["2025/b.tif"]),
    ],
)
def test_a_prefix_and_a_pattern_give_rasters(address: str, keys: list[str], store: ObjectStore, bucket: str) -> None:
    assert found(store, bucket, address) == dict.fromkeys(keys)
    scene = discover(store, f"s3://{bucket}/2025").scenes[0]
    info = store.describe(scene.uri)
    assert (scene.size, scene.version, scene.modified) == (info.size, info.version, info.modified)


def test_a_list_in_a_bucket_names_objects_only(store: ObjectStore, bucket: str, moto: S3Server) -> None:
    lines = ["# scenes", "2025/b.tif", f"s3://{bucket}/2026/a.TIF", "2026/none.tif", "/etc/passwd", "../x.tif"]
    put(moto, bucket, {"list.txt": "\n".join(lines).encode()})
    problems = found(store, bucket, "list.txt")
    assert [key for key, problem in problems.items() if problem is None] == ["2025/b.tif", "2026/a.TIF"]
    assert "there is no such object" in (problems["2026/none.tif"] or "")
    assert "is a local file" in (problems["/etc/passwd"] or "")
    assert "is outside the bucket" in (problems["../x.tif"] or "")


def test_documents_in_a_bucket_name_objects(store: ObjectStore, bucket: str, moto: S3Server) -> None:
    items = [item("b", "../2025/b.tif"), item("a", f"s3://{bucket}/2026/a.TIF"), item("bad", "/etc/passwd")]
    columns = {"id": [each["id"] for each in items], "assets": [each["assets"] for each in items]}
    geometry = [shapely.geometry.shape(each["geometry"]) for each in items]
    table = io.BytesIO()
    geopandas.GeoDataFrame(columns, geometry=geometry, crs="OGC:CRS84").to_parquet(table)
    links = [{"rel": "child", "href": "part/catalog.json"}, {"rel": "item", "href": "b.json"}]
    inner = [{"rel": "item", "href": f"s3://{bucket}/stac/a.json"}]
    documents = {
        "stac/items.json": {"type": "FeatureCollection", "features": items},
        "stac/catalog.json": {"type": "Catalog", "links": links},
        "stac/part/catalog.json": {"type": "Catalog", "links": inner},
        "stac/a.json": items[1],
        "stac/b.json": items[0],
    }
    objects = {key: json.dumps(document).encode() for key, document in documents.items()}
    put(moto, bucket, objects | {"stac/items.parquet": table.getvalue()})
    for name in ("stac/items.json", "stac/items.parquet", "stac/catalog.json"):
        problems = found(store, bucket, name)
        assert [key for key, problem in problems.items() if problem is None] == ["2025/b.tif", "2026/a.TIF"]
        assert len(problems) == (2 if "catalog" in name else 3)


def test_what_is_missing_in_a_bucket_is_named(store: ObjectStore, bucket: str) -> None:
    with pytest.raises(DataError, match=rf"s3://{bucket}/2024: no scene was found"):
        found(store, bucket, "2024/")
    with pytest.raises(StoreError, match="there is no such object"):
        found(store, bucket, "none.parquet")
    with pytest.raises(StoreError, match="there is no such bucket"):
        found(store, f"{bucket}-none", "2026/")
