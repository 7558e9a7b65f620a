"""Scenes are found by a search of a STAC API. The test's own server speaks TLS and records what it is asked."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from rasterembed.collection.catalogue import Catalogue
from rasterembed.collection.comparison import compare
from rasterembed.collection.discovery import discover
from rasterembed.collection.found_scene import Listing
from rasterembed.collection.scene_row import failed_row
from rasterembed.collection.stac_api import as_cql2
from rasterembed.collection.stac_search import StacSearch
from rasterembed.errors import DataError, RasterEmbedError, StoreError, UsageError
from rasterembed.store import https
from rasterembed.store.object_store import ObjectStore
from rasterembed.store.server_settings import SourceStore
from tests.support.web_server import Handler, WebServer, make_certificate, set_names, web_server

CORE = ["https://api.stacspec.org/v1.0.0/core", "https://api.stacspec.org/v1.0.0/item-search"]
QUERY = "https://api.stacspec.org/v1.0.0/item-search#query"
FILTER = "https://api.stacspec.org/v1.0.0/item-search#filter"
CLOUDS = StacSearch(collections=("c",), query={"eo:cloud_cover": {"lt": 10}}, limit=2)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return make_certificate(tmp_path_factory.mktemp("tls"), "stac.test", "data.test")


class Api:
    """A STAC API with Items that it sends in pages. It records the conditions of each search."""

    def __init__(self, site: WebServer) -> None:
        self.site = site
        self.conforms = [*CORE, QUERY]
        self.methods = ["GET", "POST"]
        self.items: list[dict[str, Any]] = []
        self.searches: list[dict[str, Any]] = []
        self.next_href = ""
        """Address of each next page, in place of the right one."""
        site.scripts |= {"/v1": self.landing, "/v1/search": self.search}

    @property
    def url(self) -> str:
        return self.site.url("/v1", "stac.test")

    def add(self, *names: str, href: str = "", **asset: Any) -> None:
        """Add Items, each with one file."""
        for name in names:
            address = href or self.site.url(f"/{name}.tif")
            self.site.files[f"/{name}.tif"] = name.encode()
            data = {"href": address, "type": "image/tiff", "roles": ["data"]} | asset
            core = {"type": "Feature", "stac_version": "1.0.0", "id": name, "collection": "c", "links": []}
            self.items.append(core | {"geometry": None, "properties": {"eo:cloud_cover": 5}, "assets": {"data": data}})

    def landing(self, handler: Handler) -> None:
        links = [
            {"rel": "search", "href": f"{self.url}/search", "method": method, "type": "application/geo+json"}
            for method in self.methods
        ]
        page = {"type": "Catalog", "id": "api", "stac_version": "1.0.0", "description": "A test", "links": links}
        self.send(handler, page | {"conformsTo": self.conforms})

    def search(self, handler: Handler) -> None:
        given = {name: value[0] for name, value in parse_qs(urlsplit(handler.path).query).items()}
        given |= json.loads(handler.body or b"{}")
        start, size = int(given.pop("token", 0)), int(given.pop("limit"))
        self.searches.append(given)
        links = []
        if start + size < len(self.items):
            more = given | {"token": start + size, "limit": size}
            href = self.next_href or f"{self.url}/search"
            if handler.command == "GET":
                links = [{"rel": "next", "href": f"{href}?token={start + size}&limit={size}", "method": "GET"}]
            else:
                links = [{"rel": "next", "href": href, "method": "POST", "body": more}]
        self.send(handler, {"type": "FeatureCollection", "features": self.items[start : start + size], "links": links})

    def send(self, handler: Handler, page: Any) -> None:
        handler.send(200, json.dumps(page).encode(), **{"Content-Type": "application/json"})


@pytest.fixture
def api(certificate: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> Iterator[Api]:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))
    monkeypatch.setattr(https, "RETRY_DELAYS_S", ())
    set_names(monkeypatch, {name: [["127.0.0.1"]] for name in ("stac.test", "data.test")})
    with web_server(certificate[1]) as site:
        yield Api(site)


@pytest.fixture
def store(api: Api, tmp_path: Path) -> ObjectStore:
    hosts = tuple(f"{name}:{api.site.port}" for name in ("stac.test", "data.test"))
    return ObjectStore(root=str(tmp_path), source_store=SourceStore(https_hosts=hosts, https_private=True))


def found(store: ObjectStore, api: Api, search: StacSearch = CLOUDS) -> list[str]:
    return [scene.uri.rpartition("/")[2] for scene in discover(store, api.url, (), search).scenes]


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_all_pages_are_read_in_a_stable_order(method: str, api: Api, store: ObjectStore) -> None:
    api.methods = [method]
    api.add("e", "b", "d", "a", "c")
    search = StacSearch(collections=("c",), bbox=(24, 60, 25, 61), datetime="2026-06", query=CLOUDS.query, limit=2)
    listing = discover(store, f"{api.url}/", (), search)
    assert [scene.uri for scene in listing.scenes] == [api.site.url(f"/{name}.tif") for name in "abcde"]
    assert [(scene.item, scene.cloud_cover, scene.size, scene.problem) for scene in listing.scenes[:1]] == [
        ("a", 5.0, 1, None)
    ]
    assert listing.address == search.address(api.url)
    assert [kind for kind, path, _ in api.site.requests if "/search" in path] == [method] * 3
    sent = api.searches[0]
    if method == "GET":
        sent = sent | {"bbox": [float(part) for part in sent["bbox"].split(",")]}
        sent |= {"collections": sent["collections"].split(","), "query": json.loads(sent["query"])}
    assert sent == {
        "collections": ["c"],
        "bbox": [24.0, 60.0, 25.0, 61.0],
        "datetime": "2026-06-01T00:00:00Z/2026-06-30T23:59:59Z",
        "query": {"eo:cloud_cover": {"lt": 10}},
    }


def test_scenes_are_gone_only_within_the_same_search(api: Api, store: ObjectStore) -> None:
    def gone(uri: str) -> bool:
        return False

    api.add("a", "b")
    first = discover(store, api.url, (), CLOUDS)
    rows = [failed_row("survey", scene, first.address, "a test") for scene in first.scenes]
    catalogue = Catalogue.of(rows)
    del api.items[0]
    again = discover(store, f"{api.url}/", (), CLOUDS.model_copy(update={"limit": 50}))
    assert len(compare(catalogue, again, gone).gone) == 1
    other = discover(store, api.url, (), StacSearch(ids=("b",)))
    assert compare(catalogue, other, gone).gone == ()
    assert compare(catalogue, Listing(str(store.root), ()), gone).gone == ()


def test_a_query_is_sent_as_a_filter_if_the_server_knows_only_filters(api: Api, store: ObjectStore) -> None:
    api.conforms = [*CORE, FILTER]
    api.add("a")
    assert found(store, api) == ["a.tif"]
    assert api.searches[0]["filter"] == {"op": "<", "args": [{"property": "eo:cloud_cover"}, 10]}
    assert api.searches[0]["filter-lang"] == "cql2-json"
    assert "query" not in api.searches[0]
    api.conforms = CORE  # A server would ignore the condition, and find too much.
    with pytest.raises(UsageError, match="neither the query extension nor the filter extension"):
        found(store, api)
    with pytest.raises(UsageError, match="this server has no filter extension"):
        found(store, api, StacSearch(filter=api.searches[0]["filter"]))
    assert len(api.searches) == 1


def test_every_operator_of_a_query_has_a_form_in_cql2() -> None:
    query = {"a": {"eq": 1, "neq": 2, "lt": 3, "lte": 4, "gt": 5, "gte": 6}, "b": {"startsWith": "x", "in": ["y", "z"]}}
    both = as_cql2(query | {"c": {"endsWith": "x", "contains": "y"}})
    signs = [(each["op"], each["args"][1]) for each in both["args"]]
    assert (both["op"], signs) == (
        "and",
        [
            *(("=", 1), ("<>", 2), ("<", 3), ("<=", 4), (">", 5), (">=", 6)),
            *(("like", "x%"), ("in", ["y", "z"]), ("like", "%x"), ("like", "%y%")),
        ],
    )
    with pytest.raises(UsageError, match="has a wildcard"):
        as_cql2({"a": {"contains": "50%"}})


@pytest.mark.parametrize(
    ("href", "said"),
    [
        ("https://other.test/search", "https://other.test/search: the host other.test is not one of those"),
        ("http://169.254.169.254/", "only addresses that begin with https://"),
        ("file:///etc/passwd", "only addresses that begin with https://"),
        ("/etc/passwd", "no such file"),  # It is an address on the same server.
    ],
)
def test_the_address_of_each_page_is_checked(href: str, said: str, api: Api, store: ObjectStore) -> None:
    api.add("a", "b", "c")
    api.next_href = href
    with pytest.raises(StoreError, match=said):
        found(store, api)
    assert len(api.searches) == 1


def test_pages_in_a_circle_are_noticed(api: Api, store: ObjectStore) -> None:
    api.methods = ["GET"]
    api.add("a", "b", "c")
    api.next_href = f"{api.url}/search?token=0&limit=2&a="
    api.site.scripts["/v1/search"] = lambda handler: api.send(
        handler,
        {"features": api.items[:1], "links": [{"rel": "next", "href": f"{api.url}/search?same=1"}]},
    )
    with pytest.raises(DataError, match="are a circle"):
        found(store, api)


@pytest.mark.parametrize(("empty", "names"), [(9, ["a.tif", "b.tif"]), (10**6, ["a.tif"])])
def test_empty_pages_in_the_middle_are_passed_but_not_for_ever(
    empty: int, names: list[str], api: Api, store: ObjectStore
) -> None:
    api.methods = ["GET"]
    api.add("a", "b")
    sent: list[str] = []

    def answer(handler: Handler) -> None:
        number = len(sent)
        sent.append(handler.path)
        items = api.items[:1] if number == 0 else api.items[1:2] if number == empty + 1 else []
        links = [] if number == empty + 1 else [{"rel": "next", "href": f"{api.url}/search?page={number}"}]
        api.send(handler, {"type": "FeatureCollection", "features": items, "collections": [{}], "links": links})

    api.site.scripts["/v1/search"] = answer
    listing = discover(store, api.url, (), CLOUDS)
    assert [Path(scene.uri).name for scene in listing.scenes] == names
    assert len(sent) == 11
    assert listing.ended_early == (empty > 10)


def test_files_of_items_are_read_from_listed_hosts_or_by_their_alternates(api: Api, store: ObjectStore) -> None:
    api.add("a")
    api.add("b", href="https://elsewhere.test/b.tif", alternate={"web": {"href": api.site.url("/b.tif")}})
    api.add("c", href="https://elsewhere.test/c.tif")
    api.add("d", href="../../../d.tif")
    api.add("e", href="file:///etc/passwd")
    api.add("f", href=api.site.url("/f.tif?sig=hush"))
    problems = {scene.uri: scene.problem or "" for scene in discover(store, api.url, (), CLOUDS).scenes}
    data, items = api.site.url("/"), f"{api.url}/collections/c/items"
    assert [problems.pop(f"{data}{name}.tif") for name in "ab"] == ["", ""]
    assert problems.pop(f"https://stac.test:{api.site.port}/v1/d.tif").endswith("there is no such file (HTTP 404)")
    assert "the host elsewhere.test is not one of those" in problems.pop(f"{items}/c#c")
    assert "a document on a server may name files on servers only" in problems.pop(f"{items}/e#e")
    last = problems.pop(f"{items}/f#f")
    assert "has a query or a fragment" in last
    assert "hush" not in last
    assert problems == {}


@pytest.mark.parametrize(
    ("page", "said"),
    [
        ({"type": "Catalog", "id": "x", "stac_version": "1.0.0", "description": "x", "links": []}, "without a search"),
        ({"type": "Feature"}, "it is no STAC API"),
        ([], "it is no STAC API"),
        ("text", "it is no STAC API"),
    ],
)
def test_an_address_that_is_no_api_is_named(page: Any, said: str, api: Api, store: ObjectStore) -> None:
    api.site.scripts["/v1"] = lambda handler: api.send(handler, page)
    with pytest.raises(DataError, match=said) as caught:
        found(store, api)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("page", [{}, {"features": 3}, {"features": [3]}, {"features": [{}], "links": [{}]}, [], "x"])
def test_an_answer_that_is_no_page_is_refused_or_recorded(page: Any, api: Api, store: ObjectStore) -> None:
    api.site.scripts["/v1/search"] = lambda handler: api.send(handler, page)
    try:
        problems = [scene.problem for scene in discover(store, api.url, (), CLOUDS).scenes]
    except RasterEmbedError as error:
        problems = [str(error)]
    assert all(problems)


def test_addresses_and_searches_must_fit_each_other(api: Api, store: ObjectStore) -> None:
    with pytest.raises(UsageError, match=r"`search` needs the address of a STAC API"):
        discover(store, str(store.root), (), CLOUDS)
    with pytest.raises(UsageError, match=r"a web server has no listing of files. For a STAC API, give `search`"):
        discover(store, api.url)
    with pytest.raises(UsageError, match="has a query or a fragment"):
        discover(store, f"{api.url}?key=hush", (), CLOUDS)
    with pytest.raises(DataError, match="the search finds nothing"):
        found(store, api)
    with pytest.raises(StoreError, match=r"the host stac\.test is not one of those"):
        discover(ObjectStore(root=store.root), "https://stac.test/v1", (), CLOUDS)


def test_documents_and_lists_are_read_over_https(api: Api, store: ObjectStore) -> None:
    api.add("a", "b")
    api.site.files["/items.json"] = json.dumps({"type": "FeatureCollection", "features": api.items}).encode()
    api.site.files["/list.txt"] = b"a.tif\nhttps://elsewhere.test/c.tif\n"
    assert [scene.uri for scene in discover(store, api.site.url("/items.json")).scenes] == [
        api.site.url("/a.tif"),
        api.site.url("/b.tif"),
    ]
    scenes = discover(store, api.site.url("/list.txt")).scenes
    assert [(scene.uri, scene.problem is None) for scene in scenes] == [
        (api.site.url("/a.tif"), True),
        ("https://elsewhere.test/c.tif", False),
    ]
    assert discover(store, api.site.url("/a.tif")).scenes[0].version == "first"
