"""Wrong requests: each is answered by one plain line that says what is wrong, where, and what to send."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from starlette.testclient import TestClient

TILE = "x+002250_y+041999"
"""The tile in the upper left corner of the scene `first`."""

VIEW = {"kind": "datasets", "id": "first"}
KNOWN = VIEW | {"dataset_id": "first", "tile_id": TILE, "name": "map", "z": "3", "x": "4", "y": "2"}
"""Parts of paths that exist."""

NEEDED = {"bbox": "20,55,30,65", "lon": "24.45", "lat": "60.59"}
"""Parameters without which an endpoint refuses a request."""

JSON = "application/json"

LONG = "a" * 5_000

HOSTILE = ["", " ", "abc", "nan", "-1", "1e999", "9" * 20, "null", "[]", "é\u202e", "<script>", "%00", LONG]
"""Values that hardly any parameter allows."""

WRONG: list[Any] = [None, True, "", "abc", LONG, -1, 1.5, 10**30, [], ["abc"], [[1]], {}, {"type": "Point"}, [None, 3]]
"""Values that hardly any field of a body allows."""

NOT_PLAIN = re.compile(
    r"Input should|should match|should have|valid (string|integer|number|list|dictionary)|dictionary|tuple|pydantic|"
    r"validation|Unable|unable|decode|Method Not|Not Found|None\b|\bTrue\b|\bFalse\b|<class|object at|\(1, 2\)|"
    r"\b(Query|Where|TileRef)\b|Traceback|\^\["
)
"""Words of libraries, and Python's notation of values."""


