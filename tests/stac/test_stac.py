"""A real STAC API server is searched, and other readers of STAC open a written collection."""

from __future__ import annotations

import json
import os
import random
import subprocess
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
import rasterio
from rasterio import warp

from rasterembed.collection.discovery import discover
from rasterembed.collection.stac_api import search_items
from rasterembed.collection.stac_search import StacSearch
from rasterembed.collection_pipeline import embed_collection
from rasterembed.command_line.run import run
from rasterembed.commands.main import app
from rasterembed.dataset.dataset import Dataset
from rasterembed.errors import UsageError
from rasterembed.store.object_store import ObjectStore
from rasterembed.store.server_settings import SourceStore
from tests.support.environments import environment
from tests.support.scenes import collection_options, write_scene
from tests.support.servers import ServerProcess, free_port
from tests.support.stac_schemas import check
from tests.support.waiting import wait_for
from tests.support.web_server import WebServer, make_certificate, set_names, web_server

HERE = Path(__file__).parent
COUNT = 1200
START = datetime(2026, 5, 1, tzinfo=UTC)

pytestmark = pytest.mark.stac


@pytest.fixture(scope="module")
def stac_python() -> Path:
    return environment("stac")


def generated(count: int, href: str) -> list[dict[str, Any]]:
    """Return Items at random places and dates. The number of an Item is its place in the list."""
    rng = random.Random(7)
    items = []
    for number in range(count):
        west, south = rng.uniform(20, 30), rng.uniform(58, 66)
        east, north = west + 0.2, south + 0.1
        ring = [[west, south], [east, south], [east, north], [west, north], [west, south]]
        when = START + timedelta(hours=3 * number)
        items.append(
            {
                "type": "Feature",
                "stac_version": "1.1.0",
                "stac_extensions": ["https://stac-extensions.github.io/eo/v2.0.0/schema.json"],
                "id": f"scene-{number:04d}",
                "collection": "generated",
                "geometry": {"type": "Polygon", "coordinates": [ring]},
                "bbox": [west, south, east, north],
                "properties": {"datetime": when.strftime("%Y-%m-%dT%H:%M:%SZ"), "eo:cloud_cover": rng.uniform(0, 100)},
                "links": [],
                "assets": {
                    "visual": {"href": f"{href}/scene-{number:04d}.tif", "type": "image/tiff", "roles": ["data"]}
                },
            }
        )
    return items


@dataclass(frozen=True)
class Archive:
    """A STAC API, and a web server with the files that its Items name."""

    api: str
    files: WebServer
    items: list[dict[str, Any]]
    hosts: tuple[str, ...]


@contextmanager
def _api(python: Path, items: list[dict[str, Any]], folder: Path, certificate: Path) -> Iterator[int]:
    """Serve Items by stac-fastapi-geoparquet, and yield the port."""
    (folder / "items.json").write_text(json.dumps(items))
    port = free_port()
    command = [python, HERE / "serve.py", folder / "items.json", folder, port, certificate]
    process = ServerProcess([str(part) for part in command], folder / "server.out")
    probe = ObjectStore(
        root=str(folder), source_store=SourceStore(https_hosts=(f"stac.test:{port}",), https_private=True)
    )

    def answers() -> bool:
        process.check()
        try:
            return bool(probe.https.request(f"https://stac.test:{port}/", most=2**20).data)
        except Exception:
            return False

    try:
        wait_for(answers, "the STAC API", 120)
        yield port
    finally:
        process.end()


@pytest.fixture(scope="module")
def archive(stac_python: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Archive]:
    folder = tmp_path_factory.mktemp("stac")
    authority, pair = make_certificate(folder, "stac.test", "data.test")
    with pytest.MonkeyPatch.context() as monkeypatch, web_server(pair) as files:
        monkeypatch.setenv("SSL_CERT_FILE", str(authority))
        set_names(monkeypatch, {name: [["127.0.0.1"]] for name in ("stac.test", "data.test")})
        items = generated(COUNT, files.url("", "data.test"))
        for number, item in enumerate(items):
            scene = write_scene(folder / "a.tif", number).read_bytes() if number < 40 else item["id"].encode()
            files.files[f"/{item['id']}.tif"] = scene
        with _api(stac_python, items, folder, pair) as port:
            hosts = (f"stac.test:{port}", f"data.test:{files.port}")
            yield Archive(f"https://stac.test:{port}", files, items, hosts)


