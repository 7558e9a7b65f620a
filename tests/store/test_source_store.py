"""Read rasters from another server than the store's. The test's own server records the headers of every request."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest
from rasterio.windows import Window

from rasterembed.errors import StoreError, UsageError
from rasterembed.raster.pixels import open_pixels
from rasterembed.raster.scene import register_scene
from rasterembed.raster.scene_profile import inspect_scene
from rasterembed.store.object_store import ObjectStore
from rasterembed.store.server_settings import SourceStore
from rasterembed.store.uploads import Upload
from tests.support.rasters import write

KEYS: dict[str, Any] = {"access_key": "reader", "secret_key": "no/real+secret"}


@dataclass
class Archive:
    """A server with objects that can be read. It answers HEAD and GET as S3 does, and checks no signature."""

    url: str
    objects: dict[str, bytes]
    headers: list[dict[str, str]] = field(default_factory=list)
    """Headers of each request for an object that exists, with names in lower case."""


@contextmanager
def archive(objects: dict[str, bytes]) -> Iterator[Archive]:
    """Run a server whose objects are named by bucket/key."""

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self._answer(body=False)

        def do_GET(self) -> None:
            self._answer(body=True)

        def _answer(self, *, body: bool) -> None:
            listing = self._listing().encode() if "list-type=2" in self.path else None
            data = listing or objects.get(self.path.split("?")[0].lstrip("/"))
            if data is None:
                self.send_response(404)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            found.headers.append({name.lower(): value for name, value in self.headers.items()})
            asked = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
            start, stop = (int(asked[1]), min(int(asked[2]) + 1, len(data))) if asked else (0, len(data))
            self.send_response(206 if asked else 200)
            if asked:
                self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{len(data)}")
            self.send_header("Content-Length", str(stop - start))
            self.send_header("ETag", '"first"')
            self.send_header("Last-Modified", "Mon, 01 Jun 2026 12:00:00 GMT")
            self.end_headers()
            if body:
                self.wfile.write(data[start:stop])

        def _listing(self) -> str:
            bucket = urlsplit(self.path).path.strip("/")
            prefix = f"{bucket}/{parse_qs(urlsplit(self.path).query)['prefix'][0]}"
            entries = "".join(
                f"<Contents><Key>{name.removeprefix(f'{bucket}/')}</Key><Size>{len(data)}</Size><ETag>first</ETag>"
                "<LastModified>2026-06-01T12:00:00.000Z</LastModified></Contents>"
                for name, data in objects.items()
                if name.startswith(prefix)
            )
            return f"<ListBucketResult><IsTruncated>false</IsTruncated>{entries}</ListBucketResult>"

        def log_message(self, *_: object) -> None:
            """Print nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    found = Archive(f"http://127.0.0.1:{server.server_port}", objects)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield found
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def pixels() -> Any:
    return np.random.default_rng(1).integers(0, 255, (3, 64, 64)).astype("uint8")