def operations(service: TestClient) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield path, method and description of each endpoint of the API."""
    paths = service.get("/api/openapi.json").json()["paths"]
    for path, methods in paths.items():
        if path.startswith("/api/"):
            for method, operation in methods.items():
                yield path, method, operation


def parameters(operation: dict[str, Any], place: str) -> list[str]:
    return [one["name"] for one in operation.get("parameters", []) if one["in"] == place]


def body_of(service: TestClient, operation: dict[str, Any]) -> Any:
    """Return the example of the body of an endpoint, with a tile that exists. None if it takes no JSON."""
    content = operation.get("requestBody", {}).get("content", {})
    if JSON not in content:
        return None
    name = content[JSON]["schema"]["$ref"].rpartition("/")[2]
    schema = service.get("/api/openapi.json").json()["components"]["schemas"][name]
    text = json.dumps(schema["examples"][0]).replace("r000001_c000002", TILE)
    return json.loads(text)


def check(answer: httpx.Response, *, asked: object) -> None:
    """Check that an answer is right, or a problem in plain words."""
    assert answer.status_code < 500, (asked, answer.text)
    if answer.status_code < 400:
        return
    assert answer.headers["Content-Type"] == "application/problem+json", asked
    problem = answer.json()
    assert set(problem) == {"type", "title", "status", "detail"}
    assert problem["detail"].strip(), asked
    assert "\n" not in problem["detail"]
    assert len(problem["detail"]) <= 1000
    assert NOT_PLAIN.search(problem["detail"]) is None, (asked, problem["detail"])


def detail(answer: httpx.Response, status: int) -> str:
    assert answer.status_code == status, answer.text
    check(answer, asked=answer.request)
    return str(answer.json()["detail"])


def test_no_parameter_is_answered_by_words_of_a_library(service: TestClient) -> None:
    asked = 0
    for path, method, operation in operations(service):
        needed = {name: NEEDED[name] for name in parameters(operation, "query") if name in NEEDED}
        sent = {"json": body} if (body := body_of(service, operation)) else {}
        for value in HOSTILE:
            for name in parameters(operation, "query"):
                url = path.format(**KNOWN)
                check(service.request(method, url, params=needed | {name: value}, **sent), asked=(url, name, value))
                asked += 1
            for name in parameters(operation, "path"):
                part = httpx.URL("http://a").copy_with(path=f"/{value}").raw_path.decode()[1:].replace("/", "%2F")
                url = path.format(**KNOWN | {name: part or "%20"})
                check(service.request(method, url, params=needed, **sent), asked=(url, name, value))
                asked += 1
    assert asked > 500


def changed(body: Any, place: tuple[int | str, ...], value: Any) -> Any:
    """Return a copy of a body with another value at a place."""
    if not place:
        return value
    result = copy.deepcopy(body)
    inner = result
    for part in place[:-1]:
        inner = inner[part]
    inner[place[-1]] = value
    return result


def places(value: Any, place: tuple[int | str, ...] = ()) -> Iterator[tuple[int | str, ...]]:
    """Yield the places of all values in a body."""
    yield place
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, inner in items:
        yield from places(inner, (*place, name))


RING = [[24.4, 60.5], [24.5, 60.5], [24.5, 60.6], [24.4, 60.6], [24.4, 60.5]]

WHOLE_WHERE = {
    "bbox": [24.4, 60.5, 24.5, 60.6],
    "polygon": {"type": "MultiPolygon", "coordinates": [[RING]]},
    "min_valid_fraction": 0.5,
    "since": "2024-01-01",
    "until": "2027-01-01",
    "max_cloud_cover": 90,
    "scenes": ["first"],
    "pick": "all",
}
"""Every filter."""


def test_no_body_is_answered_by_words_of_a_library(service: TestClient) -> None:
    asked = 0
    for path, method, operation in operations(service):
        body = body_of(service, operation)
        if body is None:
            continue
        if "where" in body:
            body["where"] = WHOLE_WHERE
        if "query" in body:
            body["query"] = {"tile": TILE, "like": [TILE], "unlike": [TILE], "include_query": True}
        for place in places(body):
            for value in WRONG:
                sent = changed(body, place, value)
                check(service.request(method, path.format(**KNOWN), json=sent), asked=(path, place, value))
                asked += 1
    assert asked > 500


def test_an_unknown_parameter_is_refused_by_each_endpoint_and_known_ones_are_named(service: TestClient) -> None:
    """A filter with a typing error would have no effect, and the answer would be that of another question."""
    for path, method, operation in operations(service):
        sent = {"json": body} if (body := body_of(service, operation)) else {}
        url = path.format(**KNOWN)
        text = detail(service.request(method, url, params={"boxx": "1,2,3,4"}, **sent), 422)
        known = parameters(operation, "query")
        assert text.startswith(f"{url} has no parameter 'boxx': it takes "), text
        assert text.endswith("it takes none, so leave it out") or any(name in text for name in known), text
    at = "/api/datasets/first/at"
    place = {"lon": "24.45", "lat": "60.59"}
    assert "it takes since, ..." in detail(service.get(at, params=place | {"sinc": "2024"}), 422)
    assert "it takes bbox, ..." in detail(service.get("/api/datasets/first/footprints?bboxx=1,2,3,4"), 422)


def test_a_parameter_that_is_given_twice_is_refused(service: TestClient) -> None:
    text = detail(service.get("/api/datasets/first/at?lon=24&lat=60&lon=25"), 422)
    assert text == "query.lon: it is given 2 times: give it once"


@pytest.mark.parametrize(
    ("path", "wrong", "near"),
    [
        ("search", {"quer": {}}, "body: there is no field 'quer': it has query, ..."),
        ("search", {"query": {"tiel": TILE}}, "body.query: there is no field 'tiel': it has tile, ..."),
        ("click", {"lonlat": [1, 2], "where": {"sinc": "1"}}, "body.where: there is no field 'sinc': it has since"),
        ("export", {"query": {"tile": TILE}, "format": "python", "K": 3}, "body: there is no field 'K': it has query"),
    ],
)  # fmt: skip
def test_an_unknown_field_is_refused_and_near_ones_are_named(
    service: TestClient, path: str, wrong: Any, near: str
) -> None:
    assert detail(service.post(f"/api/datasets/first/{path}", json=wrong), 422).startswith(near)


@pytest.mark.parametrize("path", ["search", "click", "similarity", "export"])
@pytest.mark.parametrize(
    ("kind", "content", "wrong"),
    [
        (None, b'{"query": {}}', "body: its Content-Type is missing: "),
        ("application/x-www-form-urlencoded", b'{"query": {}}', "body: its Content-Type is application/x-www-form-url"),
        ("text/plain; charset=utf-8", b'{"query": {}}', "body: its Content-Type is text/plain: "),
        (JSON, b'{"query":{"tile":', "body: it is no JSON from character 18 on: "),
        (JSON, b"\xef\xbb\xbf", "body: it is no JSON from character "),
        (JSON, b'{"query": "\xff"}', "body: it is no text in UTF-8: "),
        (JSON, b'{"query":' + b"[" * 100_000, "body: its values are nested too deep: "),
        (JSON, b"[]", "body: it is JSON, but no object in braces: "),
        (JSON, b'"x"', "body: it is JSON, but no object in braces: "),
        (JSON, b"", "body: it is missing: "),
        (None, b"", "body: it is missing: "),
    ],
)
def test_a_body_that_is_no_json_object_is_told_what_to_send(
    service: TestClient, path: str, kind: str | None, content: bytes, wrong: str
) -> None:
    headers = {} if kind is None else {"Content-Type": kind}
    url = f"/api/datasets/first/{path}"
    text = detail(service.post(url, content=content, headers=headers), 422)
    assert text.startswith(wrong)
    _, _, example = text.partition("send `Content-Type: application/json` and a body such as ")
    sent = json.loads(example.replace("r000001_c000002", TILE))
    if path == "click":
        sent["lonlat"] = [24.45, 60.59]
    assert service.post(url, json=sent).status_code == 200


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ({"query": {"lonlat": [24.45]}}, "body.query.lonlat.1: give 2 values"),
        ({"query": {"lonlat": "a"}}, "body.query.lonlat: give a list of values, such as [1, 2]"),
        ({"query": {}}, "body.query: give an example of what to look for: `tile`, `lonlat`, `image` or `like`"),
        ({"query": {"tile": TILE}, "where": 7}, "body.where: give a JSON object in braces"),
        ({"query": {"tile": TILE}, "where": {"since": "x"}}, "body.where: `since`: give a year, a month, a day"),
        ({"query": {"tile": TILE}, "where": {"polygon": {"type": "Point"}}},
         "body.where.polygon: its field 'type' is wrong: give one of 'Polygon', 'MultiPolygon'"),
        ({"query": {"tile": TILE}, "where": {"polygon": {"type": "Polygon", "coordinates": [[[1, 2]]]}}},
         "body.where.polygon.coordinates.0: give at least 4 values"),
        ({"query": {"tile": TILE}, "where": {"polygon": {"type": "Polygon"}}},
         "body.where.polygon.coordinates: it is missing: give a value"),
        ({"query": {"tile": TILE}, "where": {"polygon": {"type": "MultiPolygon", "coordinates": [[[[1]]]]}}},
         "body.where.polygon.coordinates.0.0.0.1: give 2 values"),
        ({"query": {"tile": TILE}, "where": {"polygon": {"type": "Polygon", "coordinates": [], "crs": 1}}},
         "body.where.polygon: there is no field 'crs': it has type, coordinates"),
        ({"query": {"tile": TILE}, "where": {"polygon": {"coordinates": []}}},
         "body.where.polygon: its field 'type' is missing"),
    ],
)  # fmt: skip
def test_a_wrong_value_of_a_body_has_its_place(service: TestClient, body: Any, text: str) -> None:
    assert detail(service.post("/api/datasets/first/search", json=body), 422).startswith(text)


@pytest.mark.parametrize(
    ("content", "kind", "wrong"),
    [
        (b"", "image/png", "the file is not an image"),
        (b"--x\r\n", "multipart/form-data; boundary=x", "the body is a form"),
        (b"abc", "image/png", "the file is not an image"),
    ],
)
def test_an_upload_that_is_no_image_is_told_what_to_send(
    service: TestClient, content: bytes, kind: str, wrong: str
) -> None:
    answer = service.post("/api/datasets/first/images", content=content, headers={"Content-Type": kind})
    text = detail(answer, 422)
    assert text.startswith(wrong)
    assert "PNG, JPEG, TIFF or WebP" in text


def test_a_wrong_method_is_told_the_right_ones(service: TestClient) -> None:
    for path, method, _ in operations(service):
        url = path.format(**KNOWN)
        for wrong in {"GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"} - {method.upper()}:
            answer = service.request(wrong, url)
            assert detail(answer, 405) == f"{url} does not take {wrong}: send {method.upper()}"
            assert answer.headers["Allow"] == method.upper()
            assert answer.json()["type"] == "wrong-method"
    sign_in = service.delete("/sign-in")
    assert sign_in.headers["Allow"] == "GET, HEAD, POST"
    assert detail(sign_in, 405) == "/sign-in does not take DELETE: send GET or HEAD or POST"


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
@pytest.mark.parametrize("path", ["/api", "/api/", "/api/nothing", "/api/datasets", "/api/datasets/first/none"])
def test_an_unknown_path_of_the_api_says_where_the_paths_are(service: TestClient, path: str, method: str) -> None:
    answer = service.request(method, path)
    text = detail(answer, 404)
    assert text.startswith(f"the API has no path '{path}': ")
    assert answer.json()["type"] == "not-found"
    assert service.get("/api/openapi.json").status_code == service.get("/api/store").status_code == 200
    assert "/api/store" in text
    assert "/api/openapi.json" in text


@pytest.mark.parametrize("path", ["/api/store", "/api/datasets/first", "/api/datasets/first/search"])
def test_a_path_with_a_slash_too_many_is_told_the_right_one(service: TestClient, path: str) -> None:
    answer = service.get(f"{path}/", follow_redirects=False)
    assert detail(answer, 404) == f"the API has no path '{path}/': write {path}"


@pytest.mark.parametrize(
    ("path", "right"),
    [
        ("/api/datasets/survey", "'survey' is a collection: its path is `/api/collections/survey`"),
        ("/api/collections/dateline", "'dateline' is a dataset: its path is `/api/datasets/dateline`"),
        ("/api/datasets/frist", "the store has first, ..."),
        ("/api/collections/survei", "the store has survey"),
        ("/api/dataset/first", "path.kind: give 'datasets' or 'collections'"),
    ],
)
def test_a_name_of_another_kind_is_told_its_path(service: TestClient, path: str, right: str) -> None:
    answer = service.get(path)
    check(answer, asked=path)
    assert answer.status_code in (404, 422)
    assert right in answer.json()["detail"]


@pytest.mark.parametrize(
    ("path", "right"),
    [
        ("datasets/first/tile/first/x+002250_y+049999", "and the nearest one is x+002250_y+041999"),
        ("datasets/first/thumbnails/first/x+009999_y+000000.webp", "and the nearest one is x+002256_y+041994"),
        ("datasets/dateline/tile/dateline/r000001_c000099", "and the nearest one is r000001_c000005"),
        ("datasets/dateline/tile/dateline/x+000001_y+000001", "its tiles are r000000_c000000 in the upper left corner"),
        ("datasets/dateline/tile/datelin/r000001_c000001", "has no scene 'datelin' with vectors: it has dateline"),
        ("collections/survey/tile/frist/x+002250_y+041999", "has no scene 'frist' with vectors: it has first, ..."),
        ("collections/survey/tile/first/x+002250_y+049999", "and the nearest one is x+002250_y+041999"),
    ],
)
def test_an_unknown_tile_is_told_near_ones(service: TestClient, path: str, right: str) -> None:
    answer = service.get(f"/api/{path}")
    assert right in detail(answer, 404)
    assert answer.json()["type"] == "unknown-tile"


@pytest.mark.parametrize(
    ("view", "tile", "right"),
    [
        ("datasets/first", "x+002250_y+049999", "and the nearest one is x+002250_y+041999"),
        ("datasets/first", "frist/x+002250_y+041999", "dataset 'frist' is not searched: the search has first"),
        ("collections/survey", "frist/x+002250_y+041999", "has no scene 'frist': it has first, ..."),
        ("collections/survey", "first/x+002250_y+049999", "and the nearest one is x+002250_y+041999"),
    ],
)
def test_a_search_from_an_unknown_tile_is_told_near_ones(service: TestClient, view: str, tile: str, right: str) -> None:
    answer = service.post(f"/api/{view}/search", json={"query": {"tile": tile}})
    assert right in detail(answer, 422)