@pytest.fixture
def store(archive: Archive, tmp_path: Path) -> ObjectStore:
    return ObjectStore(
        root=str(tmp_path / "store"), source_store=SourceStore(https_hosts=archive.hosts, https_private=True)
    )


def expected(
    archive: Archive,
    bbox: tuple[float, float, float, float] = (-180, -90, 180, 90),
    dates: tuple[str, str] = ("2000", "3000"),
    clouds: float = 101,
) -> list[str]:
    """Return the ids of the Items that a search must find, by comparing their numbers one by one."""
    west, south, east, north = bbox
    found = []
    for item in archive.items:
        left, bottom, right, top = item["bbox"]
        inside = left <= east and right >= west and bottom <= north and top >= south
        properties = item["properties"]
        if inside and dates[0] <= properties["datetime"] <= dates[1] and properties["eo:cloud_cover"] < clouds:
            found.append(item["id"])
    return found


BOX = (22.0, 60.0, 25.0, 62.0)
SUMMER = ("2026-06-01T00:00:00Z", "2026-08-31T23:59:59Z")
CLEAR = {"eo:cloud_cover": {"lt": 20}}


@pytest.mark.parametrize(
    ("search", "wanted"),
    [
        ({"collections": ("generated",)}, {}),
        ({"bbox": BOX}, {"bbox": BOX}),
        ({"datetime": "2026-06/2026-08"}, {"dates": SUMMER}),
        ({"query": CLEAR}, {"clouds": 20}),
        ({"bbox": BOX, "datetime": "2026-06/2026-08", "query": CLEAR}, {"bbox": BOX, "dates": SUMMER, "clouds": 20}),
        (
            {"filter": {"op": "<", "args": [{"property": "eo:cloud_cover"}, 20]}, "bbox": BOX},
            {"bbox": BOX, "clouds": 20},
        ),
    ],
    ids=["all", "bbox", "dates", "query", "together", "filter"],
)
def test_a_search_finds_what_a_comparison_of_all_items_finds(
    search: dict[str, Any], wanted: dict[str, Any], archive: Archive, store: ObjectStore
) -> None:
    ids = expected(archive, **wanted)
    assert 0 < len(ids) <= COUNT
    assert (len(ids) > 1000) == (not wanted)
    listing = discover(store, archive.api, (), StacSearch(**search))  # Pages of 250 Items.
    assert [scene.item for scene in listing.scenes] == ids
    assert [scene.problem for scene in listing.scenes if scene.problem] == []
    one = listing.scenes[0]
    item = next(item for item in archive.items if item["id"] == one.item)
    assert one.datetime is not None
    assert one.datetime.strftime("%Y-%m-%dT%H:%M:%SZ") == item["properties"]["datetime"]
    assert one.cloud_cover == pytest.approx(item["properties"]["eo:cloud_cover"])


def test_a_wrong_search_is_refused_by_name(archive: Archive, store: ObjectStore) -> None:
    with pytest.raises(UsageError, match="has a wildcard"):
        discover(store, archive.api, (), StacSearch(query={"title": {"contains": "50%"}}))


def test_only_one_page_is_in_memory(archive: Archive, store: ObjectStore) -> None:
    search = StacSearch(collections=("generated",), limit=50)
    items = search_items(store, archive.api, search)
    next(items)
    tracemalloc.start()
    try:
        count = 1 + sum(1 for _ in items)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert count == COUNT
    # 1,200 of these Items take more than 5 MB as Python objects. A page of 50 and its text take less than 1 MB.
    assert peak < 2e6