@pytest.fixture
def scenes(tmp_path: Path, pixels: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Archive]:
    """Run an archive with one raster. The variables for the store name a server that does not exist."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with archive({"archive/a.tif": write(tmp_path / "a.tif", pixels).read_bytes()}) as server:
        yield server


def read(store: ObjectStore, uri: str) -> Any:
    source = register_scene(store, uri)
    with open_pixels(store, source.uri, inspect_scene(store, source)) as raster:
        return raster.read((1, 2, 3), Window(0, 0, 64, 64))[0]


@pytest.mark.parametrize(
    ("settings", "signed", "payer"),
    [
        ({"anonymous": True}, False, None),
        (KEYS, True, None),
        (KEYS | {"requester_pays": True}, True, "requester"),
    ],
    ids=["anonymous", "keys", "requester pays"],
)
def test_rasters_are_read_from_the_source_store(
    tmp_path: Path, scenes: Archive, pixels: Any, settings: dict[str, Any], signed: bool, payer: str | None
) -> None:
    source_store = SourceStore(endpoint_url=scenes.url, **settings)
    store = ObjectStore(root=str(tmp_path / "store"), source_store=source_store)
    np.testing.assert_array_equal(read(store, "s3://archive/a.tif"), pixels)
    agents = " ".join(headers.get("user-agent", "GDAL") for headers in scenes.headers)
    assert "Botocore" in agents
    assert "GDAL" in agents
    for headers in scenes.headers:
        assert ("authorization" in headers) == signed
        assert "Credential=reader/" in headers.get("authorization", "Credential=reader/")
        assert headers.get("x-amz-request-payer") == payer


def test_the_store_itself_keeps_its_own_server(tmp_path: Path, scenes: Archive) -> None:
    source_store = SourceStore(endpoint_url=scenes.url, anonymous=True)
    store = ObjectStore(root="s3://results/here", endpoint_url="http://127.0.0.1:10", source_store=source_store)
    assert store.source is source_store
    assert store.s3 is not source_store.s3
    assert store.allowing(str(tmp_path / "a.tif")).source is source_store
    assert ObjectStore(root="s3://results/here").source.endpoint == "http://127.0.0.1:9"
    with pytest.raises(StoreError, match=rf"s3://archive/b.tif on {scenes.url}: there is no such object"):
        register_scene(store, "s3://archive/b.tif")


def test_settings_that_contradict_each_other_are_refused_without_the_secret() -> None:
    for settings in (KEYS | {"anonymous": True}, {"anonymous": True, "requester_pays": True}):
        with pytest.raises(UsageError, match="anonymous requests have no keys") as caught:
            SourceStore(**settings)
        assert KEYS["secret_key"] not in str(caught.value)


def test_an_upload_never_gets_a_source_store() -> None:
    upload = Upload(bucket="rasters", key="a.tif", version="1")
    assert upload.parameters("s3://results", "minio") == {
        "raster": "s3://rasters/a.tif",
        "root": "s3://results",
        "store": "minio",
        "source_store": None,
    }


def test_a_stac_item_on_the_source_store_names_its_files(tmp_path: Path, scenes: Archive, pixels: Any) -> None:
    assets = {}
    for number, colour in enumerate(("red", "green", "blue")):
        file = write(tmp_path / f"{colour}.tif", pixels[number : number + 1])
        scenes.objects[f"archive/2026/{colour}.tif"] = file.read_bytes()
        # Public catalogues give an https address, and the address on S3 as an alternate.
        alternate = {"s3": {"href": f"s3://archive/2026/{colour}.tif"}} if colour == "green" else {}
        href = f"https://data.example.org/{colour}.tif" if alternate else f"./{colour}.tif"
        band = {"eo:bands": [{"name": colour, "common_name": colour}]}
        assets[colour] = {"href": href, "type": "image/tiff", "alternate": alternate} | band
    item = {"type": "Feature", "id": "scene", "properties": {"datetime": "2026-06-01T10:00:00Z"}, "assets": assets}
    scenes.objects["archive/2026/item.json"] = json.dumps(item).encode()
    source_store = SourceStore(endpoint_url=scenes.url, anonymous=True)
    store = ObjectStore(root=str(tmp_path / "store"), source_store=source_store)
    np.testing.assert_array_equal(read(store, "s3://archive/2026/item.json"), pixels)
    assert register_scene(store, "s3://archive/2026/item.json").remote


def test_scenes_below_a_prefix_are_listed_on_the_source_store(tmp_path: Path, scenes: Archive) -> None:
    scenes.objects |= {"archive/2026/b.tif": b"b", "archive/2025/c.tif": b"c"}
    source_store = SourceStore(endpoint_url=scenes.url, **KEYS, requester_pays=True)
    store = ObjectStore(root=str(tmp_path / "store"), source_store=source_store)
    found = [(bucket, key, info.size) for bucket, key, info in store.find_uploads("s3://archive/2026")]
    assert found == [("archive", "2026/b.tif", 1)]
    assert [headers.get("x-amz-request-payer") for headers in scenes.headers] == ["requester"]
