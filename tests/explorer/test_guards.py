"""Who may ask the explorer, and how much: hosts, origins, the sign-in, headers, and the size of bodies."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urljoin, urlsplit

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from rasterembed.errors import UsageError
from rasterembed.explorer.app import create_app
from rasterembed.explorer.settings import ExplorerSettings, Limits
from rasterembed.store.object_store import ObjectStore

TOKEN = "a-token-that-nobody-guesses"
HOME = "http://127.0.0.1:8765"
BEARER = {"Authorization": f"Bearer {TOKEN}"}


def application(folder: Path, **values: Any) -> FastAPI:
    return create_app(ExplorerSettings.read(store=ObjectStore(root=str(folder)), **values))


def client(app: FastAPI, base_url: str = HOME) -> TestClient:
    return TestClient(app, base_url=base_url, follow_redirects=False)


@pytest.fixture(scope="module")
def apps(tmp_path_factory: pytest.TempPathFactory) -> tuple[FastAPI, FastAPI]:
    """Return the service without and with a token, on an empty store. Clients of a test share nothing with others."""
    folder = tmp_path_factory.mktemp("empty")
    return application(folder), application(folder, token=TOKEN)


@pytest.fixture
def open_service(apps: tuple[FastAPI, FastAPI]) -> Iterator[TestClient]:
    """Run the service without a token."""
    with client(apps[0]) as service:
        yield service


@pytest.fixture
def locked_service(apps: tuple[FastAPI, FastAPI]) -> Iterator[TestClient]:
    """Run the service with a token."""
    with client(apps[1]) as service:
        yield service


def test_the_description_of_the_api_has_the_version_of_the_package(open_service: TestClient) -> None:
    described = open_service.get("/api/openapi.json").json()["info"]["version"]
    assert described == open_service.get("/api/store").json()["version"] == version("raster-embeddings")


@pytest.mark.parametrize("host", ["127.0.0.1:8765", "localhost:8765", "LOCALHOST", "[::1]:8765", "127.0.0.1"])
def test_this_machine_is_served(open_service: TestClient, host: str) -> None:
    assert open_service.get("/api/store", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example:8765", "192.168.1.2", "a b", "", "[::1"]
)
@pytest.mark.parametrize("path", ["/api/store", "/health", "/", "/assets/x.js"])
def test_a_name_that_was_bound_to_this_machine_is_refused(open_service: TestClient, host: str, path: str) -> None:
    answer = open_service.get(path, headers={"Host": host})
    assert answer.status_code == 421
    assert answer.json()["type"] == "wrong-host"


def test_an_allowed_host_is_served_and_no_other(tmp_path: Path) -> None:
    with client(application(tmp_path, allowed_hosts=("maps.example",))) as service:
        assert service.get("/health", headers={"Host": "maps.example"}).status_code == 200
        assert service.get("/health", headers={"Host": "other.example"}).status_code == 421


def test_on_all_addresses_the_token_decides_unless_hosts_are_named(tmp_path: Path) -> None:
    with client(application(tmp_path, host="0.0.0.0", token=TOKEN)) as service:
        assert service.get("/health", headers={"Host": "any.example"}).status_code == 200
    with client(application(tmp_path, host="0.0.0.0", token=TOKEN, allowed_hosts=("maps.example",))) as service:
        assert service.get("/health", headers={"Host": "any.example"}).status_code == 421


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "http://127.0.0.1:9999"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:8765.evil.example"},
        {"Origin": "http://user@127.0.0.1:8765"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
def test_a_page_of_another_origin_can_send_nothing(open_service: TestClient, headers: dict[str, str]) -> None:
    answer = open_service.post("/api/datasets/a/search", json={}, headers=headers)
    assert answer.status_code == 403
    assert answer.json()["type"] == "wrong-origin"


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_a_page_of_another_site_can_only_open_the_page(open_service: TestClient, site: str) -> None:
    for path, mode, dest, status in (
        ("/api/store", "no-cors", "image", 403),
        ("/api/store", "no-cors", "script", 403),
        ("/api/store", "cors", "empty", 403),
        ("/api/store", "navigate", "iframe", 403),
        ("/assets/x.js", "no-cors", "script", 403),
        ("/sign-in", "navigate", "iframe", 200),
        ("/sign-in", "navigate", "document", 200),
        ("/api/store", "navigate", "document", 200),
    ):
        headers = {"Sec-Fetch-Site": site, "Sec-Fetch-Mode": mode, "Sec-Fetch-Dest": dest}
        assert open_service.get(path, headers=headers).status_code == status, (path, mode, dest)


def test_the_own_page_and_programs_may_send(open_service: TestClient) -> None:
    for headers in ({}, {"Origin": HOME}, {"Sec-Fetch-Site": "same-origin"}):
        answer = open_service.post("/api/datasets/a/search", json={"query": {"tile": "a/b"}}, headers=headers)
        assert answer.json()["type"] == "unknown-view"


def test_a_proxy_with_tls_may_send_if_its_name_is_allowed(tmp_path: Path) -> None:
    with client(application(tmp_path, allowed_hosts=("maps.example",))) as service:
        headers = {"Origin": "https://maps.example", "Host": "127.0.0.1:8765"}
        assert service.post("/sign-out", headers=headers).status_code == 303


@pytest.mark.parametrize("path", ["/api/store", "/api/progress", "/api/openapi.json", "/assets/x.js", "/nothing"])
def test_without_the_token_nothing_is_told(locked_service: TestClient, path: str) -> None:
    for headers in (
        {},
        {"Authorization": "Bearer wrong"},
        {"Authorization": f"Basic {TOKEN}"},
        {"Cookie": f"rasterembed-explorer-8765={int(time.time()) + 99}.00"},
        {"Cookie": "rasterembed-explorer-8765=é.é"},
    ):
        answer = locked_service.get(path, headers={name: value.encode() for name, value in headers.items()})
        assert answer.status_code == 401, headers
        assert answer.json()["type"] == "sign-in"
        assert TOKEN not in answer.text


def test_programs_show_the_token_with_each_request(locked_service: TestClient) -> None:
    assert locked_service.get("/api/store", headers=BEARER).status_code == 200
    assert locked_service.get("/health").json() == {"status": "ok"}


def test_a_person_signs_in_and_comes_back_to_the_view(locked_service: TestClient) -> None:
    asked = locked_service.get("/?view=datasets/a&at=1,2,3")
    assert asked.status_code == 303
    form_address = asked.headers["Location"]
    assert parse_qs(urlsplit(form_address).query) == {"next": ["?view=datasets/a&at=1,2,3"]}
    form = locked_service.get(f"/{form_address}")
    assert form.status_code == 200
    state = re.search(r'name="next" value="([^"]*)"', form.text)
    assert state is not None
    assert state[1] == "?view=datasets/a&amp;at=1,2,3"

    wrong = locked_service.post("/sign-in", data={"token": "wrong", "next": "?view=datasets/a"})
    assert wrong.status_code == 401
    assert "This token is wrong" in wrong.text
    assert "Set-Cookie" not in wrong.headers

    right = locked_service.post("/sign-in", data={"token": TOKEN, "next": "?view=datasets/a&at=1,2,3"})
    assert right.status_code == 303
    assert right.headers["Location"] == "./?view=datasets/a&at=1,2,3"
    cookie = right.headers["Set-Cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    assert TOKEN not in cookie
    store = locked_service.get("/api/store")
    assert (store.status_code, store.json()["signed_in"]) == (200, True)

    assert locked_service.post("/sign-out").headers["Location"] == "sign-in"
    assert locked_service.get("/api/store").status_code == 401


@pytest.mark.parametrize(
    "next_page", ["//evil.example/?a", "https://evil.example", "?a\r\nSet-Cookie: b=c", "?\u2028", "?" + "a" * 9000]
)
def test_the_sign_in_leads_nobody_elsewhere(locked_service: TestClient, next_page: str) -> None:
    answer = locked_service.post("/sign-in", data={"token": TOKEN, "next": next_page})
    assert answer.headers["Location"] in ("./", "./?a")


def test_the_state_is_text_in_the_form(locked_service: TestClient) -> None:
    form = locked_service.get("/sign-in", params={"next": '?"><script>alert(1)</script>'})
    assert "<script" not in form.text
    assert "&quot;&gt;&lt;script&gt;" in form.text


def test_a_cookie_ends_with_its_time_and_with_the_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with client(application(tmp_path, token=TOKEN)) as service:
        cookie = service.post("/sign-in", data={"token": TOKEN}).headers["Set-Cookie"].partition(";")[0]
    other_token = TOKEN + "!"
    for token, days, status in ((TOKEN, 6, 200), (TOKEN, 8, 401), (other_token, 0, 401)):
        now = time.time()
        with monkeypatch.context() as patch, client(application(tmp_path, token=token)) as restarted:
            patch.setattr(time, "time", lambda now=now, days=days: now + days * 86_400)
            assert restarted.get("/api/store", headers={"Cookie": cookie}).status_code == status, (token, days)


def test_every_answer_has_the_security_headers(locked_service: TestClient) -> None:
    for path in ("/", "/health", "/nothing", "/sign-in", "/api/store"):
        headers = locked_service.get(path).headers
        policy = dict(part.strip().partition(" ")[::2] for part in headers["Content-Security-Policy"].split(";"))
        assert policy["default-src"] == "'none'"
        assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
        assert "unsafe" not in headers["Content-Security-Policy"]
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Referrer-Policy"] == "same-origin"
        assert headers["Cross-Origin-Opener-Policy"] == "same-origin"


def test_an_unexpected_error_tells_nothing_and_has_the_headers(
    open_service: TestClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(_: object) -> None:
        raise ZeroDivisionError("a secret of the service")

    monkeypatch.setattr("rasterembed.explorer.cards.Cards.all", fail)
    answer = open_service.get("/api/store")
    assert (answer.status_code, answer.json()["type"]) == (500, "internal")
    assert "secret" not in answer.text
    assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
    assert "a secret of the service" in caplog.text


def test_only_the_base_map_is_added_to_the_policy(tmp_path: Path) -> None:
    basemap = "https://tiles.example:8443/a/{z}/{x}/{y}.png?key=1"
    with client(application(tmp_path, basemap=basemap, frame_origins=("http://localhost:8888",))) as service:
        policy = service.get("/health").headers["Content-Security-Policy"]
    assert "connect-src 'self' https://tiles.example:8443;" in policy
    assert policy.endswith("frame-ancestors 'self' http://localhost:8888")


def test_the_attribution_of_the_base_map_is_given_as_it_is(tmp_path: Path) -> None:
    basemap = {"basemap": "https://host/{z}/{x}/{y}", "basemap_attribution": " © <b>A</b> & B "}
    with client(application(tmp_path, **basemap)) as service:
        assert service.get("/api/store").json()["basemap_attribution"] == "© <b>A</b> & B"


BROWSER = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}


@pytest.mark.parametrize(
    ("path", "home"),
    [
        ("/nope", "./"),
        ("/a/b/<b>", "../../"),
        ("/assets/none.js", "../"),
        ("/apiary", "./"),
        # For a browser, an encoded slash does not end a folder. The page may lie below a path of a proxy.
        ("/a%2Fb", "./"),
        ("/a/b%2F%3Cb>", "../"),
    ],
)
def test_a_wrong_address_is_a_page_in_a_browser(open_service: TestClient, path: str, home: str) -> None:
    answer = open_service.get(path, headers=BROWSER)
    assert (answer.status_code, answer.headers["Content-Type"]) == (404, "text/html; charset=utf-8")
    assert "The address does not exist" in answer.text
    links = re.findall(r'<a href="([^"]*)"', answer.text)
    assert [urljoin(f"{HOME}{path}", link) for link in links] == [f"{HOME}/"]
    assert links == [home]
    assert "<b>" not in answer.text
    (style,) = re.findall(r'rel="stylesheet" href="([^"]*)"', answer.text)
    assert open_service.get(urljoin(f"{HOME}{path}", style)).headers["Content-Type"] == "text/css; charset=utf-8"


def test_programs_and_the_api_get_problems_as_json(open_service: TestClient) -> None:
    for path, headers in (
        ("/nope", {}),
        ("/nope", {"Accept": "application/json"}),
        ("/api", BROWSER),
        ("/api/nope", BROWSER),
    ):
        answer = open_service.get(path, headers=headers)
        assert (answer.status_code, answer.headers["Content-Type"]) == (404, "application/problem+json")
        assert answer.json()["type"] == "not-found"


def test_other_problems_of_a_browser_are_pages_too(open_service: TestClient, locked_service: TestClient) -> None:
    host = open_service.get("/", headers=BROWSER | {"Host": "evil.example"})
    assert host.status_code == 421
    assert "&#x27;evil.example&#x27;" in host.text or "&#39;evil.example&#39;" in host.text
    unknown = locked_service.get("/nope", headers=BROWSER)
    assert (unknown.status_code, "text/html" in unknown.headers["Content-Type"]) == (401, True)
    assert unknown.headers["WWW-Authenticate"] == "Bearer"
    assert "Content-Security-Policy" in unknown.headers


@pytest.mark.parametrize("path", ["/sign-in", "/api/datasets/a/search", "/api/datasets/a/images", "/nothing"])
def test_a_large_body_is_refused_with_and_without_its_length(tmp_path: Path, path: str) -> None:
    limits = Limits(body_bytes=1024, image_bytes=4096)
    most = 4096 if path.endswith("images") else 1024
    with client(application(tmp_path, limits=limits)) as service:
        for body in (b"x" * (most + 1), iter([b"x" * 512] * (most // 512 + 1))):
            answer = service.post(path, content=body, headers={"Content-Type": "application/json"})
            # An address that does not exist reads no body.
            assert answer.status_code == 413 or (path == "/nothing" and answer.status_code == 404)


@pytest.mark.parametrize("length", ["-1", "1e3", "abc", "9" * 30])
def test_an_impossible_length_is_refused(open_service: TestClient, length: str) -> None:
    answer = open_service.post("/sign-in", content=b"x", headers={"Content-Length": length})
    assert answer.status_code == 413


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"host": "0.0.0.0"}, "so a token is needed"),
        ({"host": "maps.example"}, "so a token is needed"),
        ({"host": "::"}, "so a token is needed"),
        ({"token": "short"}, "less than 16 letters"),
        ({"basemap": "javascript:alert(1)//{z}{x}{y}"}, "`basemap`: the base map is no address"),
        ({"basemap": "https://user:secret@host/{z}/{x}/{y}"}, "`basemap`: the base map is no address"),
        ({"basemap": "https://host;script-src */{z}/{x}/{y}"}, "`basemap`: the base map is no address"),
        ({"basemap": "https://host/tiles.png"}, "lacks {z}, {x}, {y}"),
        ({"basemap_attribution": "© A"}, "without `basemap`"),
        ({"basemap": "https://host/{z}/{x}/{y}", "basemap_attribution": " "}, "`basemap_attribution`: "),
        ({"basemap": "https://host/{z}/{x}/{y}", "basemap_attribution": "a" * 301}, "more than 300 letters"),
        ({"basemap": "https://host/{z}/{x}/{y}", "basemap_attribution": "a\x07b"}, "control characters"),
        ({"prefect_ui": "prefect"}, "no URL"),
        ({"frame_origins": ("https://a; script-src *",)}, "is no origin"),
        ({"port": 70_000}, "`port`"),
    ],
)
def test_wrong_settings_are_one_clear_line(tmp_path: Path, values: dict[str, Any], problem: str) -> None:
    with pytest.raises(UsageError, match=re.escape(problem)) as error:
        application(tmp_path, **values)
    assert "\n" not in str(error.value)
    assert "short" not in str(error.value)
    assert "secret" not in str(error.value)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "127.1.2.3"])
def test_loopback_needs_no_token(tmp_path: Path, host: str) -> None:
    application(tmp_path, host=host)