def test_a_search_becomes_a_collection(archive: Archive, store: ObjectStore, tiny_vit: Path) -> None:
    last = archive.items[5]["properties"]["datetime"]
    search = StacSearch(collections=("generated",), datetime=f"2026-05-01T00:00:00Z/{last}")
    options = collection_options(tiny_vit, search=search)
    result = embed_collection(store, "survey", archive.api, options)
    assert result.failed == ()
    rows = {row.item: row for row in result.collection.catalogue.rows()}
    assert sorted(rows) == [f"scene-{number:04d}" for number in range(6)]
    assert {(row.state.value, row.rows) for row in rows.values()} == {("embedded", 4)}
    assert rows["scene-0003"].source == archive.files.url("/scene-0003.tif", "data.test")
    # The vectors equal those of the same file on the disk.
    local = Path(store.root).parent / "scene-0003.tif"
    local.write_bytes(archive.files.files["/scene-0003.tif"])
    here = ObjectStore(root=str(Path(store.root).parent / "here"))
    embed_collection(here, "survey", str(local), collection_options(tiny_vit))
    assert _vectors(here, "scene-0003") == _vectors(store, "scene-0003")
    # Nothing is left to do. A search that finds fewer scenes is another listing, so nothing is gone.
    again = embed_collection(store, "survey", archive.api, options)
    assert again.comparison.to_embed_count == 0
    fewer = options.model_copy(update={"search": StacSearch(ids=("scene-0001",))})
    assert embed_collection(store, "survey", archive.api, fewer).comparison.gone == ()


@pytest.mark.usefixtures("plain_pictures")
def test_the_commands_go_from_a_search_of_the_api_to_an_answer(
    archive: Archive, tmp_path: Path, tiny_vit: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RASTEREMBED_SOURCE_HTTPS_HOSTS", ",".join(archive.hosts))
    monkeypatch.setenv("RASTEREMBED_SOURCE_HTTPS_PRIVATE", "yes")
    root = str(tmp_path / "store")
    wanted = json.dumps(
        {"collections": ["generated"], "datetime": "2026-05-01", "query": {"eo:cloud_cover": {"lt": 60}}}
    )
    model = ("--model", str(tiny_vit), "--size", "32", "--anchor", "crs", "--device", "cpu")
    place = ("--collection", "survey", "--root", root)
    told = str(run(app, ["collection", "embed", archive.api, *place, "--search", wanted, *model]))
    names = expected(archive, dates=("2026-05-01T00:00:00Z", "2026-05-01T23:59:59Z"), clouds=60)
    assert 2 <= len(names) < 8
    assert f"scenes: {len(names)}: {len(names)} ready" in told
    with rasterio.open(BytesIO(archive.files.files[f"/{names[0]}.tif"])) as scene:
        (lon,), (lat,) = warp.transform(scene.crs, "OGC:CRS84", *[[value] for value in scene.xy(10, 10)])
    answer = str(run(app, ["search", *place, "--lonlat", str(lon), str(lat), "--pick", "latest", "-k", "3"]))
    assert names[0] in answer
    # Another run finds nothing to do.
    told = str(run(app, ["collection", "embed", archive.api, *place, "--search", wanted, "--device", "cpu"]))
    assert "nothing was computed" in told


def _vectors(store: ObjectStore, name: str) -> Any:
    (dataset_id,) = [summary.id for summary in store.datasets() if name in summary.id]
    return Dataset.open(store, dataset_id, ("embedded",)).vectors().tolist()


def test_other_readers_open_a_written_collection(
    archive: Archive, stac_python: Path, store: ObjectStore, tiny_vit: Path
) -> None:
    search = StacSearch(ids=("scene-0001", "scene-0002", "scene-0300"))  # The file of the last one is damaged.
    result = embed_collection(store, "survey", archive.api, collection_options(tiny_vit, search=search))
    folder = Path(store.root) / "collections" / "survey"
    command = [stac_python, HERE / "read.py", folder / "items.parquet", folder / "collection.json"]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ}, check=False)
    assert done.returncode == 0, done.stderr
    read = json.loads(done.stdout)
    rows = {row.id: row for row in result.collection.catalogue.rows()}
    assert len(rows) == 3
    for reader in ("stac-geoparquet", "rustac"):
        assert sorted(read[reader]) == sorted(rows), reader
        for name, item in read[reader].items():
            check(item)
            properties = item["properties"]
            assert properties["state"] == rows[name].state.value
            assert properties["rows"] == rows[name].rows
            assert datetime.fromisoformat(properties["datetime"]) == rows[name].datetime
            assert item["collection"] == "survey"
            assert item["geometry"]["type"] == "Polygon"
    assert read["collection"]["id"] == "survey"
    (west, south, east, north) = read["collection"]["extent"]["spatial"]["bbox"][0]
    assert -180 <= west < east <= 180
    assert -90 <= south < north <= 90
